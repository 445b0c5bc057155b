"""The pages of docs that are in git, and those that docs/make makes of code."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
sys.path.append(str(DOCS / "make"))


def handwritten() -> list[Path]:
    """The pages that are in git, which .gitignore does not name."""
    ignored = [line for line in (ROOT / ".gitignore").read_text().splitlines() if line.startswith("/docs/")]
    made = {ROOT / line[1:] for line in ignored if line.endswith(".md")} | {*(DOCS / "notebooks").glob("[0-9]*.md")}
    return sorted(page for page in {*DOCS.rglob("*.md")} - made if not page.is_relative_to(DOCS / "gallery"))


@cache
def reference() -> dict[str, str]:
    """The made pages of docs/reference by the names of their files."""
    import site_pages

    return site_pages.reference()
