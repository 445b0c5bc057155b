"""The local executor: a process for each slot of this machine, a GPU each, or a share of the cores."""

from __future__ import annotations

import os
import selectors
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tensoradapt.errors import TensorAdaptError
from tensoradapt.sweeps.executors.executor import ELSEWHERE, ENDED

WAIT = 0.5  # seconds that a poll waits for an answer


@dataclass
class Slot:
    """A place for one process: the GPU it sees, none for the CPU, and the run it has in hand."""

    gpu: str | None
    process: subprocess.Popen[str] | None = None
    name: str | None = None


class Local:
    """One process for each of ``workers``, kept for run after run and replaced when it dies."""

    def __init__(self, root: Path, device: str = "cpu", workers: int = 1, gpus: Sequence[str] = ()) -> None:
        self.root, self.device, self.threads = Path(root).resolve(), device, max(1, cores() // workers)
        self._slots = [Slot(gpus[i % len(gpus)] if gpus else None) for i in range(workers)]
        self._queue: deque[str] = deque()
        self._ready = selectors.DefaultSelector()

    def submit(self, names: Iterable[str]) -> None:
        """Adds runs to the queue, and gives them to the slots that are free."""
        self._queue.extend(names)
        self._hand_out()

    def poll(self) -> Mapping[str, str]:
        """What the processes have said since the last call; a process that died has put its run down."""
        found: dict[str, str] = {}
        if any(slot.name for slot in self._slots):
            for key, _ in self._ready.select(WAIT):
                found.update(self._heard(key.data))
        self._hand_out()
        return found

    def cancel(self) -> None:
        """Kills every process and waits until it is gone."""
        self._queue.clear()
        for slot in self._slots:
            self._bury(slot)

    def _hand_out(self) -> None:
        for slot in self._slots:
            if slot.name is None and self._queue:
                self._give(slot, self._queue.popleft())

    def _give(self, slot: Slot, name: str) -> None:
        if slot.process is None:
            self._start(slot)
        slot.name = name
        assert slot.process is not None and slot.process.stdin is not None
        try:
            slot.process.stdin.write(f"{name}\n")
            slot.process.stdin.flush()
        except OSError:  # it has died: the end of its output says so to the next poll
            pass

    def _start(self, slot: Slot) -> None:
        share = {"OMP_NUM_THREADS": str(self.threads), "CUDA_VISIBLE_DEVICES": slot.gpu or ""}
        command = [
            sys.executable,
            "-m",
            "tensoradapt.sweeps.executors.worker",
            str(self.root),
            self.device,
            str(os.getpid()),
        ]
        slot.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **share}
        )
        assert slot.process.stdout is not None
        self._ready.register(slot.process.stdout, selectors.EVENT_READ, slot)

    def _heard(self, slot: Slot) -> dict[str, str]:
        assert slot.process is not None and slot.process.stdout is not None
        line, name = slot.process.stdout.readline(), slot.name
        if not line.endswith("\n"):
            self._bury(slot)
        if name is None:  # it died without a run in hand
            return {}
        if slot.process is None:
            return {name: ENDED}
        slot.name = None
        said = line.removeprefix(name).strip()
        if said.startswith("stop "):
            raise TensorAdaptError(said.removeprefix("stop "))
        return {name: ELSEWHERE if said == ELSEWHERE else ENDED}

    def _bury(self, slot: Slot) -> None:
        process, slot.process, slot.name = slot.process, None, None
        if process is None:
            return
        assert process.stdin is not None and process.stdout is not None
        self._ready.unregister(process.stdout)
        process.kill()
        process.wait()
        process.stdout.close()
        try:
            process.stdin.close()
        except OSError:  # what was left to write has no reader
            pass


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
