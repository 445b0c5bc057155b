"""Trackers: programs that a run's losses and scores may be sent to while it is computed.

Each tracker works on a thread of its own. The run waits for it only at its end, and then for ``PATIENCE`` seconds at
most. An error that a tracker raises becomes a line in the run's measurements and ends that tracker for that run. What
is stored of a run does not depend on trackers.
"""

from __future__ import annotations

import importlib.util
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Protocol

from tensoradapt import doors
from tensoradapt.checks import one_entering, strings
from tensoradapt.errors import missing_extra

PATIENCE = 60.0  # seconds; a tracker's package can take twenty to load on a slow machine
WAITING = 10_000  # values that may wait for a tracker; further ones are dropped


class Tracker(Protocol):
    """The calls that a sweep makes to a tracker, always on one thread and in this order."""

    def start(self, name: str, root: Path, config: Mapping[str, Any], step: int) -> None:
        """Begin or resume the run ``name`` of the folder of runs ``root``; values follow from ``step`` on."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Take the values of a step."""

    def finish(self) -> None:
        """Return once every value is stored."""


_hung: set[str] = set()  # trackers that hung in this process, and are not used again


def check(names: Sequence[str] | str) -> tuple[str, ...]:
    """Return the names without repeats; raise TensorAdaptError for a tracker that is unknown or not installed."""
    chosen = tuple(dict.fromkeys(strings(names, "track")))
    for name in chosen:
        doors.get("trackers", one_entering("trackers", (), name, "track"))
        if importlib.util.find_spec(name) is None:
            raise missing_extra(name, name, f"track {name}")
    return chosen


class Tracking:
    """The trackers of one run, started by its first step, so that they know which step it resumes from."""

    def __init__(self, trackers: Sequence[str], name: str, root: Path, config: Mapping[str, Any]) -> None:
        self._sinks = [_Sink(tracker) for tracker in trackers]
        self._what = (name, Path(root).resolve(), config)
        self._started = False

    def on_step(self, step: int, loss: float) -> None:
        """Log the loss of a step."""
        self._log({"loss": loss}, step)

    def finish(self, scores: Mapping[str, float], step: int) -> list[str]:
        """Log the scores, if any, and close every tracker; return a line for each that failed."""
        if scores:
            self._log(scores, step)
        end = time.monotonic() + PATIENCE
        return [line for sink in self._sinks if (line := sink.close(end))]

    def leave(self) -> None:
        """Let every tracker finish by itself, without waiting."""
        for sink in self._sinks:
            sink.end()

    def _log(self, values: Mapping[str, float], step: int) -> None:
        for sink in self._sinks:
            if not self._started:
                sink.start(*self._what, step)
            sink.put(values, step)
        self._started = True


class _Sink:
    """A tracker on its thread, a daemon, so that one that hangs does not keep the process from ending."""

    def __init__(self, name: str) -> None:
        self.name, self._error, self._dropped = name, "", 0
        self._values: SimpleQueue[tuple[Mapping[str, float], int] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def start(self, *what: Any) -> None:
        if self.name in _hung:
            self._error = "it hung in an earlier run of this process, and is not used again"
            return
        self._thread = threading.Thread(target=self._work, args=what, daemon=True, name=f"tracker {self.name}")
        self._thread.start()

    def put(self, values: Mapping[str, float], step: int) -> None:
        if self._error:
            return
        if self._values.qsize() < WAITING:
            self._values.put((values, step))
        else:
            self._dropped += 1

    def end(self) -> None:
        self._values.put(None)

    def close(self, end: float) -> str:
        """Wait until ``end`` at most; return what went wrong, or an empty text."""
        self.end()
        if self._thread:
            self._thread.join(max(0.0, end - time.monotonic()))
            if self._thread.is_alive():
                _hung.add(self.name)
                self._error = self._error or f"it did not return within {PATIENCE:g} s"
        if self._dropped and not self._error:
            self._error = f"it was too slow, and {self._dropped} steps were dropped"
        return f"{self.name}: {self._error}" if self._error else ""

    def _work(self, *what: Any) -> None:
        tracker = doors.get("trackers", self.name)()
        if self._did(tracker.start, *what):
            while (item := self._values.get()) is not None and self._did(tracker.log, *item):
                pass
            self._did(tracker.finish)

    def _did(self, call: Callable[..., None], *arguments: Any) -> bool:
        """Call a function of the tracker and return whether it succeeded; the first error is kept."""
        try:
            call(*arguments)
        except BaseException as error:  # a library may raise SystemExit, which must end this thread alone
            self._error = self._error or " ".join(f"{type(error).__name__}: {error}".split())[:300]
            return False
        return True
