"""Read what a program shows in a terminal of a given width."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import struct
import subprocess
import termios
from collections.abc import Iterator, Sequence
from typing import TextIO

STYLE = re.compile(r"\x1b\[[\d;]*m")
BOLD = "\x1b[1m"


def resize(terminal: int, columns: int) -> None:
    """Give the terminal of a file descriptor another width."""
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))


def screen(command: Sequence[str], columns: int = 80) -> list[str]:
    """The lines that a program prints in a pseudo-terminal, with what makes them bold; it has to end with code 0."""
    ours, theirs = os.openpty()
    resize(theirs, columns)
    env = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "NO_COLOR", "FORCE_COLOR")}
    env |= {"TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8"}
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=env) as process:
        os.close(theirs)
        text = b"".join(iter(lambda: _read(ours), b"")).decode()
    os.close(ours)
    assert process.returncode == 0, text
    return text.splitlines()


def bare(line: str) -> str:
    """A line without styles and the blanks at its end."""
    return STYLE.sub("", line).rstrip()


def _read(terminal: int) -> bytes:
    with contextlib.suppress(OSError):  # Linux: the program has ended
        return os.read(terminal, 65536)
    return b""


@contextlib.contextmanager
def written(columns: int = 80) -> Iterator[tuple[TextIO, list[str]]]:
    """A pseudo-terminal of this process: the stream to write to it, and a list that then has what was written."""
    ours, theirs = os.openpty()
    resize(theirs, columns)
    seen: list[str] = []
    with os.fdopen(theirs, "w") as stream:
        yield stream, seen
    seen.append(b"".join(iter(lambda: _read(ours), b"")).decode())
    os.close(ours)
