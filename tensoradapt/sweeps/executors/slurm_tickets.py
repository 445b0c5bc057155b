"""Tickets: which SLURM job computes a run, for sweeps that share a disk without locks.

A run's work folder holds ``ticket.0``, ``ticket.1`` and so on; the last one counts. A ticket is created before its job
is submitted, by a call that succeeds for one process alone (``O_EXCL``), and stays until the run has ended: a sweep
that finds the job gone creates the next. A second line says that the submission is over, so that a job that is not in
the queue has ended.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

from tensoradapt.errors import TensorAdaptError
from tensoradapt.files import reason


@dataclass(frozen=True)
class Ticket:
    """The last ticket of a run: its number, its job's key, and whether the submission is over."""

    number: int
    key: str
    over: bool


def take(work: Path, number: int, key: str) -> bool:
    """Create a ticket; False if another process was first, or if the run's work folder is gone.

    Raises TensorAdaptError where nothing can be written.
    """
    try:
        with _place(work, number).open("x") as file:
            file.write(f"{key}\n")
    except (FileExistsError, FileNotFoundError):
        return False
    except OSError as error:
        raise TensorAdaptError(
            f"{_place(work, number)} cannot be written ({reason(error)}); free space, then run the sweep again"
        ) from error
    return True


def close(work: Path, number: int, text: str) -> None:
    """Note that a submission is over, and its result; a run that has already ended has no ticket any more."""
    with contextlib.suppress(FileNotFoundError), _place(work, number).open("r+") as file:
        file.seek(0, 2)
        file.write(f"{text}\n")


def latest(work: Path) -> Ticket | None:
    """The ticket that counts; its key is empty for the moment between its creation and its first line."""
    numbers = [int(path.suffix[1:]) for path in work.glob("ticket.*")]
    try:
        lines = _place(work, max(numbers)).read_text().splitlines() if numbers else None
    except FileNotFoundError:  # the run has ended since
        lines = None
    return None if lines is None else Ticket(max(numbers), lines[0] if lines else "", len(lines) > 1)


def _place(work: Path, number: int) -> Path:
    return work / f"ticket.{number}"
