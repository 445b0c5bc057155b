"""What the README and CONTRIBUTING say is true."""

import csv
import doctest
import re
from pathlib import Path

import pytest

from tensoradapt.cli.methods import methods_page

ROOT = Path(__file__).parents[1]
WITHOUT_FILES = ("docs/comparison.md", "docs/recipes.md", "docs/sweeps/tuning.md")
GENERATED = {"methods.md"}  # its links are addresses of papers
PAGES = [
    str(path.relative_to(ROOT))
    for folder in ("docs", "docs/sweeps")
    for path in sorted((ROOT / folder).glob("*.md"))
    if path.name not in GENERATED
]


def test_the_readme_example_runs_and_prints_what_it_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = doctest.testfile(str(ROOT / "README.md"), module_relative=False)
    assert found.attempted >= 10 and found.failed == 0
    assert (tmp_path / "my-adapter" / "adapter.json").is_file()


def test_the_page_of_checkpoints_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = doctest.testfile(str(ROOT / "docs" / "checkpoints.md"), module_relative=False)
    assert found.attempted >= 10 and found.failed == 0


@pytest.mark.parametrize(("page", "least"), [("checkpoints.md", 6), ("comparison.md", 35)])
def test_a_page_names_tests_that_exist(page, least):
    text = (ROOT / "docs" / page).read_text()
    there = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    named = re.findall(r"`(test_\w+)`", text)
    assert len(named) >= least and not [name for name in named if f"def {name}(" not in there]


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", *PAGES])
def test_every_file_a_page_names_is_there(page):
    text = (ROOT / page).read_text()
    named = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)|`((?:tensoradapt|tests|benchmarks|docs|\.ci)/[\w./]+)`", text)
    paths = [link or code for link, code in named]
    assert (paths or page in WITHOUT_FILES) and not [
        path for path in paths if not ((ROOT / page).parent / path).exists() and not (ROOT / path).exists()
    ]


def test_the_files_of_the_ten_changes_are_there():
    rows = re.findall(r"^\| an? [a-z ]+ \| (.*) \|$", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    named = [name for row in rows for name in re.findall(r"`([\w/]+(?:\.py|/))`", row)]
    assert (
        len(rows) == 10
        and len(named) >= 15
        and not [name for name in named if not any((root / name).exists() for root in (ROOT, ROOT / "tensoradapt"))]
    )


def test_the_page_of_methods_is_what_the_code_says():
    assert (ROOT / "docs" / "methods.md").read_text() == methods_page()


def test_the_table_of_methods_to_take_has_the_numbers_of_the_frontier():
    page, table = (ROOT / "docs" / name for name in ("which-method.md", "figures/frontier.csv"))
    with table.open(newline="") as file:
        points = {(row["method"].split()[0].lower(), row["rank"]): row for row in csv.DictReader(file)}
    rows = re.findall(
        r"^\| [^|]+ \| ([\w-]+) r=(\d+) \(([\d,]+)\).* \| ([\d.]+) \| \S+ \(", page.read_text(), re.MULTILINE
    )
    assert len(rows) == 6
    for method, rank, n_params, accuracy in rows:
        point = points[method.lower(), rank]
        assert int(point["n_params"]) == int(n_params.replace(",", "")) and f"{float(point['mean']):.3f}" == accuracy


def test_contributing_stays_short():
    assert len((ROOT / "CONTRIBUTING.md").read_text().splitlines()) <= 60


def test_every_row_of_the_comparison_names_its_test():
    rows = [line for line in (ROOT / "docs" / "comparison.md").read_text().splitlines() if line.startswith("| ")]
    assert [row for row in rows[1:] if row.count("|") != 8 or not re.search(r"`test_\w+` \|$", row)] == []
