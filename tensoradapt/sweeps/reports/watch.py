"""A folder of runs as it is now, read only: no lock is taken, and what changes meanwhile is read again later.

What there is to do is planned from the specifications in ``sweeps/``, as a sweep itself does it.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tensoradapt.errors import TensorAdaptError
from tensoradapt.files import LARGEST
from tensoradapt.runs.config import RunConfig
from tensoradapt.runs.store import is_failed, is_finished, read_run
from tensoradapt.runs.work_folder import ATTEMPTS, WORK
from tensoradapt.sweeps import record
from tensoradapt.sweeps.cells import Due
from tensoradapt.sweeps.messages import ended_text

LAST = 5  # finished runs that are shown
Key = tuple[str, str]  # task and method


@dataclass(frozen=True)
class Row:
    """The runs of a method on a task; ``waiting`` are those that can still come."""

    task: str
    method: str
    finished: int
    failed: int
    running: int
    waiting: int


@dataclass(frozen=True)
class InHand:
    """A run that was begun and has not ended; ``step``: of its last state on disk; ``alive``: on this machine."""

    config: RunConfig
    step: int | None
    seconds: float
    alive: bool


@dataclass(frozen=True)
class Frame:
    """What there is to see; ``last``: a line for each run that finished last; ``notes``: what cannot be run or read."""

    rows: tuple[Row, ...]
    in_hand: tuple[InHand, ...]
    last: tuple[str, ...]
    notes: tuple[str, ...]
    seconds_left: float | None

    def count(self, what: str) -> int:
        """The sum of a column."""
        return sum(getattr(row, what) for row in self.rows)

    @property
    def total(self) -> int:
        """How many runs there will be."""
        return sum(map(self.count, ("finished", "failed", "running", "waiting")))

    @property
    def over(self) -> bool:
        """Whether nothing is left that could run."""
        return not self.count("running") + self.count("waiting")


class Watch:
    """A folder of runs. It remembers what it has read of finished runs, which do not change."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        self._seconds: dict[str, float] = {}

    def frame(self) -> Frame:
        """The folder now. TensorAdaptError where it holds no sweep."""
        plans, notes = self._plans()
        configs = {config.id: config for plan in plans for config in plan.configs}
        finished = {name for name in configs if is_finished(self.root, name)}
        failed = {name for name in configs if name not in finished and is_failed(self.root, name)}
        in_hand = [one for one in self._in_hand() if one.config.id in configs.keys() - finished - failed]
        running = {one.config.id for one in in_hand if one.alive}
        rows = tuple(_rows(plans, configs, finished, failed, running))
        left = self._left(rows, [one for one in in_hand if one.alive], finished)
        return Frame(rows, tuple(in_hand), tuple(self._last(configs, finished)), tuple(notes), left)

    def _plans(self) -> tuple[list[Due], list[str]]:
        plans, notes = [], []
        paths = record.paths(self.root)
        if not paths:
            raise TensorAdaptError(
                f"{self.root} holds no sweep; expected the folder that tensoradapt sweep --out names, once it has begun"
            )
        for path in paths:
            try:
                plans.append(record.read(path).due(self.root))
                notes += [f"not run: {reason}" for reason in plans[-1].blocked]
            except TensorAdaptError as error:  # damaged, or what it is about changed while it was read
                notes.append(f"{path.name} cannot be shown now: {error}")
        return plans, notes

    def _in_hand(self) -> Iterator[InHand]:
        for path in sorted(self.root.glob(f"{WORK}/[!.]*")):
            # it may have ended and be gone, or a line or file may be half written
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError, IndexError):
                config = RunConfig.from_dict(json.loads((path / "config.json").read_text())["config"])
                attempt = json.loads((path / ATTEMPTS).read_text().splitlines()[-1])
                seconds = max(0.0, time.time() - attempt["time"])
                yield InHand(config, _saved_step(path / "state.safetensors"), seconds, _alive(attempt["pid"]))

    def _left(self, rows: tuple[Row, ...], running: list[InHand], finished: set[str]) -> float | None:
        """Seconds until nothing is left, as the finished runs took; None where none has finished or none is running."""
        for name in finished - self._seconds.keys():
            with contextlib.suppress(TensorAdaptError):
                self._seconds[name] = read_run(self.root / name).measurements.get("seconds") or 0.0
        known = [self._seconds[name] for name in finished & self._seconds.keys()]
        if not known or not running:
            return None
        parts = [1 - (one.step or 0) / one.config.steps for one in running]
        return statistics.fmean(known) * (sum(row.waiting for row in rows) + sum(parts)) / len(running)

    def _last(self, configs: dict[str, RunConfig], finished: set[str]) -> Iterator[str]:
        times = {}
        for name in finished:
            with contextlib.suppress(OSError):
                times[name] = (self.root / name / "result.json").stat().st_mtime
        for name in sorted(times, key=lambda name: (-times[name], name))[:LAST]:
            with contextlib.suppress(TensorAdaptError):
                yield ended_text(configs[name], read_run(self.root / name).result, None)


def _rows(
    plans: list[Due], configs: dict[str, RunConfig], finished: set[str], failed: set[str], running: set[str]
) -> Iterator[Row]:
    named = Counter(_key(config) for config in configs.values())
    unnamed: Counter[Key] = Counter()
    for plan in plans:
        unnamed.update(plan.totals)
        unnamed.subtract(_key(config) for config in plan.configs)
    for key in unnamed:
        own = {name for name, config in configs.items() if _key(config) == key}
        ended = own & (finished | failed)
        # where all that can be named has ended, what has no name never will: it is blocked
        left = named[key] + max(0, unnamed[key]) - len(ended | own & running) if own - ended else 0
        yield Row(*key, len(own & finished), len(own & failed), len(own & running), left)


def _key(config: RunConfig) -> Key:
    return config.task, config.label


def _saved_step(path: Path) -> int | None:
    """The steps that a training's state has behind it: the length of its losses, which its header says."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, IndexError), path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        return int(json.loads(file.read(min(length, LARGEST)))["losses"]["shape"][0])
    return None


def _alive(pid: int) -> bool:
    if os.name != "posix":  # elsewhere the call would end the process
        return True
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except OSError:
        return False
    return True
