"""Print for commands: no character that acts on a terminal, no failure for one that an encoding lacks."""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from rich.cells import cell_len
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from tensoradapt.errors import TensorAdaptError
from tensoradapt.text import count_text, folded, longest, plain

NARROWEST = 40  # columns; a terminal with fewer breaks the lines itself
WIDEST = 100  # columns of an error
ENDLESS = 100_000  # columns of a file or pipe
GAP = 2  # columns between two of a table
EASY = 20  # cells in which a name of several words is whole
PROSE = 12  # columns in which a sentence can be read
NUMBER = re.compile(r"[-+−<≤ ]*\d[\d.,]*(e-?\d+)?( [a-zA-Z%]{1,3})?( to [-+−\d.]+)?")
Cell = str | Text


def show(*texts: object) -> None:
    """Print texts, each from the beginning of a line."""
    if texts:
        print("\n".join(plain(str(text), keep="\n") for text in texts), flush=True)


def show_text(*paragraphs: str, style: str = "") -> None:
    """Print paragraphs in lines that the terminal has room for."""
    for text in paragraphs:
        _print(Text(plain(text), style))


def show_json(document: Any) -> None:
    """Print a document as JSON; numbers that it has no word for are null."""
    print(json.dumps(in_json(document), indent=2), flush=True)


def show_table(
    titles: Sequence[str], rows: Sequence[Sequence[Cell]], order: Sequence[int] = (), wide: bool = False
) -> None:
    """Print a table in the width of the terminal. No name is broken within a word, and no number is broken at all.

    Args:
        titles: those of the columns.
        rows: the cells.
        order: columns, most important first, of which the last are hidden where there is no room, and named below;
            without it none is hidden. Where that does not suffice, words of the last that is shown are broken.
        wide: whether to hide none, whatever the room.
    """
    room = ENDLESS if wide else width() or ENDLESS
    columns = [[Text(title), *(_text(row[i]) for row in rows)] for i, title in enumerate(titles)]
    kept = list(order or range(len(titles)))
    for easy, few in ((EASY, 3), (0, 2)) if order else ():
        while _room_for(widths := _fitted([columns[i] for i in sorted(kept)], room, easy)) > room and len(kept) > few:
            kept.pop()
    if not order or _room_for(widths) > room:
        widths = _fitted([columns[i] for i in sorted(kept)], room, 0, PROSE)
    shown = [columns[i] for i in sorted(kept)]
    sides: list[Literal["left", "right"]] = ["right" if all(map(_is_number, cells[1:])) else "left" for cells in shown]
    heads = [Column(cells[0], justify=side, width=n) for cells, side, n in zip(shown, sides, widths, strict=True)]
    table = Table(*heads, box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold")
    for cells in zip(*(cells[1:] for cells in shown), strict=True):
        table.add_row(*(Text("\n".join(folded(c.plain, n)), c.style) for c, n in zip(cells, widths, strict=True)))
    _print(table, _room_for(widths))
    if hidden := [titles[i] for i in order if i not in kept]:
        show_text(f"{count_text(len(hidden), 'column')} hidden ({', '.join(hidden)}); --wide shows them", style="dim")


def _text(cell: Cell) -> Text:
    return Text(plain(cell)) if isinstance(cell, str) else cell


def _is_number(cell: Text) -> bool:
    return not cell.plain or NUMBER.fullmatch(cell.plain) is not None


def _room_for(widths: Sequence[int]) -> int:
    return sum(widths) + GAP * (len(widths) - 1)


def _fitted(columns: Sequence[Sequence[Text]], room: int, easy: int, last: int = ENDLESS) -> list[int]:
    """Return the widths of columns, taken from the widest until they fit or each is as narrow as it may be.

    That is its longest number or word, but at most ``last`` of the last column, and ``easy`` if it is as wide.
    """
    widths = [max(cell_len(cell.plain) for cell in column) for column in columns]
    words = [max(cell_len(c.plain) if _is_number(c) else longest(c.plain) for c in column) for column in columns]
    least = [max(word, min(width, easy)) for word, width in zip(words, widths, strict=True)]
    least[-1] = min(least[-1], last)
    while _room_for(widths) > room and (loose := [i for i, n in enumerate(widths) if n > least[i]]):
        widths[max(loose, key=widths.__getitem__)] -= 1
    return widths


def _print(what: Any, least: int = 0) -> None:
    """Print what rich renders, coloured where the output is a terminal, without blanks at the ends of lines."""
    console = Console(file=sys.stdout, width=max(width() or ENDLESS, least), highlight=False)
    with console.capture() as captured:
        console.print(what)
    print("\n".join(map(str.rstrip, captured.get().splitlines())), flush=True)


def in_json(value: Any) -> Any:
    """Return a value in JSON's types: numbers of numpy as Python's, what is missing or not finite as None.

    >>> in_json({"n": 3, "lr": float("nan"), "sizes": (1, 2), "rank": None})
    {'n': 3, 'lr': None, 'sizes': [1, 2], 'rank': None}
    """
    if isinstance(value, Mapping):
        return {str(key): in_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple | range):
        return [in_json(item) for item in value]
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        value = value.item()
    if isinstance(value, bool | int | str | None):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return None if type(value).__name__ in ("NAType", "NaTType") else str(value)


def width() -> int | None:
    """Return the columns of the terminal, or those that the variable COLUMNS says; None for a file or pipe."""
    if sys.stdout is None or not (sys.stdout.isatty() or os.environ.get("COLUMNS")):
        return None
    return max(NARROWEST, shutil.get_terminal_size().columns)


def complain(text: str) -> None:
    """Print a text on stderr, if there is one."""
    if sys.stderr is not None:  # print would take stdout for None
        print(text, file=sys.stderr)


def block(message: str) -> str:
    """Return an error as it is printed, in lines that the terminal can show."""
    columns = os.get_terminal_size().columns if sys.stderr is not None and sys.stderr.isatty() else WIDEST
    room = max(NARROWEST, min(WIDEST, columns))  # some terminals say that they have no columns
    line = str(TensorAdaptError(plain(" ".join(message.split()))))  # without its middle if it is long
    return textwrap.fill(f"error: {line}", room, subsequent_indent="  ", break_on_hyphens=False)


def write_out_what_lacks() -> None:
    """Let characters that the output's encoding lacks be printed as escapes."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def drop_output() -> None:
    """Let what is still to be printed go nowhere."""
    with contextlib.suppress(OSError, ValueError, AttributeError):  # a stream that is no file, or none at all
        handle = os.open(os.devnull, os.O_WRONLY)
        os.dup2(handle, sys.stdout.fileno())
        os.close(handle)
