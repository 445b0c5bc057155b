"""Claims: a kernel lock per run, so that two processes in one folder never compute the same run.

The kernel releases a lock at any death, so there are no leases and no heartbeats. Good on one machine; on network file
systems locks may be local to a node (there a scheduler must hand out runs).
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from tensoradapt.errors import TensorAdaptError
from tensoradapt.files import reason

try:
    import fcntl
except ImportError:  # not a POSIX system: a run done twice gives the same result, and the first is kept
    fcntl = None  # type: ignore[assignment]

# what file systems without locks answer: a run is computed there all the same, as on systems that have none
WITHOUT = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)


@contextlib.contextmanager
def claim(root: Path, name: str) -> Iterator[bool]:
    """True if this process may compute the run; False while another one does."""
    path = root / f".{name}.lock"
    with _opened(path) as file:
        if not _locked(file, path):
            yield False
            return
        yield True
        path.unlink(missing_ok=True)


def _opened(path: Path) -> IO[str]:
    try:
        return path.open("a")
    except OSError as error:
        raise TensorAdaptError(
            f"{path} cannot be written ({reason(error)}); expected a file for the lock of a run: remove what is in the "
            "way or free space, then run the sweep again"
        ) from error


def _locked(file: IO[str], path: Path) -> bool:
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # whoever had it before unlinks the file: a lock on what has no name any more would keep nobody out
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except OSError as error:
        return error.errno in WITHOUT
