"""The command ``tensoradapt sweep``: the plan first, exit codes, and how to go on."""

from __future__ import annotations

import pytest
from support.sweeping import write_spec

from tensoradapt.lab.cli.main import main

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
