"""What a job of SLURM computes: one run, gone on from its state after each requeue."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

from tensoradapt.errors import TensorAdaptError
from tensoradapt.runs.perform import perform
from tensoradapt.runs.work_folder import WORK
from tensoradapt.sweeps.executors import slurm_tickets
from tensoradapt.sweeps.executors.executor import ELSEWHERE

IDLE = 10  # requeues without a new state in between, until the run is taken to need more time than it has


class Task:
    """A run, for submitit: called in the job, and asked for what to requeue when the job must stop."""

    def __init__(self, root: Path, name: str, device: str, threads: int, key: str) -> None:
        self.root, self.name, self.device, self.threads, self.key = root, name, device, threads, key
        self._seen, self._idle = 0, 0

    def __call__(self) -> str:
        """Computes the run, unless its ticket has passed to another job."""
        ticket = slurm_tickets.latest(self.root / WORK / self.name)
        if ticket is None or ticket.key != self.key:
            return ELSEWHERE
        os.environ["OMP_NUM_THREADS"] = str(self.threads)  # before torch is loaded
        return perform(self.root, self.name, self.device)

    def checkpoint(self) -> Any:
        """The same again: what it has computed is in the run's work folder. TensorAdaptError, which becomes the run's
        failure, if there has been nothing new for many requeues.
        """
        state = self.root / WORK / self.name / "state.safetensors"
        now = state.stat().st_mtime_ns if state.exists() else 0
        self._idle = self._idle + 1 if now == self._seen else 0
        self._seen = now
        if self._idle >= IDLE:
            raise TensorAdaptError(
                f"the job was stopped {IDLE} times with no state kept in between; expected one: ask for more time "
                "(--slurm time=MINUTES) or keep the state more often (--checkpoint-every), then use --retry-failed"
            )
        return importlib.import_module("submitit").helpers.DelayedSubmission(self)
