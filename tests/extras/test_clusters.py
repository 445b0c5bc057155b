"""The contract of an executor, on a SLURM of one node (``.ci/slurm.sh start``) and on a Ray of this machine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest
from support.sweeping import (
    alive,
    attempts,
    break_one,
    done,
    finish,
    kill,
    results,
    start,
    started,
    undisturbed,
    wait_for,
    workers,
)
from support.sweeping import write_spec as write

from tensoradapt.lab.sweeps.spec import read_spec

OPTIONS = {
    "slurm": ["--executor", "slurm", "--slurm", "partition=low", "time=10", "--checkpoint-every", "10"],
    "ray": ["--executor", "ray", "--workers", "2", "--checkpoint-every", "10"],
}
# two runs at a time, as the machine has two cores, each of some seconds, so that a kill finds something to kill
LONG = {"steps": 400, "method": "lora", "rank": [1, 2]}
# its processes do not give way to all others, which a busy machine takes without end; and no user has a token of it
RAY = {"RAY_worker_niceness": "0", "RAY_AUTH_MODE": "disabled"}
BEGIN_RAY = """\
import ray, sys
print(ray.init(include_dashboard=False, num_cpus=2).address_info["address"], flush=True)
sys.stdin.read()
"""
LATE = 600  # seconds of a sweep that takes half a minute where nothing else runs
pytestmark = pytest.mark.cluster
each = pytest.mark.parametrize("executor", OPTIONS)


def write_spec(folder):
    return write(folder, **LONG)


def jobs():
    """What SLURM has of our jobs."""
    found = subprocess.run(["squeue", "--noheader", "--format=%j %T"], capture_output=True, text=True, check=True)
    return [line for line in found.stdout.splitlines() if line.startswith("tensoradapt-")]


def computing(out):
    """The processes of runs that have kept a state, as soon as there is one."""
    return wait_for(lambda: workers(out, "state.safetensors"), LATE)


def resumed(out):
    """The steps that runs went on from the last time."""
    return [attempts(path.parent)[-1]["resumed_at_step"] for path in done(out)]


@pytest.fixture(scope="module")
def ray_of_all():
    """The address of a Ray that several sweeps use, as a cluster's is."""
    environment = {**os.environ, **RAY}
    begin = [sys.executable, "-c", BEGIN_RAY]
    with subprocess.Popen(begin, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as process:
        yield process.stdout.readline().split()[-1]
        process.stdin.close()  # ends it


@pytest.fixture(autouse=True)
def ray(request, monkeypatch):
    """Sweeps on Ray use one, as to begin one takes as long as what is tested."""
    if "executor" in request.fixturenames and request.getfixturevalue("executor") == "ray":
        for name, value in RAY.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("RAY_ADDRESS", request.getfixturevalue("ray_of_all"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The results of the same sweep by the inline executor."""
    folder = tmp_path_factory.mktemp("inline")
    return undisturbed(write_spec(folder), folder / "runs")


@each
def test_two_sweeps_at_once_run_nothing_twice_and_give_what_inline_gives(executor, whole, tmp_path):
    spec, out = write_spec(tmp_path), tmp_path / "runs"
    both = [start(spec, out, *OPTIONS[executor]) for _ in range(2)]
    assert [process.wait(LATE) for process in both] == [0, 0], out.with_suffix(".log").read_text()[-2000:]
    assert results(out) == whole and set(started(out).values()) == {1}
    assert not list((out / ".work").iterdir()) and not list(out.glob(".slurm/*"))


@each
def test_a_sweep_of_own_data_gives_what_inline_gives(executor, tmp_path):
    """Every process reads the file again, and finds the hash of its content that the sweep recorded."""
    rows = [f"{'very ' * (i % 7)}{'good' if i % 2 else 'bad'} film {i},{i % 2}" for i in range(200)]
    (tmp_path / "reviews.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    spec = write(tmp_path, task=[str(tmp_path / "reviews.csv")], method="lora", n_validation=16)
    finish(spec, tmp_path / "runs", *OPTIONS[executor], timeout=LATE)
    assert len(results(tmp_path / "runs")) == 2
    assert results(tmp_path / "runs") == undisturbed(spec, tmp_path / "inline")


@each
def test_a_run_that_fails_says_why_and_does_not_stop_the_other(executor, tmp_path):
    spec, out = write(tmp_path, method="lora"), tmp_path / "runs"
    bad = break_one(out, read_spec(spec))
    process = start(spec, out, *OPTIONS[executor])
    assert process.wait(LATE) == 1 and len(done(out)) == 1
    assert json.loads((out / bad / "error.json").read_text())["kind"] == "KeyError"
    assert [a["event"] for a in attempts(out / bad)] == ["started", "failed"]


@each
def test_after_a_worker_is_killed_its_run_goes_on_from_its_state(executor, whole, tmp_path):
    spec, out = write_spec(tmp_path), tmp_path / "runs"
    process = start(spec, out, *OPTIONS[executor])
    kill(computing(out)[0])
    assert process.wait(LATE) == 0, out.with_suffix(".log").read_text()[-2000:]
    assert results(out) == whole and sorted(started(out).values()) == [1, 2]
    assert max(resumed(out)) >= 10


@each
def test_after_its_supervisor_is_killed_a_sweep_loses_nothing_and_finishes_nothing_twice(executor, whole, tmp_path):
    """Jobs of SLURM outlive the sweep and are taken over; tasks of Ray end with it, and go on from their state."""
    spec, out = write_spec(tmp_path), tmp_path / "runs"
    process = start(spec, out, *OPTIONS[executor])
    before = computing(out)
    kill(process.pid)
    process.wait()
    if executor == "ray":
        wait_for(lambda: not any(alive(pid) for pid in before), 60)
    else:
        assert all(alive(pid) for pid in before)
    finish(spec, out, *OPTIONS[executor], timeout=LATE)
    assert results(out) == whole
    assert all([a["event"] for a in attempts(path.parent)].count("finished") == 1 for path in done(out))
    if executor == "slurm":
        assert set(started(out).values()) == {1}
    else:
        assert max(resumed(out)) >= 10


@each
def test_an_interrupted_sweep_leaves_nothing_that_runs(executor, tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)  # a Ray of its own, which ends with it
    # longer than the seconds that SLURM leaves a job after its first signal, within which a run may rightly end
    spec, out = write(tmp_path, **{**LONG, "steps": 4000}), tmp_path / "runs"
    process = start(spec, out, *OPTIONS[executor])
    before = computing(out)
    process.send_signal(signal.SIGINT)
    assert process.wait(LATE) == 1 and "the same command goes on" in out.with_suffix(".log").read_text()
    assert not any(alive(pid) for pid in before) and not jobs() and not done(out)


def test_a_preempted_job_resumes_at_the_step_of_its_state(whole, tmp_path):
    """SLURM needs both cores for a partition that comes first: it signals the jobs, which ask to be queued again."""
    spec, out = write_spec(tmp_path), tmp_path / "runs"
    process = start(spec, out, *OPTIONS["slurm"])
    computing(out)
    subprocess.run(["srun", "--quiet", "--partition=high", "--cpus-per-task=2", "true"], check=True, timeout=LATE)
    assert process.wait(LATE) == 0, out.with_suffix(".log").read_text()[-2000:]
    assert results(out) == whole and 10 <= max(resumed(out)) < LONG["steps"]
    first, second, last = next(found for path in done(out) if (found := attempts(path.parent))[-1]["resumed_at_step"])
    assert (first["event"], second["event"], last["event"]) == ("started", "started", "finished")
    assert first["pid"] != second["pid"] == last["pid"]
