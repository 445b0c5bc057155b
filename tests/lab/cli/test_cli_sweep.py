"""The command ``tensoradapt sweep``: the plan first, exit codes, and how to go on."""

from __future__ import annotations

import pytest
from support.sweeping import done, write_spec

from tensoradapt.lab.cli.main import main
from tensoradapt.lab.runs import perform

INLINE = ["--executor", "inline", "--device", "cpu"]


def command(tmp_path, *more, **changes):
    return ["sweep", str(write_spec(tmp_path, **changes)), "--out", str(tmp_path / "runs"), *INLINE, *more]


@pytest.mark.thorough
def test_a_sweep_prints_its_plan_then_each_run_and_returns_zero(tmp_path, capsys):
    assert main(command(tmp_path, "--dry-run")) == 0 and not (tmp_path / "runs").exists()
    planned = capsys.readouterr().out.splitlines()
    assert main(command(tmp_path)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == planned[0] and lines[0].endswith("4 runs, 4 of them to do")
    assert sum(line.startswith("[") for line in lines) == 4
    end = next(lines[i:] for i, line in enumerate(lines) if line.startswith("4 of 4 runs are finished"))
    assert end[2].startswith("planted: ") and end[4].startswith("method")
    assert f"tensoradapt report {tmp_path / 'runs'}" in end[-2]
    assert main(command(tmp_path)) == 0
    assert capsys.readouterr().out.splitlines() == end


def test_a_plan_without_a_probe_computes_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(perform, "execute", None)
    monkeypatch.setattr("tensoradapt.lab.sweeps.cost._probed", None)
    assert main(command(tmp_path, "--dry-run", "--no-probe")) == 0
    assert "time and disk are known when the first run is done" in capsys.readouterr().out


def test_budgets_show_what_was_reached_and_which_cells_are_empty(tmp_path, capsys):
    lines = ['model = "tiny-random-bert"', 'task = "planted"', 'method = ["lora", "lorta"]', "steps = 2"]
    lines += ["budget = [100, 600]", "lr = 1e-3", "seed = 0"]
    (tmp_path / "budgets.toml").write_text("\n".join(lines))
    assert main(["sweep", str(tmp_path / "budgets.toml"), "--out", str(tmp_path / "runs"), "--dry-run", *INLINE]) == 0
    shown = capsys.readouterr().out
    assert "LoRA    n≤600  576         96.0 %" in shown
    assert "empty: LoRA, n≤100: method lora: budget 100 is below the smallest possible: rank 1 takes 576" in shown
    assert "2 methods, 3 cells, seed 0: 3 runs" in shown


@pytest.mark.thorough
def test_a_stop_says_how_to_go_on_and_returns_one(tmp_path, capsys, monkeypatch):
    calls = []

    def stop(*arguments, **options):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    real = perform.execute
    monkeypatch.setattr(perform, "execute", stop)
    assert main(command(tmp_path)) == 1
    assert "stopped; the same command goes on from what is in" in capsys.readouterr().err
    assert len(done(tmp_path / "runs")) == 1
    monkeypatch.undo()
    assert main(command(tmp_path)) == 0 and len(done(tmp_path / "runs")) == 4


@pytest.mark.thorough
def test_a_failed_run_is_named_and_returns_one(tmp_path, capsys, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("no luck")

    monkeypatch.setattr(perform, "execute", fail)
    assert main(command(tmp_path)) == 1
    shown = capsys.readouterr().out
    assert shown.count("FAILED (RuntimeError): no luck") == 4 and "run it again with --retry-failed" in shown
    monkeypatch.undo()
    assert main(command(tmp_path, "--retry-failed")) == 0


@pytest.mark.parametrize(
    ("changes", "more", "says"),
    [
        ({"modle": 1}, [], 'unknown key modle; did you mean "model"'),
        ({"model": "tiny-random-bart"}, [], "unknown model 'tiny-random-bart'"),
        ({"rank": 100}, [], "the adapter would have"),
        ({}, ["--stale", "never"], "stale is 'never'"),
    ],
)
def test_bad_input_is_one_block_before_anything_is_written_and_returns_two(changes, more, says, tmp_path, capsys):
    assert main(command(tmp_path, *more, **changes)) == 2
    assert says in " ".join(capsys.readouterr().err.split()) and not (tmp_path / "runs").exists()
