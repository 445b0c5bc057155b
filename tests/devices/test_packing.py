"""Runs of a sweep that share a GPU: how many, what is said of it, and what becomes of one that has no memory there."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.device_standin import standin
from support.sweeping import TINY, attempts, done, results

import tensoradapt as ta
from tensoradapt.lab.runs import execute, perform
from tensoradapt.lab.runs.store import load_failures
from tensoradapt.lab.runs.work_folder import Work
from tensoradapt.lab.sweeps import cost, packing, run_sweep
from tensoradapt.lab.sweeps.cost import Cost, measure
from tensoradapt.lab.sweeps.due import due
from tensoradapt.lab.sweeps.executors import catalogue
from tensoradapt.lab.sweeps.executors.executor import Local, Slots, let_go
from tensoradapt.lab.sweeps.packing import packed
from tensoradapt.lab.sweeps.plan_sweep import plan_sweep
from tensoradapt.lab.sweeps.spec import read_spec

GB = 10**9
ONE = Slots(1, 16, "cuda", ("0",), here=("cuda:0",))
TWO = Slots(2, 8, "cuda", ("0", "1"), here=("cuda:0", "cuda:1"))


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], None]:
    """Sets the free bytes of every GPU and the cores of the machine."""

    def put(free: int, n_cores: int) -> None:
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free, free))
        for module in (packing, catalogue):
            monkeypatch.setattr(module, "cores", lambda: n_cores)
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)

    return put


def took(memory: int | None) -> Cost:
    return Cost(10.0, 1000.0, "by a short probe", memory)


@pytest.mark.parametrize(
    ("slots", "free", "n_cores", "runs", "asked", "memory", "expected"),
    [
        (ONE, 80 * GB, 16, 50, None, GB, (8, 2)),  # cores and the most that is tried
        (ONE, 80 * GB, 8, 50, None, GB, (4, 2)),
        (ONE, 80 * GB, 16, 3, None, GB, (3, 5)),  # runs
        (ONE, 7 * GB, 16, 50, None, GB, (3, 5)),  # memory, with a process's own
        (TWO, 80 * GB, 16, 50, None, GB, (8, 2)),  # of both GPUs
        (ONE, 80 * GB, 16, 50, 2, GB, (2, 8)),  # as was asked for
        (ONE, 80 * GB, 16, 50, None, 60 * GB, (1, 16)),  # a second process has no room
        (ONE, 80 * GB, 16, 50, None, None, (1, 16)),
    ],
)
def test_runs_share_a_gpu_by_cores_and_memory(
    slots: Slots, free: int, n_cores: int, runs: int, asked: int | None, memory: int | None,
    expected: tuple[int, int], card: Callable[[int, int], None],
) -> None:  # fmt: skip
    card(free, n_cores)
    slots = replace(slots, workers=asked or slots.workers)  # as slots_for
    made, _ = packed(slots, runs, asked, took(memory))
    workers, threads = expected
    assert made.workers == workers and made.gpus == slots.gpus
    assert made.threads == threads or made.workers == slots.workers


@pytest.mark.parametrize(
    ("slots", "free", "asked", "memory", "says"),
    [
        (ONE, 80 * GB, None, GB, "cuda:0: 8 runs at once, a process each; a run needs about 2.07 GB of 80.0 GB that "
         "are free, by a short probe, and 16 cores serve 8 at once"),
        (ONE, 7 * GB, 12, GB, "cuda:0: 3 runs at once, a process each; there is no room for 12 processes: a run needs "
         "about 2.07 GB of 7.00 GB that are free, by a short probe"),
        (ONE, 80 * GB, None, 60 * GB, "cuda:0: one run at a time; there is no room for 8 processes: a run needs about"),
        (ONE, 80 * GB, None, None, "cuda:0: one run at a time, as none was measured; give --workers, or let it probe"),
        (Slots(2, 1, "cpu"), 80 * GB, None, None, ""),
        (Slots(None, 1, "cuda", (), {"gpus": 1}), 80 * GB, None, None, ""),
    ],
)  # fmt: skip
def test_how_runs_share_a_gpu_and_why_is_said_in_a_line(
    slots: Slots, free: int, asked: int | None, memory: int | None, says: str, card: Callable[[int, int], None]
) -> None:
    card(free, 16)
    made, line = packed(slots, 50, asked, took(memory))
    assert line.startswith(says) and bool(line) == bool(says)
    assert says or made is slots


def configs(root: Path, **changes: Any) -> Sequence[Any]:
    spec = read_spec({**TINY, **changes})
    return due(plan_sweep(spec, root)).configs


@pytest.mark.thorough
def test_the_probe_measures_the_memory_of_a_run_and_of_full_fine_tuning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    peaks, probed = iter((3 * GB, 5 * GB)), []
    real = execute.execute
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "stand-in")
    monkeypatch.setattr(execute, "execute", lambda config, device: probed.append(config.kind) or real(config, device))
    left = configs(tmp_path, reference="full", head_lr=1e-3)
    with standin():
        monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda *_: next(peaks))
        found = measure(tmp_path, left, left, ONE)
    assert probed == ["adapter", "full"] and found.memory == cost.PROBED * 5 * GB
    assert measure(tmp_path, left, left, ONE, probe=False) == Cost()


@pytest.mark.thorough
def test_finished_runs_tell_the_memory_of_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "stand-in")
    left = configs(tmp_path)
    for config in left[:2]:
        Work(tmp_path, config.id).prepare(config, 0)
    with standin():
        monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda *_: 3 * GB)
        assert perform.perform(tmp_path, left[0].id, "cuda") == "finished"
    assert measure(tmp_path, left, left[2:], ONE).memory == pytest.approx(cost.OTHERS * 3 * GB)


@pytest.fixture
def no_memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Says by what a training fails; at first by torch's own error."""
    real, text = execute.training, ["no memory"]

    def training(model: Any, batches: Any, options: Any, **more: Any) -> Any:
        if not text:
            return real(model, batches, options, **more)
        raise torch.OutOfMemoryError(text[0]) if text[0] == "no memory" else RuntimeError(text[0])

    monkeypatch.setattr(execute, "training", training)
    yield text


@pytest.mark.parametrize("said", ["no memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED when calling"])
def test_a_run_without_memory_beside_others_is_let_go_and_alone_fails(
    said: str, no_memory: list[str], tmp_path: Path
) -> None:
    left = configs(tmp_path)
    names = [config.id for config in left[:2]]
    no_memory[0] = said
    for config in left[:2]:
        Work(tmp_path, config.id).prepare(config, 0)
    assert perform.perform(tmp_path, names[0], "cpu", shared=True) == "crowded" and not load_failures(tmp_path)
    assert perform.perform(tmp_path, names[0], "cpu") == "failed"
    assert load_failures(tmp_path)[names[0]].error["kind"] == "out of memory"
    no_memory.clear()
    assert perform.perform(tmp_path, names[1], "cpu", shared=True) == "finished"


def test_a_crowded_run_has_the_gpu_to_itself_and_then_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three processes on GPU 0 and one on GPU 1; "big" has memory only in a process that was not started as shared."""
    real, made = subprocess.Popen, []
    answers = "while read line; do case $line in big) echo {};; *) echo finished;; esac; done"

    def echo(command: list[str], env: dict[str, str], **options: Any) -> Any:
        shared, gpu = command[-1] == "shared", env["CUDA_VISIBLE_DEVICES"]
        beside = sum(process.poll() is None for process, on, _ in made if on == gpu)
        made.append((real(["sh", "-c", answers.format("crowded" if shared else "finished")], **options), gpu, shared))
        assert shared or gpu == "1" or not beside, "the GPU was not free"
        return made[-1][0]

    monkeypatch.setattr(subprocess, "Popen", echo)
    executor = Local(tmp_path, Slots(5, 1, "cuda", ("0", "1", "0", "1", "0")[:2]))
    executor._slots = [slot for slot in executor._slots if slot.gpu == "0" or slot is executor._slots[1]]
    executor.submit(["big", "a", "b", "c", "d"])
    ended: list[str] = []
    crowded = 0
    end = time.monotonic() + 60
    while len(ended) < 8 and time.monotonic() < end:
        for name, how in executor.poll().items():
            if how == "crowded":
                crowded += 1
                executor.submit_alone(name)
                executor.submit(["e", "f", "g"])
            else:
                ended.append(name)
    assert crowded == 1 and sorted(ended) == ["a", "b", "big", "c", "d", "e", "f", "g"]
    assert [shared for _, gpu, shared in made if gpu == "1"] == [False], "a process that has its GPU alone"
    assert [shared for _, gpu, shared in made if gpu == "0"].count(False) == 1
    executor.submit(["h"])
    while not executor.poll():
        pass
    executor.cancel()
    assert all(process.poll() is not None for process, _, _ in made)


@pytest.mark.thorough
def test_a_sweep_says_which_run_had_no_memory_and_finishes_it_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_memory: list[str]
) -> None:
    alone: list[str] = []

    class Crowded(run_sweep.named("inline")):  # type: ignore[name-defined,misc]
        def poll(self) -> dict[str, str]:
            name = self.queue.popleft()
            return {name: let_go(perform.perform(self.root, name, "cpu", shared=name not in alone))}

        def submit_alone(self, name: str) -> None:
            alone.append(name)
            no_memory.clear()
            super().submit_alone(name)

    monkeypatch.setattr(run_sweep, "named", lambda _: Crowded)
    said: list[str] = []
    ended = ta.sweep(TINY, tmp_path / "crowded", executor="inline", device="cpu", probe=False, say=said.append)
    assert ended.complete and len(alone) == 1
    lines = [line for line in said if "no memory beside the runs on its GPU; tried with the GPU to itself" in line]
    assert len(lines) == 1 and lines[0].startswith("LoRA r=1, seed 0 on planted: ")
    assert [a["event"] for a in attempts(tmp_path / "crowded" / alone[0])] == [
        "started",
        "failed",
        "started",
        "finished",
    ]
    monkeypatch.undo()
    assert ta.sweep(TINY, tmp_path / "alone", executor="inline", device="cpu", say=[].append).complete
    assert results(tmp_path / "crowded") == results(tmp_path / "alone") and len(done(tmp_path / "alone")) == 4
