"""Executors: what hands the runs of a sweep to processes. The contract is three calls and the run store.

An executor is given ids of runs whose work folders are prepared, and says which of them it has put down again. How they
ended is in the store: finished, failed, or neither, if their process was killed or another one has them in hand. So an
executor may lose, kill and forget processes; ``tests/sweeps/test_executor_kills.py`` holds each to it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol

from tensoradapt.runs.perform import perform

ELSEWHERE, ENDED = "elsewhere", "ended"


class Executor(Protocol):
    """What a sweep needs of the place where its runs are computed."""

    def submit(self, names: Iterable[str]) -> None:
        """Takes runs in hand, to be computed in this order."""

    def poll(self) -> Mapping[str, str]:
        """The runs put down since the last call, each "elsewhere" (another process has it) or "ended" with or without
        a result. Returns within about a second, unless the executor computes in this process. Raises TensorAdaptError
        where no run can be computed or written.
        """

    def cancel(self) -> None:
        """Puts everything down; no process is left when it returns."""


class Inline:
    """Runs in this process, one for each call of ``poll``."""

    def __init__(self, root: Path, device: str = "cpu") -> None:
        self.root, self.device = Path(root), device
        self._queue: deque[str] = deque()

    def submit(self, names: Iterable[str]) -> None:
        """Adds runs to the queue."""
        self._queue.extend(names)

    def poll(self) -> Mapping[str, str]:
        """Computes the next run of the queue."""
        if not self._queue:
            return {}
        name = self._queue.popleft()
        done = perform(self.root, name, self.device)
        return {name: ELSEWHERE if done == ELSEWHERE else ENDED}

    def cancel(self) -> None:
        """Empties the queue."""
        self._queue.clear()
