"""The contract of an executor, the same for each: nothing lost, nothing run twice, whatever is killed when."""

from __future__ import annotations

import errno
import json
import os
import random
import time
from collections import Counter

import pytest
from sweeping import (
    TINY,
    alive,
    attempts,
    done,
    finish,
    kill,
    results,
    start,
    started,
    wait_for,
    workers,
    write_spec,
)

import tensoradapt as ta
from tensoradapt.sweep import supervise
from tensoradapt.sweep.store import load_failures, load_runs
from tensoradapt.sweep.toml_spec import read_spec
from tensoradapt.sweep.work import Work

OPTIONS = {"inline": ["--executor", "inline"], "local": ["--executor", "local", "--workers", "2"]}
LONG = {"steps": 120, "ranks": [1, 2, 3]}  # a second each, so that a kill finds something to kill
every_executor = pytest.mark.parametrize("executor", OPTIONS)


def sweep(tmp_path, executor="inline", said=None, **more):
    say = (lambda _: None) if said is None else said.append
    return ta.sweep(TINY, tmp_path, executor=executor, device="cpu", say=say, **more)


# In this process, quickly: the inline executor


def test_a_sweep_leaves_a_folder_for_each_run_with_one_attempt(tmp_path):
    swept = sweep(tmp_path)
    assert (swept.total, swept.finished, swept.failed, swept.complete) == (4, 4, (), True)
    runs = load_runs(tmp_path)
    assert {run.path.name for run in runs} == {path.parent.name for path in done(tmp_path)}
    for run in runs:
        assert run.config["published"] in ("lora", "lorta") and run.result["n_params"] > 0
        assert [a["event"] for a in attempts(run.path)] == ["started", "finished"]
        accuracy = float((run.predictions().argmax(1) == run.labels()).mean())
        assert accuracy == pytest.approx(run.result["test"]["accuracy"])
    assert not list((tmp_path / ".work").iterdir()), "work was left behind"


def test_a_finished_sweep_is_not_begun_again(tmp_path, monkeypatch):
    sweep(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    monkeypatch.setattr(supervise, "executor_for", None)
    assert sweep(tmp_path).complete
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_the_plan_is_said_before_anything_starts_and_a_dry_run_leaves_nothing(tmp_path):
    said = []
    swept = sweep(tmp_path / "runs", said=said, dry_run=True)
    assert (swept.total, swept.finished) == (4, 0) and not (tmp_path / "runs").exists()
    text = "\n".join(said)
    assert "2 methods, 4 cells, seeds 0: 4 runs, 4 of them to do" in text
    assert "lorta   r=2   82" in text and "on disk (by a short probe)" in text


def test_a_run_that_fails_says_why_and_does_not_stop_the_others(tmp_path):
    """The failing run's work folder names a model that is none; whoever computes it finds that out."""
    spec = read_spec(TINY)
    bad = break_one(tmp_path, spec)
    said = []
    swept = sweep(tmp_path, said=said)
    assert (swept.finished, swept.failed) == (3, (bad,)) and not swept.complete
    error = json.loads((tmp_path / bad / "error.json").read_text())
    assert "unknown model 'no-such-model'" in error["error"] and "Traceback" in error["traceback"]
    assert error["config"]["model"] == "no-such-model" and error["kind"] == "TensorAdaptError"
    assert [a["event"] for a in attempts(tmp_path / bad)] == ["started", "failed"]
    assert any("FAILED" in line for line in said)
    assert len(load_runs(tmp_path)) == 3 and set(load_failures(tmp_path)) == {bad}
    again = sweep(tmp_path)
    assert again.failed == (bad,) and len(attempts(tmp_path / bad)) == 2, "it was tried again without being asked"
    assert sweep(tmp_path, retry_failed=True).complete


def break_one(root, spec):
    """Prepares the work folder of a sweep's second run with a model that is none; returns its id."""
    from dataclasses import replace

    from tensoradapt import models
    from tensoradapt.sweep.cells import cells, due

    config = due(spec, cells(spec, models.config(spec.model)), root).configs[1]
    Work(root, config.id).prepare(replace(config, model="no-such-model"), 0)
    return config.id


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


def test_what_other_versions_made_is_kept_refused_or_made_again(tmp_path, monkeypatch):
    sweep(tmp_path)
    now = supervise.versions()
    monkeypatch.setattr(supervise, "versions", lambda: {**now, "packages": {**now["packages"], "torch": "99.0"}})
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


def test_rates_are_tuned_first_and_only_the_reported_runs_are_points(tmp_path):
    swept = ta.sweep(
        {**TINY, "learning_rates": [1e-3, 1e-2], "ranks": [1]}, tmp_path, executor="inline", device="cpu", say=[].append
    )
    assert swept.complete and swept.total == 2 * 2 + 2
    runs = load_runs(tmp_path)
    assert sum(run.config["tuning"] for run in runs) == 4
    found = ta.load_runs(tmp_path)
    from tensoradapt.analysis.frontier import points

    assert [(point.label, point.seeds) for point in points(found)] == [("lorta", (0,)), ("lora", (0,))]


def test_a_process_that_keeps_dying_is_the_runs_fault_in_the_end(tmp_path):
    class Dying:
        """An executor whose processes die at once."""

        queue: list

        def submit(self, names):
            self.queue = [*getattr(self, "queue", []), *names]
            for name in names:
                Work(tmp_path, name).note("started")

        def poll(self):
            taken, self.queue = self.queue, []
            return dict.fromkeys(taken, "ended")

        def cancel(self):
            self.queue = []

    supervise_with = pytest.MonkeyPatch()
    supervise_with.setattr(supervise, "executor_for", lambda *_: Dying())
    try:
        swept = sweep(tmp_path)
    finally:
        supervise_with.undo()
    assert swept.finished == 0 and len(swept.failed) == 4
    assert {error["kind"] for error in load_failures(tmp_path).values()} == {"killed"}


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


# In processes that are killed: every executor


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Undisturbed sweeps, one for each executor: their results."""
    found = {}

    def of(executor):
        if executor not in found:
            folder = tmp_path_factory.mktemp(executor)
            finish(write_spec(folder, **LONG), folder / "runs", *OPTIONS[executor])
            found[executor] = results(folder / "runs")
        return found[executor]

    return of


@pytest.mark.slow
@every_executor
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
    assert results(out) == whole(executor)
    assert all(attempts(path.parent)[-1]["event"] == "finished" for path in done(out))


@pytest.mark.slow
@every_executor
def test_a_killed_worker_loses_no_run_and_a_run_goes_on_from_its_state(executor, whole, tmp_path):
    spec, out = write_spec(tmp_path, **LONG), tmp_path / "runs"
    process = start(spec, out, *OPTIONS[executor], "--checkpoint-every", "10")
    wait_for(lambda: any(attempts(path.parent) for path in out.glob(".work/*/state.safetensors")))
    kill(workers(out)[0])
    if executor == "inline":  # it was the supervisor
        process.wait()
        finish(spec, out, *OPTIONS[executor])
    assert executor == "inline" or process.wait(120) == 0, "the supervisor did not go on"
    assert results(out) == whole(executor)
    last = [attempts(path.parent)[-1] for path in done(out)]
    assert any(a["resumed_at_step"] >= 10 for a in last) and sum(started(out).values()) == len(last) + 1


@pytest.mark.slow
@every_executor
def test_two_supervisors_at_once_share_the_runs_and_run_none_twice(executor, whole, tmp_path):
    spec, out = write_spec(tmp_path, **LONG), tmp_path / "runs"
    both = [start(spec, out, *OPTIONS[executor]) for _ in range(2)]
    assert [process.wait(240) for process in both] == [0, 0], out.with_suffix(".log").read_text()[-2000:]
    assert results(out) == whole(executor)
    assert set(started(out).values()) == {1}
    assert len({a["pid"] for path in done(out) for a in attempts(path.parent)}) > 1, "one of them did everything"


@pytest.mark.slow
def test_a_finished_sweep_reruns_in_under_a_second_with_no_attempt(tmp_path):
    spec, out = write_spec(tmp_path), tmp_path / "runs"
    finish(spec, out, *OPTIONS["local"])
    before = started(out)
    seconds = []
    for _ in range(3):
        begun = time.perf_counter()
        finish(spec, out, *OPTIONS["local"])
        seconds.append(time.perf_counter() - begun)
    assert min(seconds) < 1 and started(out) == before


@pytest.mark.slow
def test_twenty_kills_lose_nothing_and_repeat_nothing(tmp_path):
    """24 runs, two workers; whoever is killed when, every result is that of an undisturbed sweep, to the byte."""
    spec = write_spec(tmp_path, steps=150, ranks=[1, 2], seeds=list(range(6)))
    options = [*OPTIONS["local"], "--checkpoint-every", "10"]
    finish(spec, tmp_path / "whole", *options)
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
    assert len(done(out)) == 24 and results(out) == results(tmp_path / "whole")
    for path in done(out):
        events = [a["event"] for a in attempts(path.parent)]
        assert events.count("finished") == 1 and events[-1] == "finished" and events[0] == "started"
    print(f"killed {dict(killed)}; {sum(started(out).values())} attempts for 24 runs")
    assert not list(out.glob(".*.tmp")) and not list((out / ".work").iterdir())
