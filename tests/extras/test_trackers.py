"""Trackers: they are given every loss and score, and whatever they do, the run and its result are as without them."""

from __future__ import annotations

import json
import sys
import threading

import pytest
from support.sweeping import TINY, attempts, results

import tensoradapt as ta
from tensoradapt.extras.trackers import TRACKERS
from tensoradapt.lab.runs import trackers
from tensoradapt.lab.runs.store import load_runs

ONE = {**TINY, "method": "lora", "rank": 1, "steps": 6}


def sweep(out, track=(), executor="inline", **more):
    return ta.sweep(ONE, out, executor=executor, device="cpu", say=lambda _: None, track=track, **more)


def errors(out):
    return [run.measurements["tracker_errors"] for run in load_runs(out)]


class Kept:
    """A tracker that keeps what it is given, and raises in the calls named."""

    calls: list
    bad: frozenset = frozenset()

    def note(self, call, *what):
        self.calls.append((call, *what, threading.current_thread() is threading.main_thread()))
        if call in self.bad:
            raise SystemExit(f"no {call}")

    def start(self, name, root, config, step):
        self.note("start", name, root, config["training"]["lr"], step)

    def log(self, values, step):
        self.note("log", values, step)

    def finish(self):
        self.note("finish")


@pytest.fixture
def kept(monkeypatch):
    """Makes "tensorboard" the name of a tracker that keeps what it is given; its calls."""

    def of(*bad):
        kind = type("Bad", (Kept,), {"calls": [], "bad": frozenset(bad)})
        monkeypatch.setitem(TRACKERS, "tensorboard", kind)
        return kind.calls

    return of


@pytest.fixture(scope="module")
def untracked(tmp_path_factory):
    out = tmp_path_factory.mktemp("untracked")
    sweep(out)
    return out


@pytest.fixture(scope="module")
def untracked_elsewhere(tmp_path_factory):
    """In a process of its own, which may have other threads than this one, and so other low bits."""
    out = tmp_path_factory.mktemp("untracked_elsewhere")
    sweep(out, executor="local")
    return out


@pytest.mark.thorough
def test_a_tracker_is_given_every_loss_and_the_scores_on_a_thread_of_its_own(tmp_path, kept, untracked):
    calls = kept()
    sweep(tmp_path, "tensorboard")
    (run,) = load_runs(tmp_path)
    scores = {f"{part}/{key}": value for part in ("validation", "test") for key, value in run.result[part].items()}
    losses = [({"loss": float(loss)}, step) for step, loss in enumerate(run.array("losses"), 1)]
    start, *logs, end = calls
    assert start[2:] == (tmp_path.resolve(), 1e-3, 1, False) and end == ("finish", False)
    assert [(values, step) for _, values, step, _ in logs] == [*losses, (scores, 6)] and len(losses) == 6
    assert not any(on_main for *_, on_main in logs)
    assert results(tmp_path) == results(untracked) and errors(tmp_path) == errors(untracked) == [[]]


@pytest.mark.parametrize("bad", ["start", "log", "finish"])
def test_a_tracker_that_raises_is_a_line_and_the_run_goes_on(bad, tmp_path, kept, untracked):
    calls = kept(bad, "finish")
    assert sweep(tmp_path, ["tensorboard"]).complete
    assert results(tmp_path) == results(untracked)
    assert errors(tmp_path) == [[f"tensorboard: SystemExit: no {bad}"]]
    assert [call[0] for call in calls].count(bad) == 1, "it was asked again"


@pytest.mark.thorough
@pytest.mark.parametrize("where", ["start", "log", "finish"])
def test_a_tracker_that_hangs_is_waited_for_once_and_not_for_long(where, tmp_path, kept, untracked, monkeypatch):
    released = threading.Event()
    kept()
    kind, before = TRACKERS["tensorboard"], set(threading.enumerate())
    monkeypatch.setattr(kind, where, lambda *_: released.wait(600), raising=False)
    monkeypatch.setattr(trackers, "PATIENCE", 0.3)
    monkeypatch.setattr(trackers, "_hung", set())
    try:
        ta.sweep({**ONE, "seed": [0, 1, 2]}, tmp_path, executor="inline", say=[].append, track="tensorboard")
        hanging = set(threading.enumerate()) - before
    finally:
        released.set()
    assert len(hanging) == 1, "a run waited for its tracker to come back, or asked it again"
    assert {**results(tmp_path), **results(untracked)} == results(tmp_path)
    later = "tensorboard: it hung in an earlier run of this process, and is not used again"
    assert sorted(errors(tmp_path)) == [["tensorboard: it did not return within 0.3 s"], [later], [later]]


@pytest.mark.slow
def test_tensorboard_reads_back_what_was_logged_by_a_process_of_its_own(tmp_path, untracked_elsewhere):
    pytest.importorskip("tensorboard", reason="the extra tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    sweep(tmp_path, "tensorboard", executor="local")
    (run,) = load_runs(tmp_path)
    assert errors(tmp_path) == [[]] and results(tmp_path) == results(untracked_elsewhere)
    (folder,) = (tmp_path / "tracking" / "tensorboard").iterdir()
    read = EventAccumulator(str(folder)).Reload()
    losses = [(event.step, event.value) for event in read.Scalars("loss")]
    assert losses == [(i, pytest.approx(float(loss))) for i, loss in enumerate(run.array("losses"), 1)]
    (score,) = read.Scalars("test/accuracy")
    assert (score.step, score.value) == (6, pytest.approx(run.result["test"]["accuracy"]))
    assert [run.path.name for run in load_runs(tmp_path)] == list(results(tmp_path))


@pytest.mark.slow
def test_wandb_offline_leaves_its_file(tmp_path, untracked_elsewhere, monkeypatch):
    pytest.importorskip("wandb", reason="the extra wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    sweep(tmp_path, "wandb", executor="local")
    assert errors(tmp_path) == [[]] and results(tmp_path) == results(untracked_elsewhere)
    (file,) = (tmp_path / "tracking").rglob("*.wandb")
    assert b"loss" in file.read_bytes() and b"test/accuracy" in file.read_bytes()


@pytest.mark.slow
def test_trackio_reads_back_what_was_logged(tmp_path, untracked_elsewhere, monkeypatch):
    pytest.importorskip("trackio", reason="the extra trackio")
    import sqlite3

    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    sweep(tmp_path / "runs", "trackio", executor="local")
    (run,) = load_runs(tmp_path / "runs")
    assert errors(tmp_path / "runs") == [[]] and results(tmp_path / "runs") == results(untracked_elsewhere)
    with sqlite3.connect(tmp_path / "trackio" / "runs.db") as base:
        rows = [(step, json.loads(found)) for step, found in base.execute("select step, metrics from metrics")]
    base.close()
    losses = {step: found["loss"] for step, found in rows if "loss" in found}
    assert losses == {i: pytest.approx(float(loss)) for i, loss in enumerate(run.array("losses"), 1)}


@pytest.mark.parametrize(
    ("track", "says"),
    [
        ("tensorbord", "track is 'tensorbord'; did you mean \"tensorboard\"?"),
        (["wandb"], r'track wandb needs `wandb`, .*pip install "tensoradapt\[wandb\]"'),
    ],
)
def test_a_tracker_that_is_not_there_is_refused_before_anything_is_run(track, says, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ta.TensorAdaptError, match=says):
        sweep(tmp_path / "runs", track)
    assert not (tmp_path / "runs").exists() and not attempts(tmp_path)
