"""Trackers: where a run's losses and scores may be sent while it is computed. None can fail a run or hold it up.

Each works on a thread of its own, which the run never waits for until its end, and then for ``PATIENCE`` seconds at
most. What a tracker raises is a line in the run's measurements, and the end of that tracker for that run. What is
stored of a run does not depend on it.
"""

from __future__ import annotations

import importlib.util
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Protocol

from tensoradapt.errors import TensorAdaptError, did_you_mean, missing_extra

PATIENCE = 60.0  # seconds; a tracker's package can take twenty to load on a slow machine
WAITING = 10_000  # values that wait for a tracker; more are dropped
FOLDER = "tracking"


class Tracker(Protocol):
    """What a sweep needs of a place for losses and scores. Every call is made on one thread, in this order."""

    def start(self, name: str, root: Path, config: Mapping[str, Any], step: int) -> None:
        """Begins the run ``name`` of the folder of runs ``root``, or goes on with it: values come from ``step`` on."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Takes values of a step."""

    def finish(self) -> None:
        """Returns once everything is where it belongs."""


class TensorBoard:
    """Event files in ``tracking/tensorboard/<name>`` of the folder of runs."""

    def start(self, name: str, root: Path, config: Mapping[str, Any], step: int) -> None:
        """Hides what an attempt that was killed has written of this step and later."""
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(root / FOLDER / "tensorboard" / name), purge_step=step)
        self._writer.add_text("config", "\n".join(f"    {key}: {value}" for key, value in config.items()))

    def log(self, values: Mapping[str, float], step: int) -> None:
        """A scalar for each value."""
        for key, value in values.items():
            self._writer.add_scalar(key, value, step)

    def finish(self) -> None:
        """Writes what is left."""
        self._writer.close()


class Wandb:
    """Weights & Biases, in the mode that its own settings say (WANDB_MODE); its files are in ``tracking``.

    The project is called as the folder of runs.
    """

    def start(self, name: str, root: Path, config: Mapping[str, Any], step: int) -> None:
        """A run that was killed goes on under its name; steps that it has had are passed over."""
        import wandb

        (root / FOLDER).mkdir(parents=True, exist_ok=True)
        self._run: Any = wandb.init(
            project=root.name,
            name=name,
            id=name,
            dir=str(root / FOLDER),
            config=dict(config),
            resume="allow",
            settings=wandb.Settings(console="off"),
        )

    def log(self, values: Mapping[str, float], step: int) -> None:
        """The values of a step together."""
        self._run.log(dict(values), step=step)

    def finish(self) -> None:
        """Waits for the upload."""
        self._run.finish()


class Trackio(Wandb):
    """Trackio, in its own folder (TRACKIO_DIR). The project is called as the folder of runs."""

    def start(self, name: str, root: Path, config: Mapping[str, Any], step: int) -> None:
        """A run that was killed goes on under its name."""
        import trackio

        self._run = trackio.init(project=root.name, name=name, config=dict(config), resume="allow")


TRACKERS: dict[str, Callable[[], Tracker]] = {"tensorboard": TensorBoard, "trackio": Trackio, "wandb": Wandb}
_hung: set[str] = set()  # trackers that did not come back in this process, and are not asked again


def check(names: Sequence[str] | str) -> tuple[str, ...]:
    """The trackers of these names, each once; TensorAdaptError for one that is unknown or not installed."""
    found = tuple(dict.fromkeys([names] if isinstance(names, str) else names))
    for name in found:
        if name not in TRACKERS:
            raise TensorAdaptError(f"track names {name!r}{did_you_mean(name, TRACKERS)}")
        if importlib.util.find_spec(name) is None:
            raise missing_extra(name, name, f"track {name}")
    return found


class Tracking:
    """The trackers of one run. They are started by its first step, so that they know which step it goes on from."""

    def __init__(self, trackers: Sequence[str], name: str, root: Path, config: Mapping[str, Any]) -> None:
        self._sinks = [_Sink(tracker) for tracker in trackers]
        self._what = (name, Path(root).resolve(), config)
        self._started = False

    def on_step(self, step: int, loss: float) -> None:
        """Passes on the loss of a step."""
        self._log({"loss": loss}, step)

    def finish(self, scores: Mapping[str, float], step: int) -> list[str]:
        """Passes on the last values, if any, and closes every tracker; returns what went wrong, a line for each."""
        if scores:
            self._log(scores, step)
        end = time.monotonic() + PATIENCE
        return [line for sink in self._sinks if (line := sink.close(end))]

    def leave(self) -> None:
        """Lets every tracker finish by itself; nothing is waited for."""
        for sink in self._sinks:
            sink.end()

    def _log(self, values: Mapping[str, float], step: int) -> None:
        for sink in self._sinks:
            if not self._started:
                sink.start(*self._what, step)
            sink.put(values, step)
        self._started = True


class _Sink:
    """A tracker on its thread. A daemon: one that hangs does not keep the process from its end."""

    def __init__(self, name: str) -> None:
        self.name, self._error, self._dropped = name, "", 0
        self._values: SimpleQueue[tuple[Mapping[str, float], int] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def start(self, *what: Any) -> None:
        if self.name in _hung:
            self._error = "it did not come back in an earlier run of this process, and is not asked again"
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
        """Waits until ``end`` at most; what went wrong, or nothing."""
        self.end()
        if self._thread:
            self._thread.join(max(0.0, end - time.monotonic()))
            if self._thread.is_alive():
                _hung.add(self.name)
                self._error = self._error or f"it did not come back within {PATIENCE:g} s"
        if self._dropped and not self._error:
            self._error = f"it was too slow, and {self._dropped} steps were dropped"
        return f"{self.name}: {self._error}" if self._error else ""

    def _work(self, *what: Any) -> None:
        tracker = TRACKERS[self.name]()
        if self._did(tracker.start, *what):
            while (one := self._values.get()) is not None and self._did(tracker.log, *one):
                pass
            self._did(tracker.finish)

    def _did(self, call: Callable[..., None], *arguments: Any) -> bool:
        """Whether a call came back; the first error is kept."""
        try:
            call(*arguments)
        except BaseException as error:  # a library may ask the process to exit: this thread is all that it ends
            self._error = self._error or " ".join(f"{type(error).__name__}: {error}".split())[:300]
            return False
        return True
