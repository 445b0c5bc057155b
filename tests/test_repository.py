"""The files beside the package agree with it: version, licence, citation."""

import re
import tomllib
from pathlib import Path

import yaml

import tensoradapt as ta

ROOT = Path(__file__).parents[1]
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text())
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_citation_and_project_name_the_version_of_the_package() -> None:
    assert CITATION["version"] == PROJECT["version"] == ta.__version__


def test_the_licence_is_the_one_that_citation_and_project_name() -> None:
    assert CITATION["license"] == PROJECT["license"] == "Apache-2.0"
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text and "Version 2.0, January 2004" in text and "END OF TERMS AND CONDITIONS" in text


def test_the_citation_has_what_its_format_requires() -> None:
    assert CITATION["cff-version"] == "1.2.0" and CITATION["message"] and CITATION["title"]
    for work in (CITATION, *CITATION["references"]):
        assert work["type"] and work["title"] and all(a.get("name") or a["family-names"] for a in work["authors"])


def test_hooks_run_the_installed_tools() -> None:
    (repo,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert repo["repo"] == "local"
    assert {(hook["id"], hook["language"]) for hook in repo["hooks"]} == {
        ("ruff-check", "system"), ("ruff-format", "system"), ("mypy", "system"),
    }  # fmt: skip


def test_marks_by_which_ci_finds_files_stand_in_files_of_tests_alone() -> None:
    """A mark that another module defines would leave the tests that use it out, without a word."""
    files = [path for folder in ("tests", "benchmarks/paper/tests") for path in (ROOT / folder).rglob("*.py")]
    names = set(re.findall(r"\$\(marked (\w+)\)", (ROOT / ".ci" / "run").read_text()))
    assert names == {"slow", "browser", "llama_cpp", "cluster"}
    for name in names:
        found = [path for path in files if re.search(rf"mark\.{name}\b", path.read_text())]
        assert found and not [path for path in found if not path.name.startswith("test_")], name
