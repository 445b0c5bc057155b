"""Tables as commands print them: within the width that a terminal has, whole in a file or pipe."""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tensoradapt.lab.analysis.cells import cell_text
from tensoradapt.lab.cli.output import bold, show, show_text, styled, width

if TYPE_CHECKING:
    from pandas import DataFrame

GAP = 2  # cells between two columns
MAIN = 4  # most important columns: for their sake a long name of a method is folded
FOLDED = 18  # cells that a folded name of a method has at least, where there is room
SHORTENED = ("rank", "layout", "projections", "model", "over", "note")  # texts that may end early
SHORTEST = 9  # cells of a shortened text
TEXTS = (
    *SHORTENED,
    "task",
    "method",
    "metric",
    "reference",
    "optimizer",
    "status",
    "size",
    "verdict",
    "control",
    "id",
)  # left-aligned
ONCE = (
    "task",
    "model",
    "metric",
    "reference",
    "projections",
    "scale",
    "optimizer",
    "layout",
    "steps",
)  # not in each row


def print_table(
    table: DataFrame,
    columns: Mapping[str, str],
    order: Sequence[str],
    *,
    best: Sequence[bool] = (),
    said: str = "",
) -> None:
    """Print a table, and below it what its bold rows are and which columns there was no room for.

    Args:
        table: a row for each line.
        columns: those to print, from left to right, with their titles. An empty column is left out, as is one of
            ``ONCE`` with one value.
        order: the columns, most important first. The first two, a name and a number, are always there and whole; the
            others as long as they fit, texts of ``SHORTENED`` perhaps without their ends.
        best: which rows to print bold; with a star behind them where nothing can be bold.
        said: what the bold rows are.
    """
    if table.empty:
        return
    texts = {key: [cell_text(key, value) for value in table[key]] for key in columns if key in table}
    texts = {key: cells for key, cells in texts.items() if len({*cells} - {""}) > (key in ONCE)}
    widths = {key: max(map(cells_of, [columns[key], *cells])) for key, cells in texts.items()}
    marked = list(best) if any(best) and not all(best) else []
    starred, room = marked and not styled(), width()
    order = [key for key in order if key in texts]
    kept = fitted(widths, order, room - 2 * bool(starred)) if room else widths
    _print_rows(texts, columns, kept, marked)
    if marked:
        show(f"{'*' if starred else 'bold'}: {said}")
    if gone := [columns[key] for key in order if key not in kept]:
        show_text(f"no room for {', '.join(gone)}: a wider terminal shows them")


def fitted(widths: Mapping[str, int], order: Sequence[str], room: int) -> dict[str, int]:
    """Return the columns that there is room for, with their widths: most important first, each if it still fits.

    >>> widths = {"method": 30, "mean": 5, "interval": 14, "n_params": 10, "layout": 30, "lr": 5}
    >>> fitted(widths, list(widths), 70)
    {'method': 30, 'mean': 5, 'interval': 14, 'n_params': 10}
    >>> fitted(widths, list(widths), 55)
    {'method': 20, 'mean': 5, 'interval': 14, 'n_params': 10}
    >>> fitted(widths, list(widths), 20)
    {'method': 13, 'mean': 5}
    """
    name, number = order[:2]
    over = max(0, _room_for({key: widths[key] for key in order[:MAIN]}) - room)
    least = min(max(min(widths[name], FOLDED), widths[name] - over), room - GAP - widths[number])
    kept = {name: max(1, least), number: widths[number]}
    for key in order[2:]:
        left = room - _room_for(kept) - GAP
        if widths[key] <= left or (key in SHORTENED and left >= SHORTEST):
            kept[key] = min(widths[key], left)
    kept[name] += max(0, min(widths[name] - kept[name], room - _room_for(kept)))
    return kept


def cells_of(text: str) -> int:
    """Return how many cells of a terminal a text takes; characters of Chinese, Japanese and Korean take two."""
    return sum(0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF") for c in text)


def _room_for(widths: Mapping[str, int]) -> int:
    return sum(widths.values()) + GAP * (len(widths) - 1)


def _print_rows(
    texts: Mapping[str, Sequence[str]], titles: Mapping[str, str], widths: Mapping[str, int], marked: Sequence[bool]
) -> None:
    kept = {key: widths[key] for key in texts if key in widths}
    show(*_lines({key: titles[key] for key in kept}, kept))
    for i in range(len(next(iter(texts.values())))):
        lines = _lines({key: texts[key][i] for key in kept}, kept)
        if marked and marked[i]:
            blank = " " * (_room_for(kept) - cells_of(lines[0]))
            lines = [bold(line) for line in lines] if styled() else [f"{lines[0]}{blank} *", *lines[1:]]
        print("\n".join(lines))


def _lines(row: Mapping[str, str], widths: Mapping[str, int]) -> list[str]:
    """Return the lines of a row, several where a name is folded; other texts that are too long end with two dots."""
    name = next(key for key in ("method", *row) if key in row)
    folded = textwrap.wrap(row[name], widths[name]) if cells_of(row[name]) > widths[name] else [row[name]]
    first = {key: text if key == name else _short(text, widths[key]) for key, text in row.items()}
    rows = [{**first, name: folded[0]}, *({**dict.fromkeys(row, ""), name: part} for part in folded[1:])]
    return ["  ".join(_aligned(key, text, widths[key]) for key, text in each.items()).rstrip() for each in rows]


def _short(text: str, most: int) -> str:
    return text if cells_of(text) <= most else f"{text[: most - 2]}.."


def _aligned(key: str, text: str, cells: int) -> str:
    blank = " " * (cells - cells_of(text))
    return text + blank if key in TEXTS else blank + text
