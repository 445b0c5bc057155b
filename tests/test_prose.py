"""Prose on the pages of the repository is at most 120 characters wide, so that its changes can be read line by line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"]
PAGES += sorted(
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / "docs").rglob("*.md")
    if path.parent.name not in ("gallery", "plots")
)
NO_PROSE = re.compile(r" {4}| *(\||#|<|>|:::)")  # code, tables, headings, HTML, quotes, directives
WHOLE = re.compile(r"`[^`]*`|\$[^$]+\$|!\[[^\]]*\]\([^)]*\)|\]\([^)]*\)")  # code, formulas, pictures, targets of links


HISTORY = re.compile(
    r"\b(was mended|were mended|found on the way|other work|turned out|we found|used to be|since 0\.\d|first version)\b"
)
MANUAL = [page for page in PAGES if page != "CHANGELOG.md" and not page.startswith("docs/results/")]


def too_wide(text: str) -> list[str]:
    """Return the lines of prose that are wider than 120 characters and could be broken."""
    lines = re.sub(r"^ *```.*?^ *```", "", text, flags=re.DOTALL | re.MULTILINE).splitlines()
    wide = [line for line in lines if len(line) > 120 and not NO_PROSE.match(line)]
    return [line for line in wide if " " in WHOLE.sub(lambda found: "x" * len(found[0]), line).lstrip("-* ")]


def test_only_prose_that_can_be_broken_is_too_wide() -> None:
    words = "word " * 30
    whole = [f"| {words} |", f"    {words}", f"# {words}", f"```\n{words}\n```", f"- `{words}`", f"> {words}"]
    assert not [text for text in (*whole, words[:120]) if too_wide(text)]
    assert [text for text in (words, f"- {words}", f"[{words}](a.md)", f"`{words}` and") if not too_wide(text)] == []


@pytest.mark.parametrize("page", PAGES)
def test_lines_of_prose_are_at_most_120_wide(page: str) -> None:
    assert too_wide((ROOT / page).read_text()) == []


@pytest.mark.parametrize("page", MANUAL)
def test_a_page_of_the_manual_says_what_holds_not_how_it_was_found(page: str) -> None:
    assert HISTORY.findall(" ".join((ROOT / page).read_text().split())) == []
