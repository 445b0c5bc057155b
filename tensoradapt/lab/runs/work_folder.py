"""Work in progress: the folder that a run needs while it is computed, and the lock of the process that computes it.

``.work/<id>/`` holds the run's config, its attempts so far and the state of its training. It is removed when the run is
done; the attempts go into the run's folder. ``claim`` takes a kernel lock for each run, so that two processes in one
folder never compute the same run. The kernel releases a lock at any death, so there are no leases and no heartbeats.
Network file systems may keep locks local to a node: there a scheduler must hand out the runs.

Tickets say which job of a scheduler computes a run, for sweeps that share a disk without locks. The work folder holds
``ticket.0``, ``ticket.1`` and so on; the last one counts. A ticket is created before its job is submitted, by a call
that succeeds for one process alone (``O_EXCL``), and stays until the run has ended: a sweep that finds the job gone
creates the next. A second line says that the submission is over, so that a job that is not in the queue has ended.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, BinaryIO

from tensoradapt.errors import TensorAdaptError
from tensoradapt.files import explained, parse_json, read_bounded, replace_file
from tensoradapt.lab.runs.config import RunConfig
from tensoradapt.lab.runs.provenance import provenance
from tensoradapt.lab.runs.store import is_failed, is_finished

try:
    import fcntl
except ImportError:  # not a POSIX system: a run done twice gives the same result, and the first is kept
    fcntl = None  # type: ignore[assignment]

WORK, ATTEMPTS = ".work", "attempts.jsonl"
FREE = "free space, then run the sweep again"
EVERY = 25  # steps between two saved states of a training
# errors of file systems without locks, where runs are computed without one
WITHOUT = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)
versions = lru_cache(maxsize=1)(provenance)  # runs git, once in a process


@dataclass(frozen=True)
class Work:
    """The work folder of one run."""

    root: Path
    name: str

    @property
    def path(self) -> Path:
        return Path(self.root) / WORK / self.name

    def prepare(
        self, config: RunConfig, checkpoint_every: int | None = None, track: Sequence[str] = (), keep: str = "none"
    ) -> None:
        """Write what a worker must know; what another sweep wrote stays where nothing else is asked or it is in use.

        Without a number of steps and trackers these are the run's own; of a new run ``EVERY`` steps and none. ``keep``:
        which adapters are kept, as in ``runs.kept``.
        """
        try:
            _, every, trackers, _ = known = self.config()
        except TensorAdaptError:  # none yet, damaged or of another run
            self._write(config, EVERY if checkpoint_every is None else checkpoint_every, list(track), keep)
            return
        asked = config, every if checkpoint_every is None else checkpoint_every, list(track) or trackers, keep
        if asked != known:
            with claim(self.path.parent, self.name) as ours:
                if ours:
                    self._write(*asked)

    def _write(self, config: RunConfig, checkpoint_every: int, track: list[str], keep: str) -> None:
        record = {"config": config.as_dict(), "checkpoint_every": checkpoint_every, "track": track, "keep": keep}
        replace_file(self.path / "config.json", json.dumps(record).encode())

    def config(self) -> tuple[RunConfig, int, list[str], str]:
        """Return the run's config, the steps between two saved states of its training, its trackers, what is kept."""
        path, again = self.path / "config.json", "delete it, then run the sweep again"
        with explained("read", path, again, TypeError, KeyError, AttributeError):
            record = parse_json(read_bounded(path, again), path, again)
            config, every = RunConfig.from_dict(record["config"]), record["checkpoint_every"]
            track, keep = record.get("track", []), record.get("keep", "none")
        if config.id != self.name:
            raise TensorAdaptError(f"{path} is the config of run {config.id}; expected that of {self.name}: {again}")
        return config, every, track, keep

    def note(self, event: str, **more: Any) -> None:
        """Add a line to the run's attempts, on disk before the attempt continues."""
        line = {"event": event, "time": round(time.time(), 3), "pid": os.getpid(), **more}
        path = self.path / ATTEMPTS
        with explained("written", path, FREE), path.open("ab+") as file:
            file.write(b"\n" * _torn(file) + json.dumps(line).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def attempts(self) -> bytes:
        """Return the run's attempts so far, a JSON object on each line; none where no process has begun it."""
        path = self.path / ATTEMPTS
        return path.read_bytes() if path.exists() else b""

    def begun(self) -> str | None:
        """Return when the first attempt began, in UTC, as "2026-12-02T04:10:30"; None where that is not known."""
        try:
            first = json.loads(self.attempts().splitlines()[0])
            return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(first["time"]))
        except (LookupError, TypeError, ValueError):
            return None

    def clear(self) -> None:
        """Remove the folder, and the temporary folders that killed attempts left."""
        shutil.rmtree(self.path, ignore_errors=True)
        for path in Path(self.root).glob(f".{self.name}.*.tmp"):
            shutil.rmtree(path, ignore_errors=True)


def _torn(file: BinaryIO) -> bool:
    """Return whether the last line was cut off, as by a full disk; a line break must then come before the next one."""
    if not file.tell():
        return False
    file.seek(-1, os.SEEK_END)
    return file.read() != b"\n"


def tidy(root: Path) -> None:
    """Remove work and locks of runs that have ended, as a process can be killed after it has written its result."""
    folder = Path(root) / WORK
    if not folder.is_dir():
        return
    names = {path.name.removeprefix(".").removesuffix(".lock") for path in folder.iterdir()}
    for name in names:
        if is_finished(root, name) or is_failed(root, name):
            with claim(folder, name) as ours:
                if ours:
                    Work(root, name).clear()


def in_hand(root: Path) -> tuple[list[str], list[str]]:
    """Return the runs that have work in a folder: those that a process computes now, and those that were left.

    Changes nothing. A file system without locks says of none that it is computed.
    """
    names = {path.name for path in (Path(root) / WORK).glob("[!.]*") if path.is_dir()}
    locks = {path.name[1 : -len(".lock")]: path for path in (Path(root) / WORK).glob(".*.lock")}
    held = {name for name, path in locks.items() if _held(path)}
    return sorted(held), sorted((names | locks.keys()) - held)


def _held(path: Path) -> bool:
    """Return whether a process holds this lock."""
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        return not _locked(file, path)
    return False


def state_key(name: str) -> Mapping[str, str]:
    """Return the run, versions and source commit, which must agree before a training's state is resumed."""
    now = versions()
    packages = {package: now["packages"].get(package, "") for package in ("torch", "transformers", "tensoradapt")}
    return {"run": name, "commit": str(now["commit"]), **packages}


@contextlib.contextmanager
def claim(root: Path, name: str) -> Iterator[bool]:
    """Hold the lock of a run in a ``with`` block; the value is False while another process holds it."""
    path = root / f".{name}.lock"
    with explained("written", path, f"expected a file for the lock of a run: remove what is in the way, or {FREE}"):
        file = path.open("a")
    with file:
        if not _locked(file, path):
            yield False
            return
        yield True
        path.unlink(missing_ok=True)


def _locked(file: IO[Any], path: Path) -> bool:
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # the process that had the lock before unlinks the file; a lock on an unlinked file would exclude nobody
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except OSError as error:
        return error.errno in WITHOUT


@dataclass(frozen=True)
class Ticket:
    """The last ticket of a run: its number, its job's key, and whether the submission is over."""

    number: int
    key: str
    over: bool


def take_ticket(work: Path, number: int, key: str) -> bool:
    """Create a ticket; False if another process was first, or if the run's work folder is gone.

    Raises TensorAdaptError where nothing can be written.
    """
    path = _ticket_path(work, number)
    with explained("written", path, FREE):
        try:
            with path.open("x") as file:
                file.write(f"{key}\n")
        except (FileExistsError, FileNotFoundError):
            return False
    return True


def close_ticket(work: Path, number: int, text: str) -> None:
    """Note that a submission is over, and its result; a run that has already ended has no ticket any more."""
    with contextlib.suppress(FileNotFoundError), _ticket_path(work, number).open("r+") as file:
        file.seek(0, 2)
        file.write(f"{text}\n")


def latest_ticket(work: Path) -> Ticket | None:
    """Return the last ticket of a run; its key is empty between its creation and its first line."""
    numbers = [int(path.suffix[1:]) for path in work.glob("ticket.*")]
    try:
        lines = _ticket_path(work, max(numbers)).read_text().splitlines() if numbers else None
    except FileNotFoundError:  # the run has ended since
        lines = None
    return None if lines is None else Ticket(max(numbers), lines[0] if lines else "", len(lines) > 1)


def _ticket_path(work: Path, number: int) -> Path:
    return work / f"ticket.{number}"
