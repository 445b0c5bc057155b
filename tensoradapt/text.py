"""Texts of ranks, sizes, times and tables, as they are shown to users."""

from __future__ import annotations

import itertools
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from html import escape
from typing import Any

Rank = int | Mapping[str, int]
LINES, COLUMNS = 24, 100  # a screen, for repr
FOLDED = 14  # characters that a column of texts has at least, if it is as wide
_LETTER = re.compile("[a-z]")
_displays: list[Callable[[Any], str]] = []


def plain(text: str, keep: str = "") -> str:
    """Write every character that does not print, but those to keep, as in a Python string.

    Names in files that others wrote can hold line breaks, sequences that steer a terminal, and lone surrogates.

    >>> plain("a\\x1b[31m\\n")
    'a\\\\x1b[31m\\\\n'
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else ascii(c)[1:-1] for c in text)


def prose(text: str) -> str:
    """Return a text of one paragraph in lines of at most 120 characters, as pages have them; no word is cut."""
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False)


def align(rows: Sequence[tuple[str, ...]], room: int | None = None) -> list[str]:
    """Return the lines of a table, each column as wide as its widest cell; a cell is one line.

    Args:
        rows: the cells; the first row is the head.
        room: the characters that a line may have: the widest texts are folded, numbers never. Where that is not enough,
            each row is written as lines, one for each cell, behind the column's title.

    >>> align([("name", "n", "what it is"), ("cp", "1,752", "one factor for each mode")], 30)
    ['name  n      what it is', 'cp    1,752  one factor for', '             each mode']
    >>> align([("name", "n"), ("a long name", "123,456,789")], 15)
    ['name: a long', '  name', 'n: 123,456,789']
    """
    rows = [tuple(map(plain, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    fitted = widths if room is None else _narrowed(rows, widths, room)
    if room is not None and not fitted:
        return _in_blocks(rows, room)
    lines = []
    for row in rows:
        cells = [folded(cell, width) for cell, width in zip(row, fitted, strict=True)]
        for parts in itertools.zip_longest(*cells, fillvalue=""):
            lines.append("  ".join(map(str.ljust, parts, fitted)).rstrip())
    return lines


def _narrowed(rows: Sequence[tuple[str, ...]], widths: Sequence[int], room: int) -> list[int]:
    """Return widths that fit, taken from the widest columns of texts; an empty list where there are none."""
    fitted = list(widths)
    columns = [*enumerate(zip(*rows[1:], strict=True))]
    least = {i: max(FOLDED, *map(longest, column)) for i, column in columns if any(map(_LETTER.search, column))}
    while sum(fitted) + 2 * (len(fitted) - 1) > room:
        wide = [i for i in least if fitted[i] > least[i]]
        if not wide:
            return []
        fitted[max(wide, key=lambda i: fitted[i])] -= 1
    return fitted


class _Wrapper(textwrap.TextWrapper):
    wordsep_simple_re = re.compile(r"([\t\n\x0b\x0c\r ]+|(?<=[A-Za-z*][./])(?=[A-Za-z*_]))")


def folded(text: str, width: int, indent: str = "") -> list[str]:
    """Return the lines of a text; a name that is too long is broken after a dot or slash.

    >>> folded("encoder.layer.*.attention.self.query is q", 20)
    ['encoder.layer.*.', 'attention.self.query', 'is q']
    """
    wrapper = _Wrapper(width, subsequent_indent=indent, break_on_hyphens=False)
    return wrapper.wrap(text) if len(text) > width else [text]


def longest(text: str) -> int:
    """Return the characters of the longest part of a text that is not broken."""
    return max(map(len, _Wrapper.wordsep_simple_re.split(text)))


def _in_blocks(rows: Sequence[tuple[str, ...]], room: int) -> list[str]:
    head, *others = rows
    lines = []
    for row in others:
        texts = [f"{title}: {cell}" if title else cell for title, cell in zip(head, row, strict=True) if cell]
        lines += [*(line for text in texts for line in folded(text, room, "  ")), ""]
    return lines[:-1]


def cut(line: str) -> str:
    """Return a line as wide as a screen at most; an ellipsis stands for what is cut off."""
    line = plain(line)
    return line if len(line) <= COLUMNS else f"{line[: COLUMNS - 3]}..."


def screen(text: str, what: str = "line") -> str:
    """Return a text cut to a screen, for ``repr``; a last line says how many lines, each a ``what``, are left out.

    >>> screen("\\n".join(map(str, range(30))), "number").splitlines()[-2:]
    ['22', '... and 7 more numbers']
    """
    lines = [cut(line) for line in text.split("\n")]
    left = len(lines) - LINES
    return "\n".join([*lines[: LINES - 1], f"... and {count_text(left + 1, f'more {what}')}"] if left > 0 else lines)


def show_by(html: Callable[[Any], str]) -> None:
    """Have objects shown in notebooks by a function that returns HTML; the last counts."""
    _displays.append(html)


def displayed(of: Any) -> str:
    """Return what a notebook shows of an object: HTML, or its text where nothing was registered or that fails."""
    with suppress(Exception):  # whoever looks at an object gets to see it, whatever is wrong with its display
        if _displays:
            return _displays[-1](of)
    return f"<pre>{escape(repr(of))}</pre>"


def bonds_text(rank: Rank) -> str:
    """Write a rank with the names of its bonds.

    >>> bonds_text(8), bonds_text({"layer": 2, "out": 4})
    ('8', 'layer=2 out=4')
    """
    return " ".join(f"{name}={n}" for name, n in rank.items()) if isinstance(rank, Mapping) else str(rank)


def duration_text(seconds: float) -> str:
    """Write a time in the unit that suits it.

    >>> duration_text(42), duration_text(400), duration_text(9000)
    ('42 s', '7 min', '2.5 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def count_text(n: int, what: str) -> str:
    """Write a number of things.

    >>> count_text(1, "run"), count_text(1200, "run")
    ('1 run', '1,200 runs')
    """
    return f"{n:,} {what}{'s' * (n != 1)}"


def short_count(n: float) -> str:
    """Write a number in three digits with its unit.

    >>> short_count(1000), short_count(30_000_000), short_count(50)
    ('1k', '30M', '50')
    """
    units = ((1e9, "G"), (1e6, "M"), (1e3, "k"))
    return next((f"{n / size:.3g}{unit}" for size, unit in units if n >= size), f"{n:.3g}")


def bytes_text(n_bytes: float) -> str:
    """Write a number of bytes in the unit that suits it, with three digits.

    >>> bytes_text(300_000), bytes_text(57.3e6), bytes_text(1.18e9)
    ('0.30 MB', '57.3 MB', '1.18 GB')
    """
    n, unit = (n_bytes / 1e9, "GB") if n_bytes >= 1e9 else (n_bytes / 1e6, "MB")
    return f"{n:,.{2 if n < 10 else 1 if n < 100 else 0}f} {unit}"
