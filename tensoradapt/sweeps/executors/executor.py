"""The contract of an executor, which computes the runs of a sweep: three calls and the run store.

An executor is given ids of runs whose work folders are prepared, and says which of them it has let go. The store says
how they ended: finished, failed, or neither, if the process was killed or another one has the run. So an executor may
lose, kill and forget processes; ``tests/sweeps/test_executor_kills.py`` kills those of each. To add an executor, write
its class in a file of this folder and name it in ``catalogue.py``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from tensoradapt.sweeps.executors.options import Option

ELSEWHERE, ENDED = "elsewhere", "ended"
WAIT = 0.5  # seconds that a poll waits for an answer


@dataclass(frozen=True)
class Slots:
    """``workers`` processes of ``threads`` threads on ``device``, each seeing one of ``gpus``.

    On a cluster ``options`` are what each run asks for, and ``workers`` may be None: as many as there is room for.
    """

    workers: int | None
    threads: int
    device: str
    gpus: Sequence[str] = ()
    options: Mapping[str, Any] = field(default_factory=dict)


class Executor(ABC):
    """What a sweep needs of the place where its runs are computed."""

    # of a cluster: what each run may ask for, cpus and gpus among them; empty for this machine
    OPTIONS: ClassVar[Mapping[str, Option]] = {}

    def __init__(self, root: Path, slots: Slots) -> None:
        self.root, self.slots = Path(root).resolve(), slots
        self.queue: deque[str] = deque()

    def submit(self, names: Iterable[str]) -> None:
        """Take runs, which ``poll`` begins in this order."""
        self.queue.extend(names)

    @abstractmethod
    def poll(self) -> Mapping[str, str]:
        """Return the runs let go since the last call: "elsewhere" (another process has it) or "ended".

        Returns within about a second, unless the executor computes in this process. Raises TensorAdaptError where no
        run can be computed or written.
        """

    @abstractmethod
    def cancel(self) -> None:
        """Let go of every run; no process is left when it returns."""
