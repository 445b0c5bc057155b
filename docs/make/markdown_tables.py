"""A table of a page, made of a file in git by a template for each column."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

ROOT = Path(__file__).resolve().parents[2]
Row = dict[str, Any]


class WrongNumbers(ValueError):
    """What is wrong with a table, its file or a marker."""


def read(file: str) -> Any:
    """Return the rows of a CSV file, or what a JSON file holds; the path is below the root of the repository."""
    path = ROOT / file
    if not path.is_file():
        raise WrongNumbers(f"{file} is missing")
    if path.suffix == ".json":
        return json.loads(path.read_text(encoding="utf-8"))
    table = pd.read_csv(path, low_memory=False)
    return [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]


@dataclass(frozen=True)
class Table:
    """A table of a page: its file, and a heading with the template of a cell, as of ``str.format``, for each column.

    A heading that ends in ":" has its column on the right. ``rows`` makes of what the file holds the rows that are
    shown; ``note`` is a text below the table, made of these.
    """

    file: str
    columns: Mapping[str, str]
    rows: Callable[[Any], Iterable[Row]] = list
    note: Callable[[list[Row]], str] | None = None

    def text(self) -> str:
        """Return it as Markdown."""
        content = read(self.file)
        try:
            rows = list(self.rows(content))
            cells = [[template.format(**row) for template in self.columns.values()] for row in rows]
        except KeyError as error:
            columns = f"; it has {', '.join(content[0])}" if isinstance(content, list) and content else ""
            raise WrongNumbers(f"{self.file} has no {error.args[0]!r}{columns}") from error
        table = markdown(self.columns, cells)
        return f"{table}\n\n{self.note(rows)}" if self.note else table


def markdown(headings: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a table of Markdown.

    >>> print(markdown(["", "n:"], [["a", "1"]]))
    |  | n |
    |---|--:|
    | a | 1 |
    """
    sides = "|".join("--:" if heading.endswith(":") else "---" for heading in headings)
    head = f"| {' | '.join(heading.removesuffix(':') for heading in headings)} |\n|{sides}|"
    return "\n".join([head, *(f"| {' | '.join(row)} |" for row in rows)])
