"""The contract of an executor: by the inline one, what the local one starts, and the same for each under kills."""

from __future__ import annotations

import errno
import json
import os
import random
import re
import subprocess
import time
from collections import Counter
from dataclasses import replace

import pytest
from support.sweeping import (
    TINY,
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
    write_spec,
)

import tensoradapt as ta
from tensoradapt.lab.runs.store import load_failures, load_runs
from tensoradapt.lab.runs.work_folder import Work
from tensoradapt.lab.sweeps import run_sweep
from tensoradapt.lab.sweeps.executors.catalogue import local_threads, slots_for
from tensoradapt.lab.sweeps.executors.executor import Local, Slots
from tensoradapt.lab.sweeps.spec import read_spec


def sweep(tmp_path, executor="inline", said=None, **more):
    say = (lambda _: None) if said is None else said.append
    return ta.sweep(TINY, tmp_path, executor=executor, device="cpu", say=say, **more)


def test_a_sweep_leaves_a_folder_for_each_run_with_one_attempt(tmp_path):
    swept = sweep(tmp_path)
    assert (swept.total, swept.finished, swept.failed, swept.complete) == (4, 4, (), True)
    runs = load_runs(tmp_path)
    assert {run.path.name for run in runs} == {path.parent.name for path in done(tmp_path)}
    for run in runs:
        assert run.row["method"] in ("lora", "lorta") and run.result["n_params"] > 0
        assert [a["event"] for a in attempts(run.path)] == ["started", "finished"]
        accuracy = float((run.array("predictions").argmax(1) == run.array("labels")).mean())
        assert accuracy == pytest.approx(run.result["test"]["accuracy"])
    assert not list((tmp_path / ".work").iterdir()), "work was left behind"


def test_a_finished_sweep_is_not_begun_again(tmp_path, monkeypatch):
    sweep(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    monkeypatch.setattr(run_sweep, "named", None)
    assert sweep(tmp_path).complete
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_the_plan_is_said_before_anything_starts_and_a_dry_run_leaves_nothing(tmp_path):
    said = []
    swept = sweep(tmp_path / "runs", said=said, dry_run=True)
    assert (swept.total, swept.finished) == (4, 0) and not (tmp_path / "runs").exists()
    text = "\n".join(said)
    assert "2 methods, 4 cells, seed 0: 4 runs, 4 of them to do" in text
    assert "LoRTA   r=2   82" in text and "on disk (by a short probe)" in text


@pytest.mark.thorough
def test_a_run_that_fails_says_why_and_does_not_stop_the_others(tmp_path):
    """The failing run's work folder has a state without losses; whoever computes it finds that out."""
    bad = break_one(tmp_path, read_spec(TINY))
    said = []
    swept = sweep(tmp_path, said=said)
    assert (swept.finished, swept.failed) == (3, (bad,)) and not swept.complete
    error = json.loads((tmp_path / bad / "error.json").read_text())
    assert error["error"] == "'losses'" and "Traceback" in error["traceback"]
    assert error["config"]["training"]["steps"] == 4 and error["kind"] == "KeyError"
    assert [a["event"] for a in attempts(tmp_path / bad)] == ["started", "failed"]
    assert any("FAILED" in line for line in said)
    assert len(load_runs(tmp_path)) == 3 and set(load_failures(tmp_path)) == {bad}
    again = sweep(tmp_path)
    assert again.failed == (bad,) and len(attempts(tmp_path / bad)) == 2, "it was tried again without being asked"
    assert sweep(tmp_path, retry_failed=True).complete


@pytest.mark.thorough
def test_a_full_disk_stops_the_sweep_and_fails_no_run(tmp_path, monkeypatch):
    sweep(tmp_path / "whole")
    real, count = os.fsync, Counter()

    def full(handle):
        count["fsync"] += 1
        if count["fsync"] > 40:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(ta.TensorAdaptError, match="No space left on device"):
            sweep(tmp_path / "full", checkpoint_every=2)
    assert 0 < len(done(tmp_path / "full")) < 4 and not load_failures(tmp_path / "full")
    assert sweep(tmp_path / "full").complete
    assert results(tmp_path / "full") == results(tmp_path / "whole")


@pytest.mark.thorough
def test_what_other_versions_made_is_kept_refused_or_made_again(tmp_path, monkeypatch):
    sweep(tmp_path)
    now = run_sweep.versions()
    monkeypatch.setattr(run_sweep, "versions", lambda: {**now, "packages": {**now["packages"], "torch": "99.0"}})
    said = []
    assert sweep(tmp_path, said=said).complete
    assert "4 of 4 finished runs were made by other versions: torch" in said[0] and "now 99.0; they are kept" in said[0]
    with pytest.raises(ta.TensorAdaptError, match=r"now 99\.0\. Expected the same: go on with --stale keep"):
        sweep(tmp_path, stale="error")
    before = results(tmp_path)
    assert sweep(tmp_path, stale="rerun").complete and results(tmp_path) == before
    assert len(list((tmp_path / ".stale").iterdir())) == 4 and set(started(tmp_path).values()) == {1}
    with pytest.raises(ta.TensorAdaptError, match="stale is 'kep'; did you mean \"keep\""):
        sweep(tmp_path, stale="kep")


@pytest.mark.thorough
def test_rates_are_tuned_first_and_only_the_reported_runs_are_points(tmp_path):
    swept = ta.sweep(
        {**TINY, "lr": [1e-3, 1e-2], "rank": 1, "tuning": {"seed": 1000, "extend": 0}},
        tmp_path,
        executor="inline",
        device="cpu",
        say=[].append,
    )
    assert swept.complete and swept.total == 2 * 2 + 2
    runs = load_runs(tmp_path)
    assert sum(run.config["tuning"] for run in runs) == 4
    found = ta.load_runs(tmp_path)
    from tensoradapt.lab.analysis.tables import summarise

    means = summarise(found)
    adapters = means[means["kind"] == "adapter"]
    assert list(zip(adapters["method"], adapters["seeds"], strict=True)) == [("lorta", (0,)), ("lora", (0,))]


@pytest.mark.parametrize("noted", [True, False])
def test_a_process_that_keeps_dying_is_the_runs_fault_in_the_end(noted, tmp_path):
    class Dying:
        """An executor whose processes die at once."""

        queue: list
        slots = Slots(1, 1, "cpu")

        def submit(self, names):
            self.queue = [*getattr(self, "queue", []), *names]
            for name in names if noted else ():
                Work(tmp_path, name).note("started")

        def poll(self):
            taken, self.queue = self.queue, []
            return dict.fromkeys(taken, "ended")

        def cancel(self):
            self.queue = []

    supervise_with = pytest.MonkeyPatch()
    supervise_with.setattr(run_sweep, "named", lambda _: lambda *_: Dying())
    try:
        swept = sweep(tmp_path)
    finally:
        supervise_with.undo()
    assert swept.finished == 0 and len(swept.failed) == 4
    assert {failure.error["kind"] for failure in load_failures(tmp_path).values()} == {"killed"}
    assert {len(attempts(tmp_path / name)) for name in swept.failed} == {run_sweep.DEATHS if noted else 0}


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"executor": "slrum"}, "executor is 'slrum'"),
        ({"executor": "inline", "workers": 2}, "workers is 2 for the inline executor"),
        ({"workers": 0}, "workers is 0; expected a whole number"),
        ({"device": "cdua"}, "device is 'cdua'; did you mean \"cuda\""),
    ],
)
def test_what_will_not_do_is_refused_before_anything_is_written(more, says, tmp_path):
    with pytest.raises(ta.TensorAdaptError, match=says):
        ta.sweep(TINY, tmp_path / "runs", **{"device": "cpu", "say": [].append, **more})
    assert not (tmp_path / "runs").exists()


def test_each_process_sees_one_gpu_and_its_share_of_the_cores_and_none_is_left(tmp_path, monkeypatch):
    real, seen, made = subprocess.Popen, [], []

    def echo(_command, env, **options):
        """A process that answers each run at once, and dies after the first where it sees GPU 5."""
        seen.append((env["CUDA_VISIBLE_DEVICES"], env["OMP_NUM_THREADS"]))
        made.append(real(["head", "-n1"] if seen[-1][0] == "5" else ["cat"], **options))
        return made[-1]

    monkeypatch.setattr(subprocess, "Popen", echo)
    executor = Local(tmp_path, replace(slots_for("local", 3, "cpu", {}), device="cuda", gpus=["2", "5"]))
    executor.submit("abcdefgh")
    found = []
    while len(found) < 8:
        found += executor.poll().items()
    executor.cancel()
    share = str(local_threads(3))
    assert seen[:3] == [("2", share), ("5", share), ("2", share)], "before torch is loaded, by the environment"
    assert {name for name, _ in found} == set("abcdefgh") and {how for _, how in found} == {"ended"}
    assert all(process.poll() is not None for process in made) and executor.poll() == {}


OPTIONS = {"inline": ["--executor", "inline"], "local": ["--executor", "local", "--workers", "2"]}
LONG = {"steps": 120, "rank": [1, 2, 3]}  # a second each, so that a kill finds something to kill
inline_nightly = pytest.mark.parametrize("executor", [pytest.param("inline", marks=pytest.mark.nightly), "local"])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The results of the sweep when nothing happens to it."""
    folder = tmp_path_factory.mktemp("whole")
    return undisturbed(write_spec(folder, **LONG), folder / "runs")


@pytest.mark.slow
@inline_nightly
def test_after_its_supervisor_is_killed_a_sweep_goes_on_and_no_process_is_left(executor, whole, tmp_path):
    spec, out = write_spec(tmp_path, **LONG), tmp_path / "runs"
    process = start(spec, out, *OPTIONS[executor], "--checkpoint-every", "10")
    wait_for(lambda: done(out) and workers(out))
    computing = workers(out)
    kill(process.pid)
    process.wait()
    wait_for(lambda: not any(alive(pid) for pid in computing), 10)
    kept = {path: path.stat().st_mtime_ns for path in done(out)}
    finish(spec, out, *OPTIONS[executor])
    assert {path: path.stat().st_mtime_ns for path in kept} == kept, "a finished run was run again"
    assert results(out) == whole
    assert all(attempts(path.parent)[-1]["event"] == "finished" for path in done(out))


@pytest.mark.slow
def test_no_process_outlives_its_supervisor_within_a_long_run(tmp_path):
    out = tmp_path / "runs"
    process = start(write_spec(tmp_path, steps=50_000), out, *OPTIONS["local"])
    computing = wait_for(lambda: len(found := workers(out)) == 2 and found)
    kill(process.pid)
    process.wait()
    try:
        wait_for(lambda: not any(alive(pid) for pid in computing), 3)
    finally:
        for pid in computing:
            kill(pid)


@pytest.mark.slow
@inline_nightly
def test_a_killed_worker_loses_no_run_and_a_run_goes_on_from_its_state(executor, whole, tmp_path):
    spec, out = write_spec(tmp_path, **LONG), tmp_path / "runs"
    process = start(spec, out, *OPTIONS[executor], "--checkpoint-every", "10")
    kill(wait_for(lambda: workers(out, "state.safetensors"))[0])
    if executor == "inline":  # it was the supervisor
        process.wait()
        finish(spec, out, *OPTIONS[executor])
    assert executor == "inline" or process.wait(120) == 0, "the supervisor did not go on"
    assert results(out) == whole
    last = [attempts(path.parent)[-1] for path in done(out)]
    assert any(a["resumed_at_step"] >= 10 for a in last) and sum(started(out).values()) == len(last) + 1


@pytest.mark.slow
@inline_nightly
def test_two_supervisors_at_once_share_the_runs_and_run_none_twice(executor, whole, tmp_path):
    spec, out = write_spec(tmp_path, **LONG), tmp_path / "runs"
    both = [start(spec, out, *OPTIONS[executor]) for _ in range(2)]
    assert [process.wait(240) for process in both] == [0, 0], out.with_suffix(".log").read_text()[-2000:]
    assert results(out) == whole
    assert set(started(out).values()) == {1}
    assert len({a["pid"] for path in done(out) for a in attempts(path.parent)}) > 1, "one of them did everything"


@pytest.mark.slow
def test_a_finished_sweep_reruns_without_torch_and_with_no_attempt(tmp_path, monkeypatch):
    """It takes less than a second, most of which is Python's start; torch alone would take longer."""
    spec, out = write_spec(tmp_path), tmp_path / "runs"
    undisturbed(spec, out)
    before = started(out)
    monkeypatch.setenv("PYTHONPROFILEIMPORTTIME", "1")  # the log names every module that is imported
    finish(spec, out, *OPTIONS["local"])
    log = out.with_suffix(".log").read_text()
    assert " tensoradapt.lab.sweeps" in log and not re.search(r"\| +torch$", log, re.M) and started(out) == before


@pytest.mark.nightly
def test_twenty_kills_lose_nothing_and_repeat_nothing(tmp_path):
    """24 runs, two workers; whoever is killed when, every result is that of an undisturbed sweep, to the byte."""
    spec = write_spec(tmp_path, steps=150, rank=[1, 2], seed=list(range(6)))
    options = [*OPTIONS["local"], "--checkpoint-every", "10"]
    whole = undisturbed(spec, tmp_path / "whole")
    rng, out, process, killed = random.Random(0), tmp_path / "killed", None, Counter()
    while sum(killed.values()) < 20:
        if process is None or process.poll() is not None:
            assert len(done(out)) < 24, f"the sweep ended after {dict(killed)}"
            process = start(spec, out, *options)
        time.sleep(rng.uniform(0.2, 2.5))
        computing = workers(out)
        if computing and rng.random() < 0.7:
            kill(rng.choice(computing))
            killed["worker"] += 1
        elif out.exists() and rng.random() < 0.3:
            kill(process.pid)
            process.wait()
            killed["supervisor"] += 1
    process.wait(240)
    finish(spec, out, *options)
    assert min(killed["worker"], killed["supervisor"]) > 0
    assert len(done(out)) == 24 and results(out) == whole
    for path in done(out):
        events = [a["event"] for a in attempts(path.parent)]
        assert events.count("finished") == 1 and events[-1] == "finished" and events[0] == "started"
    print(f"killed {dict(killed)}; {sum(started(out).values())} attempts for 24 runs")
    assert not list(out.glob(".*.tmp")) and not list((out / ".work").iterdir())
