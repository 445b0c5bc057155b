"""Watching a folder of runs: what is shown is what is there, and nothing is changed by looking."""

from __future__ import annotations

import fcntl
import io
import json
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
from support.sweeping import TINY, done, start, write_spec

import tensoradapt as ta
from tensoradapt.cli.main import main
from tensoradapt.runs import perform
from tensoradapt.runs.store import is_finished
from tensoradapt.sweeps.reports import watch
from tensoradapt.sweeps.reports.watch import Watch, drawn, show, text

SPEC = {**TINY, "steps": 6}
PLAIN = {"tuning": {"at": "method", "seed": 1000, "extend": 0}}


def sweep(out, **more):
    spec = {key: more.pop(key) for key in [*more] if key in ("rank", "seed", "lr", *PLAIN)}
    return ta.sweep({**SPEC, **spec}, out, executor="inline", device="cpu", say=lambda _: None, **more)


@pytest.fixture(scope="module")
def half(tmp_path_factory):
    """A sweep of four runs that was stopped in its third, after the fifth of six steps."""
    out, real, calls = tmp_path_factory.mktemp("half") / "runs", perform.execute, []

    def stop(config, device, on_step, checkpoint):
        def stopping(step, loss):
            if len(calls) == 3 and step == 5:
                raise KeyboardInterrupt

        calls.append(config)
        return real(config, device, stopping, checkpoint)

    with pytest.MonkeyPatch().context() as patch:
        patch.setattr(perform, "execute", stop)
        with pytest.raises(KeyboardInterrupt):
            sweep(out, checkpoint_every=2)
    return out


@pytest.fixture
def copy(half, tmp_path):
    """A copy of the stopped sweep, with the work of its third run."""
    shutil.copytree(half, tmp_path / "runs")
    (found,) = (path for path in (tmp_path / "runs" / ".work").iterdir() if (path / "attempts.jsonl").exists())
    return tmp_path / "runs", found


def test_what_is_shown_is_what_is_there(half):
    frame = Watch(half).frame()
    assert [(row.task, row.method, row.finished, row.failed, row.running, row.waiting) for row in frame.rows] == [
        ("planted", "lora", 2, 0, 0, 0),
        ("planted", "lorta", 0, 0, 1, 1),
    ]
    (one,) = frame.in_hand
    assert (one.config.adapter.method, one.config.adapter.rank, one.step, one.alive) == ("lorta", 1, 4, True)
    assert not frame.over and frame.total == 4 and len(frame.last) == 2
    seconds = [json.loads((path.parent / "measurements.json").read_text())["seconds"] for path in done(half)]
    assert frame.seconds_left == pytest.approx(sum(seconds) / 2 * (1 + 1 - 4 / 6))


def test_once_prints_one_plain_frame(half, capsys):
    assert main(["watch", str(half), "--once"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{half}: 2 of 4 runs finished, 1 running, 1 waiting; about ")
    assert lines[1].split() == ["task", "method", "finished", "failed", "running", "waiting"]
    assert lines[3].split() == ["planted", "LoRTA", "0", "0", "1", "1"]
    assert lines[4] == "running:" and "LoRTA r=1, seed 0 on planted: step 4 of 6 saved, for " in lines[5]
    assert lines[6] == "finished last:" and "LoRA r=2, seed 0 on planted: 1,152 parameters, test accuracy" in lines[7]


def test_a_terminal_shows_the_same_counts(half):
    from rich.console import Console

    frame, out = Watch(half).frame(), io.StringIO()
    Console(file=out, width=140).print(drawn(half, frame))
    assert [line for line in text(half, frame).splitlines() if line[0] != "p" and "task" not in line] == [
        line.rstrip()
        for line in out.getvalue().splitlines()
        if line.strip(" ─") and line.split()[0] not in ("task", "planted")
    ]
    assert [line.split()[-4:] for line in out.getvalue().splitlines() if line.split()[:1] == ["planted"]] == [
        ["2", "0", "0", "0"],
        ["0", "0", "1", "1"],
    ]


@pytest.mark.parametrize("name", ["mine [/b]", "[red]mine", r"\[b] :smile:"])
def test_a_name_in_a_terminal_is_no_markup(half, name):
    from rich.console import Console

    frame, out = Watch(half).frame(), io.StringIO()
    rows = tuple(replace(row, method=name, task=f"{name} task") for row in frame.rows)
    Console(file=out, width=140).print(drawn(half, replace(frame, rows=rows)))
    assert out.getvalue().count(f"{name} task") == 2 and out.getvalue().count(name) == 4


def test_looking_changes_nothing_and_takes_no_lock(half, monkeypatch):
    before = {path: path.read_bytes() for path in half.rglob("*") if path.is_file()}
    monkeypatch.setattr(fcntl, "flock", None)
    for _ in range(2):
        Watch(half).frame()
    assert {path: path.read_bytes() for path in half.rglob("*") if path.is_file()} == before


def test_a_run_whose_process_is_gone_waits_to_be_gone_on_with(copy):
    root, work = copy
    ended = subprocess.Popen(["true"])
    ended.wait()
    with (work / "attempts.jsonl").open("a") as file:
        file.write(json.dumps({"event": "started", "time": 0, "pid": ended.pid}) + "\n")
    frame = Watch(root).frame()
    assert (frame.count("running"), frame.count("waiting")) == (0, 2) and frame.seconds_left is None
    assert "step 4 of 6 saved, no process on this machine; the sweep goes on with it" in text(root, frame)


def test_a_finished_sweep_is_over_and_two_that_share_runs_count_them_once(tmp_path):
    sweep(tmp_path, rank=1)
    frame = Watch(tmp_path).frame()
    assert frame.over and frame.total == 2
    sweep(tmp_path, rank=[1, 2])
    frame = Watch(tmp_path).frame()
    assert frame.over and [(row.method, row.finished) for row in frame.rows] == [("lora", 2), ("lorta", 2)]


def test_runs_that_cannot_be_named_yet_are_counted_and_those_that_never_will_be_are_not(tmp_path, monkeypatch):
    real, calls = perform.execute, []

    def execute(config, *arguments, **more):
        calls.append(config)
        if len(calls) == 4:
            raise KeyboardInterrupt
        if config.adapter.method == "lora":
            raise RuntimeError("no luck")
        return real(config, *arguments, **more)

    monkeypatch.setattr(perform, "execute", execute)
    options = {"lr": [1e-3, 1e-2], "seed": [0, 1], **PLAIN}
    with pytest.raises(KeyboardInterrupt):
        sweep(tmp_path, **options)
    shutil.rmtree(tmp_path / ".work")
    frame = Watch(tmp_path).frame()
    assert [(row.method, row.finished, row.failed, row.waiting) for row in frame.rows] == [
        ("lora", 0, 2, 0),
        ("lorta", 1, 0, 1 + 2 * 2),
    ]
    assert frame.notes == ("not run: LoRA on planted: no learning rate gave a result",)
    sweep(tmp_path, **options)
    assert Watch(tmp_path).frame().over


def test_a_folder_that_is_changed_under_it_is_shown_as_far_as_it_can_be_read(copy, monkeypatch):
    root, work = copy
    eye = Watch(root)
    whole = eye.frame()
    record = next(root.glob("sweeps/*.json"))
    for path in (work / "state.safetensors", work / "attempts.jsonl", work / "config.json"):
        for cut in (path.read_bytes()[:-3], path.read_bytes()[:9], b""):
            path.write_bytes(cut)
            assert eye.frame().count("finished") == 2
    shutil.rmtree(work)
    assert (eye.frame().count("running"), eye.frame().count("waiting")) == (0, 2)
    (root / "sweeps" / "other.json").write_text(record.read_text()[:50])
    assert [note[:30] for note in eye.frame().notes] == ["other.json cannot be shown now"]
    gone = done(root)[0].parent
    monkeypatch.setattr(watch, "is_finished", lambda *a: is_finished(*a) or a[1] == gone.name)
    shutil.rmtree(gone)
    frame = Watch(root).frame()
    assert frame.count("finished") == 2 and len(frame.last) == 1 and set(frame.last) < set(whole.last)


def test_what_was_seen_last_stays_while_the_folder_is_away(half, copy, monkeypatch, capsys):
    root, _ = copy

    def away(_):
        away.calls += 1
        if away.calls == 1:
            root.rename(root.with_name("away"))
        elif away.calls == 2:
            root.with_name("away").rename(root)
            assert sweep(root).complete

    away.calls = 0
    monkeypatch.setattr("time.sleep", away)
    show(root, once=False, every=2)
    first, second, third = capsys.readouterr().out.strip().split("\n\n")
    assert f"{root} holds no sweep" in second and second.splitlines()[0] == first.splitlines()[0]
    assert third.startswith(f"{root}: 4 of 4 runs finished\n")


def test_a_terminal_is_shown_each_frame_until_nothing_is_left(copy, monkeypatch, capsys):
    root, _ = copy
    monkeypatch.setattr("time.sleep", lambda _: sweep(root))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    show(root, once=False, every=2)
    shown = "".join(capsys.readouterr().out.split())  # lines are folded to the terminal's width
    assert f"{root}:2of4runsfinished,1running,1waiting" in shown and f"{root}:4of4runsfinished" in shown


@pytest.mark.slow
def test_a_sweep_that_is_watched_all_the_time_ends_as_any_other(tmp_path):
    out = tmp_path / "runs"
    process, seen = start(write_spec(tmp_path, steps=60), out, "--workers", "2", "--checkpoint-every", "5"), []
    while process.poll() is None:
        if list(out.glob("sweeps/*.json")):
            seen.append(Watch(out).frame())
    assert process.returncode == 0 and Watch(out).frame().over
    counts = [frame.count("finished") for frame in seen]
    assert counts == sorted(counts) and all(frame.total == 4 and not frame.notes for frame in seen)
    assert any(one.alive and one.step for frame in seen for one in frame.in_hand)


def test_what_cannot_be_watched_is_refused(tmp_path, half, capsys):
    assert main(["watch", str(tmp_path)]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "holds no sweep; expected the folder that tensoradapt sweep --out names, once it has begun" in said
    assert main(["watch", str(half), "--every", "0"]) == 2
    assert "--every is 0.0; expected a finite number above 0" in capsys.readouterr().err
