"""Write the tables of pages from the files in git that they come from.

    python docs/make/write_numbers.py            # writes them
    python docs/make/write_numbers.py --check    # writes nothing; names what would change and then exits with 1

A page has ``<!-- begin numbers NAME -->`` and ``<!-- end numbers NAME -->``; what stands between them is the table NAME
of ``number_tables.py``. (A file called numbers.py here would hide the module of the standard library from all scripts.)
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [name for name in (str(HERE), str(HERE.parents[1])) if name not in sys.path]

from markdown_tables import ROOT, WrongNumbers  # noqa: E402  # beside this file
from number_tables import TABLES  # noqa: E402

BEGIN = re.compile(r"<!-- begin numbers (.+?) -->")
BLOCK = re.compile(r"(<!-- begin numbers (.+?) -->\n\n?)(.*?)(\n?<!-- end numbers \2 -->)", re.DOTALL)
Tables = Mapping[str, Callable[[], str]]


def pages(root: Path = ROOT) -> list[Path]:
    """Return the pages that have markers."""
    every = [root / "README.md", *sorted((root / "docs").rglob("*.md"))]
    return [path for path in every if path.is_file() and BEGIN.search(path.read_text(encoding="utf-8"))]


def written(text: str, tables: Tables) -> tuple[str, list[str]]:
    """Return a page with its tables as the files have them, and the names of those that this changed."""
    changed: list[str] = []

    def block(found: re.Match[str]) -> str:
        name = found[2]
        if name not in tables:
            raise WrongNumbers(f"number_tables.py has no table {name!r}; it has {', '.join(sorted(tables))}")
        try:
            new = f"{found[1]}{tables[name]()}\n{found[4].lstrip()}"
        except WrongNumbers as error:
            raise WrongNumbers(f"the table {name!r}: {error}") from error
        changed.extend([name] * (new != found[0]))
        return new

    names = [found[2] for found in BLOCK.finditer(text)]
    if unended := [name for name in BEGIN.findall(text) if name not in names]:
        raise WrongNumbers(f"the table {unended[0]!r} has no end; expected <!-- end numbers {unended[0]} --> below it")
    return BLOCK.sub(block, text), changed


def main(check: bool, tables: Tables = TABLES, root: Path = ROOT) -> int:
    """Write or check all pages; print what changed or is wrong, and return how the process shall exit."""
    wrong = 0
    for path in pages(root):
        name = path.relative_to(root).as_posix()
        try:
            text, changed = written(path.read_text(encoding="utf-8"), tables)
        except WrongNumbers as error:
            print(f"{name}: {error}")
            wrong = 1
            continue
        if changed and check:
            print(f"{name}: would change {', '.join(changed)}; python docs/make/write_numbers.py writes them")
            wrong = 1
        elif changed:
            path.write_text(text, encoding="utf-8")
            print(f"{name}: {', '.join(changed)}")
    return wrong


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
