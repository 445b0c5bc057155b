"""The contract of an executor under kills, the same for each, in processes of their own."""

from __future__ import annotations

import random
import re
import time
from collections import Counter

import pytest
from support.sweeping import (
    alive,
    attempts,
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
