"""The files beside the package agree with it: version, licence, citation."""

import re
import runpy
import tomllib
from pathlib import Path

import pytest
import yaml

import tensoradapt as ta

ROOT = Path(__file__).parents[1]
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text())
SIZES = runpy.run_path(str(ROOT / ".ci" / "sizes.py"))
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


@pytest.mark.parametrize(
    "source, lines",
    [
        ("", 0),
        ('"""A docstring\n\nof three lines."""\n\n# a comment\n', 0),
        ("x = 1  # why\n", 1),
        ('def f():\n    """What it does."""\n\n    return (\n        # why\n        """text\nof two"""\n    )\n', 5),
    ],
)
def test_a_code_line_is_no_docstring_comment_or_blank_line(source: str, lines: int) -> None:
    assert SIZES["code_lines"](source) == lines


@pytest.mark.parametrize("budget, more, ended", [("1,002", "", 0), ("1,001", "", 1), ("1,002", "tensoradapt/b.py", 1)])
def test_a_folder_above_its_budget_and_a_file_in_none_fail(tmp_path: Path, capsys, budget, more, ended) -> None:
    (tmp_path / "tensoradapt" / "a").mkdir(parents=True)
    (tmp_path / "tensoradapt" / "a" / "one.py").write_text("x = 1\n" * 1002)
    if more:
        (tmp_path / more).write_text("y = 2\n")
    (tmp_path / "CONTRIBUTING.md").write_text(f"| folder | budget |\n|---|--:|\n| `tensoradapt/a/` | {budget} |\n")
    assert SIZES["main"](tmp_path, largest=False) == ended
    said = capsys.readouterr().out
    assert ("above its budget: tensoradapt/a/; make it smaller" in said) == (budget == "1,001")
    assert ("in no row of CONTRIBUTING.md: tensoradapt/b.py" in said) == bool(more)
