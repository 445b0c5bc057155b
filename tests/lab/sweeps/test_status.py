"""The state of a folder of runs: what is counted is what is there, and nothing is changed by looking."""

from __future__ import annotations

import fcntl
import json
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


def test_looking_changes_nothing_and_takes_no_lock(half: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path: path.read_bytes() for path in half.rglob("*") if path.is_file()}
    monkeypatch.setattr(fcntl, "flock", None)
    status(half)
    assert {path: path.read_bytes() for path in half.rglob("*") if path.is_file()} == before


def test_a_run_whose_process_is_gone_waits_to_be_gone_on_with(copy: tuple[Path, Path]) -> None:
    root, work = copy
    leave(work)
    assert counts(root)[1] == ("lorta", 0, 0, 0, 2) and status(root)["seconds_left"].isna().all()


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
