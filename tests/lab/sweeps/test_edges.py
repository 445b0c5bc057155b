"""Cells whose best rate is the lowest or highest that was tried are named by the sweep, its tables and its report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.sweeping import sweep

import tensoradapt as ta
from tensoradapt.lab.analysis.rates import at_edges
from tensoradapt.lab.cli.main import main
from tensoradapt.lab.runs.config import RunConfig

GRID = {"lr": [1e-3, 3e-3, 1e-2], "method": ["lora", "lorta"], "rank": [1, 2]}
HIGH = "LoRA r=1 on planted (lr 0.01, the highest tried)"
LOW = "LoRTA r=2 on planted (lr 0.001, the lowest tried)"
LINE = f"best rate at the edge: {HIGH}; {LOW}: a better one may lie beyond, so try further rates there"


def score(config: RunConfig) -> float:
    """Best at the highest rate of LoRA r=1, the lowest of LoRTA r=2, and the middle one of others."""
    assert config.adapter is not None
    best = {("lora", 1): 1e-2, ("cp", 2): 1e-3, ("lorta", 2): 1e-3}.get(
        (config.adapter.method, config.adapter.rank), 3e-3
    )
    return 0.9 - abs(config.training.lr - best)


@pytest.mark.thorough
def test_a_sweep_ends_with_the_cells_whose_best_rate_is_at_an_edge(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = sweep(tmp_path, score, **GRID, tuning={"seed": [7], "extend": 0})
    assert said[-1] == LINE
    assert at_edges(ta.results(tmp_path, tuning=True)) == [HIGH, LOW]
    for more in ([], ["--means"], ["--compare"]):
        assert main(["results", str(tmp_path), *more]) == 0
        assert LINE in " ".join(capsys.readouterr().out.split())
    assert main(["results", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["at_edge"] == [HIGH, LOW]
    assert f"Best rate at the edge: {HIGH}" in ta.report(tmp_path).read_text()
