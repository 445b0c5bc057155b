"""The Ray executor: a task for each run, on a cluster or on this machine. Needs the extra ``ray``."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from tensoradapt.errors import TensorAdaptError, of_extra
from tensoradapt.lab.runs.perform import perform
from tensoradapt.lab.runs.work_folder import WORK, claim
from tensoradapt.lab.sweeps.executors.executor import ENDED, WAIT, Executor, Slots, let_go
from tensoradapt.lab.sweeps.executors.options import Option

PATIENCE = 30.0  # seconds until a cancelled task is gone


class RayCluster(Executor):
    """An executor on ``$RAY_ADDRESS``, or on a cluster of this machine that ends with the sweep; a task is a run.

    At most ``slots.workers`` at once, None for as many as there is room for.
    """

    OPTIONS: ClassVar[Mapping[str, Option]] = {
        "cpus": Option("cores", 1, default=1),
        "gpus": Option("GPUs or a share of one", 0, default=0, whole=False),
    }

    def __init__(self, root: Path, slots: Slots) -> None:
        self._ray = of_extra("ray", "ray", "executor ray")
        super().__init__(root, slots)
        self._tasks: dict[Any, str] = {}  # the run of each task that was begun
        self._ours = False  # whether Ray was started here

    def poll(self) -> Mapping[str, str]:
        """Return the runs whose tasks have ended; a task whose process died has let go of its run."""
        self._hand_out()
        if not self._tasks:
            return {}
        ready, _ = self._ray.wait(list(self._tasks), num_returns=1, timeout=WAIT)
        return {self._tasks.pop(task): self._answer(task) for task in ready}

    def cancel(self) -> None:
        """Kill every task and wait until its run is free; end Ray if it was started here."""
        self.queue.clear()
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
        while self.queue and (self.slots.workers is None or len(self._tasks) < self.slots.workers):
            if not self._ray.is_initialized():
                self._start()
            name = self.queue.popleft()
            self._tasks[self._task().remote(self.root, name, self.slots.device)] = name

    def _task(self) -> Any:
        threads = {"OMP_NUM_THREADS": str(self.slots.options["cpus"])}
        return self._ray.remote(perform).options(
            num_cpus=self.slots.options["cpus"],
            num_gpus=self.slots.options["gpus"],
            max_retries=0,  # the sweep decides what is tried again
            runtime_env={"env_vars": threads},
        )

    def _start(self) -> None:
        address = os.environ.get("RAY_ADDRESS")
        if not address:
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a sweep sends nobody a report
        options = {} if address else {"include_dashboard": False}
        try:
            self._ray.init(log_to_driver=False, logging_level="ERROR", **options)
        except ConnectionError as error:
            raise TensorAdaptError(_unanswered(address, error)) from error
        self._ours = True
        resources = self._ray.cluster_resources()
        short = [key for key in ("cpus", "gpus") if self.slots.options[key] > resources.get(key[:-1].upper(), 0)]
        if short and not address:  # a cluster may grow
            asked = ", ".join(f"{key}={self.slots.options[key]}" for key in short)
            raise TensorAdaptError(
                f"ray {asked} is more than this machine has, so no run would begin; expected at most "
                + ", ".join(f"{key}={resources.get(key[:-1].upper(), 0):g}" for key in short)
            )

    def _answer(self, task: Any) -> str:
        errors = self._ray.exceptions
        try:
            return let_go(self._ray.get(task))
        except errors.RayTaskError as error:  # a failure of the run itself is in the store, not raised
            raise TensorAdaptError(f"a task of Ray failed: {error.cause or error}") from error
        except errors.RayError:  # its process died, or its node
            return ENDED


def _unanswered(address: str | None, error: ConnectionError) -> str:
    """Return what is said where Ray cannot be reached."""
    if not address:
        return f"no Ray answers on this machine: {error}; expected one that runs or none: `ray stop` ends what is left"
    return (
        f"no Ray answers at RAY_ADDRESS={address}: {error}; expected the address of a cluster that runs, and where it "
        "asks for a token RAY_AUTH_TOKEN. Without RAY_ADDRESS a sweep starts Ray on this machine"
    )


def _free(root: Path, name: str) -> bool:
    """Return whether no process computes a run."""
    with claim(root / WORK, name) as ours:
        return ours


EXECUTORS = {"ray": RayCluster}
