"""The Ray executor: a task for each run, on a cluster or on this machine. Needs the extra ``ray``."""

from __future__ import annotations

import importlib
import os
import time
from collections import deque
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tensoradapt.errors import TensorAdaptError, missing_extra
from tensoradapt.runs.perform import perform
from tensoradapt.runs.work_folder import WORK, claim
from tensoradapt.sweeps.executors.executor import ELSEWHERE, ENDED

WAIT = 0.5  # seconds that a poll waits for an answer
PATIENCE = 30.0  # seconds until a cancelled task is gone


class RayCluster:
    """Tasks of one run each on ``$RAY_ADDRESS``, or on a cluster of this machine that ends with the sweep.

    At most ``workers`` at once, None for as many as there is room for.
    """

    def __init__(self, root: Path, device: str, workers: int | None, options: Mapping[str, Any]) -> None:
        try:
            self._ray = importlib.import_module("ray")
        except ImportError:
            raise missing_extra("ray", "ray", "executor ray") from None
        self.root, self.device, self.workers, self.options = Path(root).resolve(), device, workers, options
        self._queue: deque[str] = deque()
        self._tasks: dict[Any, str] = {}  # the run of each task that was begun
        self._ours = False  # whether Ray was started here

    def submit(self, names: Iterable[str]) -> None:
        """Adds runs to the queue, and makes tasks of those that may begin."""
        self._queue.extend(names)
        self._hand_out()

    def poll(self) -> Mapping[str, str]:
        """The runs whose tasks have ended; a task whose process died has put its run down."""
        if not self._tasks:
            return {}
        ready, _ = self._ray.wait(list(self._tasks), num_returns=1, timeout=WAIT)
        found = {self._tasks.pop(task): self._said(task) for task in ready}
        self._hand_out()
        return found

    def cancel(self) -> None:
        """Kills every task and waits until its run is free; ends Ray if it was started here."""
        self._queue.clear()
        for task in self._tasks:
            self._ray.cancel(task, force=True)
        end = time.monotonic() + PATIENCE
        for name in self._tasks.values():
            while not _free(self.root, name) and time.monotonic() < end:
                time.sleep(0.05)
        self._tasks.clear()
        if self._ours:
            self._ray.shutdown()

    def _hand_out(self) -> None:
        while self._queue and (self.workers is None or len(self._tasks) < self.workers):
            if not self._ray.is_initialized():
                self._start()
            name = self._queue.popleft()
            self._tasks[self._task().remote(str(self.root), name, self.device)] = name

    def _task(self) -> Any:
        threads = {"OMP_NUM_THREADS": str(self.options["cpus"])}
        return self._ray.remote(_compute).options(
            num_cpus=self.options["cpus"],
            num_gpus=self.options["gpus"],
            max_retries=0,  # the sweep decides what is tried again
            runtime_env={"env_vars": threads},
        )

    def _start(self) -> None:
        address = os.environ.get("RAY_ADDRESS")
        if not address:
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a sweep tells nobody that it runs
        how = {} if address else {"include_dashboard": False}
        self._ray.init(log_to_driver=False, logging_level="ERROR", **how)
        self._ours = True
        there = self._ray.cluster_resources()
        short = [key for key in ("cpus", "gpus") if self.options[key] > there.get(key[:-1].upper(), 0)]
        if short and not address:  # a cluster may grow
            asked = ", ".join(f"{key}={self.options[key]}" for key in short)
            raise TensorAdaptError(
                f"ray {asked} is more than this machine has, so no run would begin; expected at most "
                + ", ".join(f"{key}={there.get(key[:-1].upper(), 0):g}" for key in short)
            )

    def _said(self, task: Any) -> str:
        errors = self._ray.exceptions
        try:
            return ELSEWHERE if self._ray.get(task) == ELSEWHERE else ENDED
        except errors.RayTaskError as error:  # not the run's own, which perform has written down
            raise TensorAdaptError(f"a task of Ray failed: {error.cause or error}") from error
        except errors.RayError:  # its process died, or its node
            return ENDED


def _compute(root: str, name: str, device: str) -> str:
    """In a process of Ray's."""
    return perform(Path(root), name, device)


def _free(root: Path, name: str) -> bool:
    """Whether no process has a run in hand."""
    with claim(root / WORK, name) as ours:
        return ours
