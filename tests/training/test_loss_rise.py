"""A loss that rises to a multiple of its first is said with the rate to try; one that is no number, at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.sweeping import TINY

import tensoradapt as ta
from tensoradapt.lab.runs.store import load_runs
from tensoradapt.lab.sweeps.report import report
from tensoradapt.training.loss_rise import TIMES, rise

RATES = {"head rate": 0.06, "learning rate": 2e-3}


@pytest.mark.parametrize(
    "losses",
    [
        [],
        [0.7],
        [0.7, 0.6],
        [0.7, 0.72, 0.9, 0.6, 0.3],
        [0.7, 0.6, 5.0, 0.6, 0.5],  # one odd batch
        [2.0, TIMES * 2.0, TIMES * 2.0, TIMES * 2.0],  # not above
        [0.0, 1.0, 1.0, 1.0],  # no multiple of nothing
    ],
)
def test_a_loss_that_did_not_rise_is_not_said(losses: list[float]) -> None:
    assert rise(losses, RATES) == ""


def test_a_loss_that_rose_is_said_with_the_rates_to_try() -> None:
    assert rise([2.4, 9.0, 40.0, 78.0, 60.0, 3.0], {"head rate": 0.06}) == (
        "loss rose from 2.4 to 78 in 3 steps: head rate 0.06 is too high; try 0.006"
    )
    assert rise([0.7, 30.0], RATES) == (  # the last before it was no number
        "loss rose from 0.7 to 30 in 1 step: head rate 0.06 or learning rate 0.002 is too high; try 0.006, then 0.0002"
    )


@pytest.mark.thorough
def test_a_run_says_so_in_its_line_its_note_and_the_report(tmp_path: Path) -> None:
    said: list[str] = []
    spec = {**TINY, "method": "lora", "rank": 1, "reference": "full", "steps": 8}
    ta.sweep({**spec, "head_lr": 50.0}, tmp_path, executor="inline", say=said.append, probe=False)
    notes = {run.row["kind"]: run.result["note"] for run in load_runs(tmp_path)}
    assert "head rate 50 or learning rate" in notes["full"] and "loss rose from 0." in notes["full"]
    assert "head rate 50 or learning rate 0.001 is too high; try 5, then 0.0001" in notes["adapter"]
    for note in notes.values():
        assert any(note in line for line in said), "the terminal"
        assert note in report(tmp_path, tmp_path / "report.html").read_text(), "the report"
