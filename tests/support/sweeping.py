"""Sweeps in processes of their own, which tests can kill, and what these leave; and sweeps that train nothing."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from support.synthetic_runs import metric_document

import tensoradapt as ta
from tensoradapt.lab.runs import perform
from tensoradapt.lab.runs.config import RunConfig
from tensoradapt.lab.runs.work_folder import Work, state_key
from tensoradapt.lab.sweeps.due import due
from tensoradapt.lab.sweeps.plan_sweep import plan_sweep
from tensoradapt.lab.sweeps.spec import SweepSpec
from tensoradapt.records import toml_of
from tensoradapt.training.state import TrainingState

TINY: dict[str, Any] = {
    "model": "tiny-random-bert",
    "task": "planted",
    "method": ["lora", "lorta"],
    "rank": [1, 2],
    "lr": 1e-3,
    "seed": 0,
    "steps": 4,
    "n_train": 64,
    "n_validation": 32,
    "n_test": 32,
}


def write_spec(folder: Path, **changes: Any) -> Path:
    """The tiny sweep as a TOML file."""
    path = folder / "spec.toml"
    path.write_text(toml_of({key: value for key, value in {**TINY, **changes}.items() if value is not None}))
    return path


def break_one(root: Path, spec: SweepSpec) -> str:
    """Gives a sweep's second run the state of a training that lacks its losses; returns the run's id."""
    config = due(plan_sweep(spec, root)).configs[1]
    work = Work(root, config.id)
    work.prepare(config, 25)
    state = TrainingState(work.path / "state.safetensors", 1, state_key(config.id))
    perform.execute(config, "cpu", lambda *_: None, state)
    kept = state.read()
    assert kept is not None
    state.write({name: value for name, value in kept.items() if name != "losses"})
    return config.id


def start(spec: Path, out: Path, *options: str) -> subprocess.Popen[bytes]:
    """A sweep in a process of its own; its words go to a file beside ``out``."""
    command = [
        sys.executable,
        "-m",
        "tensoradapt.lab.cli.main",
        "sweep",
        str(spec),
        "--out",
        str(out),
        "--device",
        "cpu",
    ]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    with out.with_suffix(".log").open("ab") as log:
        # a shell's background jobs ignore SIGINT, and so would what they start
        heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
        return subprocess.Popen([*command, *options], stdout=log, stderr=log, env=env, preexec_fn=heed)


def finish(spec: Path, out: Path, *options: str, timeout: float = 240) -> None:
    """Runs the sweep to its end."""
    process = start(spec, out, *options)
    assert process.wait(timeout) == 0, out.with_suffix(".log").read_text()[-2000:]


def undisturbed(spec: Path, out: Path) -> dict[str, bytes]:
    """The results of the sweep, or of what is left of it, by this process, which has imported all that it needs."""
    with one_thread():
        ended = ta.sweep(spec, out, executor="inline", device="cpu", say=lambda _: None)
    assert ended.complete, ended.failed
    return results(out)


def results(out: Path) -> dict[str, bytes]:
    """What is deterministic of every run: result, predictions, labels and losses."""
    names = ("result.json", "predictions.npy", "labels.npy", "losses.npy")
    return {path.parent.name: b"".join((path.parent / n).read_bytes() for n in names) for path in done(out)}


def done(out: Path) -> list[Path]:
    return sorted(out.glob("[!.]*/result.json"))


def attempts(path: Path) -> list[dict[str, Any]]:
    """The attempts of a run, from its folder or its work folder; none where it has none yet."""
    with contextlib.suppress(FileNotFoundError):
        # a process that is killed while it writes leaves half a line
        return [json.loads(line) for line in (path / "attempts.jsonl").read_text().splitlines() if line.endswith("}")]
    return []


def started(out: Path) -> dict[str, int]:
    """How often each finished run was begun."""
    return {path.parent.name: sum(a["event"] == "started" for a in attempts(path.parent)) for path in done(out)}


def workers(out: Path, state: str = "") -> list[int]:
    """Processes that have a run in hand: the last attempt of each, where it is alive; with ``state``, those that have
    saved one.
    """
    folders = [path for path in out.glob(".work/[!.]*") if (path / state).exists()]
    last = [found[-1]["pid"] for path in folders if (found := attempts(path))]
    return [pid for pid in last if alive(pid)]


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits for its parent to notice does not."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def wait_for(what: Callable[[], Any], timeout: float = 60) -> Any:
    """What a function returns, as soon as that is true."""
    end = time.monotonic() + timeout
    while not (found := what()):
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)
    return found


def kill(pid: int) -> None:
    """As a power cut would: no handler runs."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


Score = Callable[[RunConfig], float]
HOW: dict[str, Any] = {"executor": "inline", "device": "cpu", "probe": False}


def left_by(score: Score) -> Callable[..., dict[str, Any]]:
    """What stands for the computation of a run, whose score it is given."""

    def execute(config: RunConfig, *arguments: object) -> dict[str, Any]:
        found = {"accuracy": score(config)}
        result = {
            "status": "finished",
            "metric": metric_document(),
            "n_params": 9 + len(str(config.method)),
            "note": "",
        }
        parts = {"result": {**result, "validation": found, "test": found}, "measurements": {}, "arrays": {}}
        return {"config": config.as_dict(), **parts}

    return execute


def sweep(out: Path, score: Score = lambda config: 0.7 + 0.01 * config.seed % 0.1, **changes: Any) -> list[str]:
    """Runs a tiny sweep into a folder without training; returns its lines."""
    said: list[str] = []
    given = {**TINY, "rank": 1, "seed": [0, 1], **changes}
    with patch("os.fsync"), patch.object(perform, "execute", left_by(score)):
        ta.sweep(given, out, say=said.append, **HOW)
    return said


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread within, and as many as before after it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
