"""Files written whole or not at all."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from tensoradapt.errors import TensorAdaptError


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
