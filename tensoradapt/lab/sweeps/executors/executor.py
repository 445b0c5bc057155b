"""The contract of an executor, which computes the runs of a sweep: three calls and the run store.

An executor is given ids of runs whose work folders are prepared, and says which of them it has let go. The store says
how they ended: finished, failed, or neither, if the process was killed or another one has the run. So an executor may
lose, kill and forget processes; ``tests/lab/sweeps/test_executors.py`` kills those of each. To add an executor,
write its class in a file of this folder and name it in ``catalogue.py``.

The executors of this machine follow: in this process, or in one process for each slot (a GPU, or a share of the cores).
``python -m tensoradapt.lab.sweeps.executors.executor ROOT DEVICE PARENT`` is such a process: it reads ids of runs from
its standard input, a line each, computes them, and answers on its standard output how each ended. With the word SHARED
at the end it is not alone on its GPU, and lets go of a run that has no memory there.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import selectors
import signal
import subprocess
import sys
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from tensoradapt.errors import TensorAdaptError
from tensoradapt.lab.runs.perform import CROWDED, perform
from tensoradapt.lab.runs.store import is_finished
from tensoradapt.lab.runs.work_folder import Work
from tensoradapt.lab.sweeps.executors.options import Option

ELSEWHERE, ENDED = "elsewhere", "ended"
SHARED = "shared"
WAIT = 0.5  # seconds that a poll waits for an answer
BARREN = 3  # processes or jobs of one run that end before they begin it, until the sweep stops: something is missing
PR_SET_PDEATHSIG = 1  # linux/prctl.h


@dataclass(frozen=True)
class Slots:
    """``workers`` processes of ``threads`` threads on ``device``, each seeing one of ``gpus``.

    ``here``: what this process calls the GPUs, such as "cuda:1".
    On a cluster ``options`` are what each run asks for, and ``workers`` may be None: as many as there is room for.
    """

    workers: int | None
    threads: int
    device: str
    gpus: Sequence[str] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    here: Sequence[str] = ()


class Executor(ABC):
    """Interface to the place where a sweep's runs are computed."""

    # what each run may ask a cluster for, cpus and gpus among them; empty for this machine
    OPTIONS: ClassVar[Mapping[str, Option]] = {}

    def __init__(self, root: Path, slots: Slots) -> None:
        self.root, self.slots = Path(root).resolve(), slots
        self.queue: deque[str] = deque()
        self._barren: Counter[str] = Counter()  # processes of a run that left no trace of it, until a run has begun
        self._begun = False

    def submit_alone(self, name: str) -> None:
        """Take a run that was let go as "crowded", to compute it with a device to itself, before all others."""
        self.queue.appendleft(name)

    def submit(self, names: Iterable[str]) -> None:
        """Take runs, which ``poll`` begins in this order."""
        self.queue.extend(names)

    @abstractmethod
    def poll(self) -> Mapping[str, str]:
        """Return the runs let go since the last call: "elsewhere" (another process has it), "crowded" or "ended".

        A run is crowded that had no memory beside others on its device, and may have it alone.
        Returns within about a second, unless the executor computes in this process. Raises TensorAdaptError where no
        run can be computed or written.
        """

    @abstractmethod
    def cancel(self) -> None:
        """Let go of every run; no process is left when it returns."""

    def check_begun(self, gone: Sequence[str]) -> None:
        """Raise TensorAdaptError when processes of runs end before they compute anything, as ``why_none`` says."""
        for name in gone:
            self._begun = self._begun or is_finished(self.root, name) or bool(Work(self.root, name).attempts())
        if not self._begun:
            self._barren.update(gone)
        if not self._begun and max(self._barren.values(), default=0) >= BARREN:
            raise TensorAdaptError(self.why_none())

    def why_none(self) -> str:
        """Say what is expected where processes end before they begin a run."""
        return (
            f"the processes of this sweep end before they begin a run; expected that {sys.executable} can import "
            "tensoradapt here. What they wrote to the standard error says why they could not begin"
        )


def let_go(answer: str) -> str:
    """Return how a run was let go, from what ``perform`` says of it."""
    return answer if answer in (ELSEWHERE, CROWDED) else ENDED


class Inline(Executor):
    """An executor that computes in this process, a run for each call of ``poll``."""

    def poll(self) -> Mapping[str, str]:
        """Compute the next run of the queue."""
        if not self.queue:
            return {}
        name = self.queue.popleft()
        return {name: let_go(perform(self.root, name, self.slots.device))}

    def cancel(self) -> None:
        """Empty the queue of runs."""
        self.queue.clear()


@dataclass
class Slot:
    """A place for one process: the GPU it sees (None for the CPU), and the run it computes, if any.

    ``alone``: whether the other places of its GPU are left empty for it.
    """

    gpu: str | None
    process: subprocess.Popen[str] | None = None
    run: str = ""
    alone: bool = False


class Local(Executor):
    """An executor with a process for each of ``slots.workers``, kept for run after run and replaced when it dies."""

    def __init__(self, root: Path, slots: Slots) -> None:
        super().__init__(root, slots)
        gpus: Sequence[str | None] = slots.gpus or (None,)
        self._slots = [Slot(gpus[i % len(gpus)]) for i in range(slots.workers or 1)]
        self._ready = selectors.DefaultSelector()
        self._alone: deque[str] = deque()  # runs that wait until the first GPU has no other

    def submit_alone(self, name: str) -> None:
        """Take a run that is to have the first GPU to itself, once the runs there have ended."""
        self._alone.append(name)

    def poll(self) -> Mapping[str, str]:
        """Read what the processes have answered; a process that died has let go of its run."""
        answers: dict[str, str] = {}
        self._hand_out()
        if any(slot.run for slot in self._slots):
            for key, _ in self._ready.select(WAIT):
                answers.update(self._answer(key.data))
        self._hand_out()
        return answers

    def cancel(self) -> None:
        """Kill every process and wait until it is gone."""
        self.queue.clear()
        self._alone.clear()
        for slot in self._slots:
            self._bury(slot)

    def _hand_out(self) -> None:
        first = self._beside(self._slots[0])
        if self._alone and not any(slot.run for slot in first):
            for slot in first:  # an idle process keeps memory too
                self._bury(slot)
            first[0].alone = True
            self._give(first[0], self._alone.popleft())
        kept = first if self._alone or first[0].alone else []
        for slot in self._slots:
            if not slot.run and self.queue and slot not in kept:
                self._give(slot, self.queue.popleft())

    def _beside(self, one: Slot) -> list[Slot]:
        """Return the places of a GPU."""
        return [slot for slot in self._slots if slot.gpu == one.gpu]

    def _give(self, slot: Slot, run: str) -> None:
        if slot.process is None:
            self._start(slot)
        slot.run = run
        assert slot.process is not None and slot.process.stdin is not None
        with contextlib.suppress(OSError):  # where it has died, the next poll reads the end of its output
            slot.process.stdin.write(run + "\n")
            slot.process.stdin.flush()

    def _start(self, slot: Slot) -> None:
        # set before torch is loaded
        env = {**os.environ, "OMP_NUM_THREADS": str(self.slots.threads), "CUDA_VISIBLE_DEVICES": slot.gpu or ""}
        shared = slot.gpu is not None and not slot.alone and len(self._beside(slot)) > 1
        command = [sys.executable, "-m", __name__, str(self.root), self.slots.device, str(os.getpid())]
        command += [SHARED] * shared
        slot.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
        assert slot.process.stdout is not None
        self._ready.register(slot.process.stdout, selectors.EVENT_READ, slot)

    def _answer(self, slot: Slot) -> dict[str, str]:
        assert slot.process is not None and slot.process.stdout is not None
        line, run = slot.process.stdout.readline(), slot.run
        if not line.endswith("\n"):
            self._bury(slot)
        if slot.process is None:
            if not run:  # it died while it waited
                return {}
            self.check_begun([run])
            return {run: ENDED}
        self._begun = True
        slot.run = ""
        if slot.alone:  # the next one here is not
            self._bury(slot)
        answer = line.strip()
        if answer.startswith("stop "):
            raise TensorAdaptError(answer.removeprefix("stop "))
        return {run: let_go(answer)}

    def _bury(self, slot: Slot) -> None:
        process, slot.process, slot.run, slot.alone = slot.process, None, "", False
        if process is None:
            return
        assert process.stdin is not None and process.stdout is not None
        self._ready.unregister(process.stdout)
        process.kill()
        process.wait()
        process.stdout.close()
        with contextlib.suppress(OSError):  # nobody reads what was left to write
            process.stdin.close()


def work(root: Path, device: str, parent: int, shared: bool = False) -> None:
    """Compute runs until the input ends; ``shared``: whether other processes compute on this device."""
    die_with(parent)
    # an interrupt from the terminal reaches every process of the group; the parent decides
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    for line in sys.stdin:
        try:
            answer = perform(root, line.strip(), device, shared)
        except TensorAdaptError as error:
            answer = "stop " + " ".join(str(error).split())
        print(answer, file=answers, flush=True)


def die_with(parent: int) -> None:
    """Let the kernel kill this process when its parent dies, on Linux; elsewhere it ends with its input."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the call
        sys.exit(1)


if __name__ == "__main__":
    work(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), SHARED in sys.argv[4:])
