"""The state of a folder of runs: what is counted is what is there, and nothing is changed by looking."""

from __future__ import annotations

import fcntl
import json
import math
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from support.sweeping import TINY, done, start, write_spec

import tensoradapt as ta
from tensoradapt.lab.cli.main import main
from tensoradapt.lab.runs import perform
from tensoradapt.lab.sweeps.status import status

PLAIN = {"tuning": {"at": "method", "seed": 1000, "extend": 0}}


def sweep(out: Path, checkpoint_every: int = 25, **changes: Any) -> Any:
    how: Any = {"executor": "inline", "device": "cpu", "say": lambda _: None, "checkpoint_every": checkpoint_every}
    return ta.sweep({**TINY, "steps": 6, **changes}, out, **how)


def counts(folder: Path) -> list[tuple[Any, ...]]:
    """Method, finished, failed, running and waiting of each row."""
    columns = ["method", "finished", "failed", "running", "waiting"]
    return [tuple(row) for row in status(folder)[columns].itertuples(index=False)]


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of four runs that was stopped in its third, after the fifth of six steps."""
    out, real, calls = tmp_path_factory.mktemp("half") / "runs", perform.execute, []

    def stop(config: Any, device: Any, on_step: Any, checkpoint: Any) -> Any:
        def stopping(step: int, loss: float) -> None:
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
def copy(half: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A copy of the stopped sweep, with the work of its third run."""
    shutil.copytree(half, tmp_path / "runs")
    (found,) = (path for path in (tmp_path / "runs" / ".work").iterdir() if (path / "attempts.jsonl").exists())
    return tmp_path / "runs", found


def leave(work: Path) -> None:
    """Note an attempt of a process that has ended."""
    ended = subprocess.Popen(["true"])
    ended.wait()
    with (work / "attempts.jsonl").open("a") as file:
        file.write(json.dumps({"event": "started", "time": 0, "pid": ended.pid}) + "\n")


def test_what_is_counted_is_what_is_there(half: Path) -> None:
    assert counts(half) == [("lora", 2, 0, 0, 0), ("lorta", 0, 0, 1, 1)]
    seconds = [json.loads((path.parent / "measurements.json").read_text())["seconds"] for path in done(half)]
    left = status(half)["seconds_left"]
    assert left[0] == 0 and left.sum() == pytest.approx(sum(seconds) / 2 * (1 + 1 - 4 / 6)), "4 of 6 steps are saved"


def test_the_command_prints_a_line_and_a_table(
    half: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")  # as watch sets it
    assert main(["results", str(half), "--status"]) == 0
    head, _, *lines = capsys.readouterr().out.splitlines()
    assert head.startswith("2 of 4 runs finished, 1 running, 1 waiting; about ") and len(head) <= 60
    assert [line.split()[:5] for line in lines] == [
        ["method", "finished", "failed", "running", "waiting"],
        ["LoRA", "2", "0", "0", "0"],
        ["LoRTA", "0", "0", "1", "1"],
    ]
    assert main(["results", str(half), "--status", "--out", str(tmp_path / "t.csv")]) == 0
    assert (tmp_path / "t.csv").read_text().startswith("task,method,finished,failed,running,waiting,seconds_left\n")


def test_one_sweep_of_several_is_counted_alone(copy: tuple[Path, Path], tmp_path: Path) -> None:
    root, _ = copy
    sweep(root, method="vera")
    assert len(counts(root)) == 3
    assert list(status(root, write_spec(tmp_path, steps=6, method="vera"))["method"]) == ["vera"]
    with pytest.raises(ta.TensorAdaptError, match=r"has no sweep of .*spec\.toml on record"):
        status(root, write_spec(tmp_path, steps=7))


def test_looking_changes_nothing_and_takes_no_lock(half: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path: path.read_bytes() for path in half.rglob("*") if path.is_file()}
    monkeypatch.setattr(fcntl, "flock", None)
    status(half)
    assert {path: path.read_bytes() for path in half.rglob("*") if path.is_file()} == before


def test_a_run_whose_process_is_gone_waits_to_be_gone_on_with(copy: tuple[Path, Path]) -> None:
    root, work = copy
    leave(work)
    assert counts(root)[1] == ("lorta", 0, 0, 0, 2) and status(root)["seconds_left"].isna().all()


@pytest.mark.parametrize(("last", "running"), [("", 1), ("17", 1), ("cancelled", 0), ("refused", 0)])
def test_a_run_of_a_job_runs_elsewhere_until_its_job_is_cancelled(
    copy: tuple[Path, Path], last: str, running: int
) -> None:
    root, work = copy
    leave(work)
    (work / "ticket.9").write_text("key\nrefused\n")
    (work / "ticket.10").write_text(f"key\n{last}\n")
    assert counts(root)[1] == ("lorta", 0, 0, running, 2 - running)


def test_two_sweeps_that_share_runs_count_them_once(tmp_path: Path) -> None:
    sweep(tmp_path, rank=1)
    assert counts(tmp_path) == [("lora", 1, 0, 0, 0), ("lorta", 1, 0, 0, 0)]
    sweep(tmp_path, rank=[1, 2])
    assert counts(tmp_path) == [("lora", 2, 0, 0, 0), ("lorta", 2, 0, 0, 0)]


def test_runs_that_cannot_be_named_yet_are_counted_and_those_that_never_will_be_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = perform.execute, []

    def execute(config: Any, *arguments: Any, **more: Any) -> Any:
        calls.append(config)
        if len(calls) == 4:
            raise KeyboardInterrupt
        if config.adapter.method == "lora":
            raise RuntimeError("no luck")
        return real(config, *arguments, **more)

    monkeypatch.setattr(perform, "execute", execute)
    with pytest.raises(KeyboardInterrupt):
        sweep(tmp_path, lr=[1e-3, 1e-2], seed=[0, 1], **PLAIN)
    shutil.rmtree(tmp_path / ".work")
    assert counts(tmp_path) == [("lora", 0, 2, 0, 0), ("lorta", 1, 0, 0, 1 + 2 * 2)]
    assert status(tmp_path).attrs["notes"] == ["not run: LoRA on planted: no learning rate gave a result"]


def test_a_folder_that_is_changed_under_it_is_counted_as_far_as_it_can_be_read(copy: tuple[Path, Path]) -> None:
    root, work = copy
    record = next(root.glob("sweeps/*.json"))
    for path in (work / "state.safetensors", work / "attempts.jsonl", work / "config.json"):
        for cut in (path.read_bytes()[:-3], path.read_bytes()[:9], b""):
            path.write_bytes(cut)
            assert counts(root)[0][1] == 2
    shutil.rmtree(work)
    assert counts(root)[1] == ("lorta", 0, 0, 0, 2)
    (root / "sweeps" / "other.json").write_text(record.read_text()[:50])
    assert [note[:30] for note in status(root).attrs["notes"]] == ["other.json cannot be shown now"]
    for path in done(root):
        (path.parent / "measurements.json").write_text('{"seconds": "x"}')
    assert math.isnan(status(root)["seconds_left"].sum(min_count=1))


@pytest.mark.slow
def test_a_sweep_that_is_looked_at_all_the_time_ends_as_any_other(tmp_path: Path) -> None:
    out = tmp_path / "runs"
    process, seen = start(write_spec(tmp_path, steps=60), out, "--workers", "2", "--checkpoint-every", "5"), []
    while process.poll() is None:
        if list(out.glob("sweeps/*.json")):
            seen.append(status(out))
    assert process.returncode == 0
    finished = [int(table["finished"].sum()) for table in (*seen, status(out))]
    assert finished == sorted(finished) and finished[-1] == 4 and any(table["running"].any() for table in seen)


def test_a_folder_without_a_sweep_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["results", str(tmp_path), "--status"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "holds no sweep; expected the folder that tensoradapt sweep --out names, once it has begun" in said
