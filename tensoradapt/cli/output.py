"""Print for commands: no character that acts on a terminal, no failure for one that an encoding lacks."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import textwrap

from tensoradapt.cli.tables import NARROWEST
from tensoradapt.errors import TensorAdaptError
from tensoradapt.text import plain

WIDEST = 100  # columns of an error


def show(*texts: object) -> None:
    """Print texts, each from the beginning of a line."""
    print("\n".join(plain(str(text), keep="\n") for text in texts), flush=True)


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
