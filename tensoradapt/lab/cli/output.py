"""Print for commands: no character that acts on a terminal, no failure for one that an encoding lacks."""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import shutil
import sys
import textwrap
from collections.abc import Mapping
from typing import Any

from tensoradapt.errors import TensorAdaptError
from tensoradapt.text import plain

NARROWEST = 20  # columns of a terminal; one with fewer breaks the lines itself
WIDEST = 100  # columns of an error


def show(*texts: object) -> None:
    """Print texts, each from the beginning of a line."""
    print("\n".join(plain(str(text), keep="\n") for text in texts), flush=True)


def show_text(*paragraphs: str) -> None:
    """Print paragraphs in lines that the terminal has room for."""
    room = width()
    show(*(textwrap.fill(text, room, break_on_hyphens=False) if room else text for text in paragraphs))


def show_json(document: Any) -> None:
    """Print a document as JSON; numbers that it has no word for are null."""
    print(json.dumps(in_json(document), indent=2), flush=True)


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


def styled() -> bool:
    """Say whether the output shows bold text: a terminal that can, unless NO_COLOR is set."""
    known = os.environ.get("TERM", "dumb") != "dumb" and not os.environ.get("NO_COLOR")
    return known and sys.stdout is not None and sys.stdout.isatty()


def bold(text: str) -> str:
    """Return a text, in which nothing acts on a terminal, as a terminal prints it bold."""
    return f"\x1b[1m{plain(text)}\x1b[0m"


def heading(text: str) -> None:
    """Print the title of a table, bold where the output shows it."""
    print(bold(text) if styled() else plain(text))


def complain(text: str) -> None:
    """Print a text on stderr, if there is one."""
    if sys.stderr is not None:  # print would take stdout for None
        print(text, file=sys.stderr)


def one_line(message: str) -> str:
    """Return a message on one line, without its middle if it is long."""
    return str(TensorAdaptError(plain(" ".join(message.split()))))


def block(message: str) -> str:
    """Return an error as it is printed, in lines that the terminal can show."""
    columns = os.get_terminal_size().columns if sys.stderr is not None and sys.stderr.isatty() else WIDEST
    width = max(NARROWEST, min(WIDEST, columns))  # some terminals say that they have no columns
    return textwrap.fill(f"error: {one_line(message)}", width, subsequent_indent="  ", break_on_hyphens=False)


def write_out_what_lacks() -> None:
    """Let characters that the output's encoding lacks be printed as escapes."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def flush() -> None:
    """Write what was printed, so that a failure is met here and not as the interpreter ends."""
    if sys.stdout is not None:
        sys.stdout.flush()


def drop_output() -> None:
    """Let what is still to be printed go nowhere."""
    with contextlib.suppress(OSError, ValueError, AttributeError):  # a stream that is no file, or none at all
        handle = os.open(os.devnull, os.O_WRONLY)
        os.dup2(handle, sys.stdout.fileno())
        os.close(handle)
