"""``tensoradapt watch``: the state of a folder of runs, as plain text for a pipe and live in a terminal.

The folder is only read and no lock is taken. What is left to do is planned from the specifications in ``sweeps/``, as
a sweep plans it.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from tensoradapt.analysis.names import display
from tensoradapt.checks import number
from tensoradapt.errors import TensorAdaptError, missing_extra
from tensoradapt.files import LARGEST
from tensoradapt.runs.config import RunConfig
from tensoradapt.runs.store import is_failed, is_finished, read_run
from tensoradapt.runs.work_folder import ATTEMPTS, WORK
from tensoradapt.sweeps import record
from tensoradapt.sweeps.due import Due
from tensoradapt.sweeps.messages import ended_text, run_text
from tensoradapt.text import align, duration_text, plain

LAST = 5  # finished runs that are shown
COLUMNS = ("task", "method", "finished", "failed", "running", "waiting")
Key = tuple[str, str]  # task and method


@dataclass(frozen=True)
class MethodCounts:
    """The numbers of runs of a method on a task; ``waiting`` are those that can still be run."""

    task: str
    method: str
    finished: int
    failed: int
    running: int
    waiting: int

    def cells(self) -> tuple[str, ...]:
        """Return the texts that are shown of a row, in the order of ``COLUMNS``."""
        counts = (self.finished, self.failed, self.running, self.waiting)
        return (self.task, display(self.method), *map(str, counts))


@dataclass(frozen=True)
class InHand:
    """A run that has begun and not ended. ``step``: the last saved one; ``alive``: its process is on this machine."""

    config: RunConfig
    step: int | None
    seconds: float
    alive: bool


@dataclass(frozen=True)
class Frame:
    """The state of a folder of runs.

    ``last``: a line for each of the latest runs; ``notes``: what cannot be run or read; ``more``: how many runs grids
    can be extended by at most, which no row counts yet.
    """

    rows: tuple[MethodCounts, ...]
    in_hand: tuple[InHand, ...]
    last: tuple[str, ...]
    notes: tuple[str, ...]
    seconds_left: float | None
    more: int = 0

    def count(self, what: str) -> int:
        """Return the sum of a column."""
        return sum(getattr(row, what) for row in self.rows)

    @property
    def total(self) -> int:
        """The number of runs that there will be, unless grids are extended."""
        return sum(map(self.count, ("finished", "failed", "running", "waiting")))

    @property
    def over(self) -> bool:
        """Whether nothing is left that could run."""
        return not self.count("running") + self.count("waiting")


class Watch:
    """A folder of runs; the times of finished runs are read once, as they do not change."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        self._seconds: dict[str, float] = {}

    def frame(self) -> Frame:
        """Return the state of the folder now; raises TensorAdaptError where it holds no sweep."""

        @cache  # once in a frame: a run that ends meanwhile makes others due, which the plans do not know of
        def end(name: str) -> str:
            return "finished" if is_finished(self.root, name) else "failed" * is_failed(self.root, name)

        plans, notes = self._plans(lambda name: bool(end(name)))
        configs = {config.id: config for plan in plans for config in plan.configs}
        finished, failed = ({name for name in configs if end(name) == how} for how in ("finished", "failed"))
        in_hand = [run for run in self._in_hand() if run.config.id in configs.keys() - finished - failed]
        running = {run.config.id for run in in_hand if run.alive}
        rows = tuple(_rows(plans, configs, finished, failed, running))
        left = self._left(rows, [run for run in in_hand if run.alive], finished)
        last, more = tuple(self._last(configs, finished)), sum(plan.more for plan in plans)
        return Frame(rows, tuple(in_hand), last, tuple(notes), left, more)

    def _plans(self, ended: Callable[[str], bool]) -> tuple[list[Due], list[str]]:
        plans, notes = [], []
        paths = record.paths(self.root)
        if not paths:
            raise TensorAdaptError(
                f"{self.root} holds no sweep; expected the folder that tensoradapt sweep --out names, once it has begun"
            )
        for path in paths:
            try:
                plans.append(record.read(path).due(self.root, ended))
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

    def _left(self, rows: tuple[MethodCounts, ...], running: list[InHand], finished: set[str]) -> float | None:
        """Return the seconds left, by the mean time of finished runs; None where none has finished or is running."""
        for name in finished - self._seconds.keys():
            with contextlib.suppress(TensorAdaptError):
                self._seconds[name] = read_run(self.root / name).measurements.get("seconds") or 0.0
        known = [self._seconds[name] for name in finished & self._seconds.keys()]
        if not known or not running:
            return None
        parts = [1 - (run.step or 0) / run.config.training.steps for run in running]
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
) -> Iterator[MethodCounts]:
    named = Counter(_key(config) for config in configs.values())
    unnamed: Counter[Key] = Counter()
    for plan in plans:
        unnamed.update(plan.totals)
        unnamed.subtract(_key(config) for config in plan.configs)
    for key in unnamed:
        names = {name for name, config in configs.items() if _key(config) == key}
        ended = names & (finished | failed)
        # where all that can be named has ended, what has no name never will: it is blocked
        left = named[key] + max(0, unnamed[key]) - len(ended | names & running) if names - ended else 0
        yield MethodCounts(*key, len(names & finished), len(names & failed), len(names & running), left)


def _key(config: RunConfig) -> Key:
    return config.task, str(config.method)


def _saved_step(path: Path) -> int | None:
    """Return the number of steps in a saved training state, read from its header as the length of the losses."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, IndexError), path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        return int(json.loads(file.read(min(length, LARGEST)))["losses"]["shape"][0])
    return None


def _alive(pid: int) -> bool:
    if os.name != "posix":  # elsewhere the call would end the process
        return True
    try:
        os.kill(pid, 0)
    except OSError as error:
        return isinstance(error, PermissionError)
    return True


def show(root: Path, once: bool, every: float) -> None:
    """Show a folder of runs every so many seconds until nothing is left to run; ``once``: show one frame."""
    frames = _frames(Watch(root), number(every, "--every"))
    if once:
        print(text(root, next(frames)))
    elif sys.stdout.isatty():
        _live(root, frames)
    else:
        for frame in frames:
            print(text(root, frame), end="\n\n", flush=True)


def _frames(watch: Watch, every: float) -> Iterator[Frame]:
    yield (frame := watch.frame())
    while not frame.over:
        time.sleep(every)
        try:
            frame = watch.frame()
        except TensorAdaptError as error:  # the folder was moved, or is being put back: what was seen last stays
            frame = replace(frame, notes=(str(error),))
        yield frame


def text(root: Path, frame: Frame) -> str:
    """Return a frame as text."""
    table = align([COLUMNS, *(row.cells() for row in frame.rows)])
    return "\n".join([plain(head(root, frame)), *table, *_lines(frame)])


def head(root: Path, frame: Frame) -> str:
    """Return a line with the counts and the time left."""
    counts = [f"{n} {what}" for what in ("failed", "running", "waiting") if (n := frame.count(what))]
    counts += [f"at most {frame.more} more to tune"] if frame.more else []
    left = f"; about {duration_text(frame.seconds_left)} left" if frame.seconds_left is not None else ""
    return f"{root}: " + ", ".join([f"{frame.count('finished')} of {frame.total} runs finished", *counts]) + left


def _lines(frame: Frame) -> list[str]:
    parts = {"running": [*map(_in_hand_text, frame.in_hand)], "finished last": frame.last}
    named = [line for name, lines in parts.items() if lines for line in (f"{name}:", *(f"  {item}" for item in lines))]
    return list(map(plain, [*named, *frame.notes]))


def _in_hand_text(one: InHand) -> str:
    config, steps = one.config, one.config.training.steps
    step = f"step {one.step} of {steps} saved" if one.step else f"{steps} steps, none saved yet"
    since = (
        f"for {duration_text(one.seconds)}" if one.alive else "no process on this machine; the sweep goes on with it"
    )
    return f"{run_text(config)}: {step}, {since}"


def _live(root: Path, frames: Iterator[Frame]) -> None:
    try:
        from rich.live import Live
    except ImportError:
        raise missing_extra("rich", "demo", "tensoradapt watch in a terminal, without --once,") from None
    with Live(drawn(root, next(frames)), auto_refresh=False) as live:
        for frame in frames:
            live.update(drawn(root, frame), refresh=True)


def drawn(root: Path, frame: Frame) -> Any:
    """Return a frame for rich, with a bar for each method on each task."""
    from rich import box
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD)
    for name in (*COLUMNS[:2], "", *COLUMNS[2:]):
        table.add_column(name, justify="right" if name in COLUMNS[2:] else "left")
    for row in frame.rows:
        ended = row.finished + row.failed
        bar = ProgressBar(ended + row.running + row.waiting, ended, width=20)
        task, method, *counts = map(plain, row.cells())
        table.add_row(Text(task), Text(method), bar, *counts)
    return Group(Text(plain(head(root, frame))), table, *map(Text, _lines(frame)))
