"""Files written whole or not at all, and JSON read strictly."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
from collections import Counter
from itertools import accumulate
from pathlib import Path
from typing import Any, BinaryIO

from tensoradapt.errors import TensorAdaptError

DEPTH = 32  # of JSON: what is written needs ten, and deeper values would overflow the stack of whoever shows them


def replace_file(path: Path, data: bytes) -> Path:
    """Write ``data`` to ``path`` so that a reader sees the old file or the new one, never a part; returns ``path``."""
    path = Path(path)
    temp = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(3).hex()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_synced(temp, data)
        temp.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temp.unlink()
        raise TensorAdaptError(
            f"{path} cannot be written ({reason(error)}); expected a place for a file: choose another path"
        ) from error
    return path


def write_synced(path: Path, data: bytes) -> None:
    """Write a new file and wait until it is on disk."""
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Wait until the names in a folder are on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def reason(error: Exception) -> str:
    """What the operating system said, without the path."""
    return str(getattr(error, "strerror", None) or error)


def open_bytes(path: Path) -> BinaryIO:
    """A file to read; a named pipe, whose reader would wait for a writer, is read as empty."""
    return open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0)))


def parse_json(data: bytes, path: Path, hint: str) -> Any:
    """JSON of an untrusted file: UTF-8, each key once, finite numbers, nested ``DEPTH`` deep at most."""
    try:
        text = data.decode()
        if (depth := _depth(text)) > DEPTH:
            raise ValueError(f"it is nested {depth} deep, and at most {DEPTH} are read")
        return json.loads(text, object_pairs_hook=_once, parse_constant=_finite, parse_float=_finite)
    except ValueError as error:
        raise TensorAdaptError(f"{path} is not JSON ({str(error)[:300]}); {hint}") from None


def _depth(text: str) -> int:
    """How deep brackets are nested, those in strings aside."""
    brackets = re.finditer(r"[\[\]{}]", re.sub(r'"(?:[^"\\]|\\.)*"', "", text))
    return max(accumulate(1 if match[0] in "[{" else -1 for match in brackets), default=0)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError(f"key {Counter(key for key, _ in pairs).most_common(1)[0][0]!r} stands twice")
    return found


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"{text} is not a finite number")
    return value
