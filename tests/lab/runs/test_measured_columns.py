"""What a task measures by name is a column of results, which nothing else lists."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from torch import nn

import tensoradapt as ta
from tensoradapt.lab.tasks.planted import TASK as PLANTED
from tensoradapt.lab.tasks.planted import Planted
from tensoradapt.lab.tasks.task import Measure


class HeadSize:
    """The largest number of a classifier's head; or, where ``missing`` says so, nothing that can be measured."""

    def __init__(self, missing: str = "") -> None:
        self.missing = missing

    def prepare(self) -> None:
        if self.missing:
            raise ta.TensorAdaptError(self.missing)

    def __call__(self, model: nn.Module, name: str, device: str) -> float:
        self.prepare()
        return float(model.get_submodule("classifier").weight.detach().abs().max())


class Weighed(Planted):
    """The planted task, with a measure of the head."""

    name_of_measure, measure = "head_size", HeadSize()

    @property
    def measures(self) -> Mapping[str, Measure]:
        return {self.name_of_measure: self.measure}


TASK = Weighed("weighed", 2, "accuracy", load_splits=PLANTED.load_splits, content="planted, weighed")
SPEC: dict[str, Any] = {"model": "tiny-random-bert", "task": f"{__name__}:TASK", "method": "cp", "reference": "full"}
SPEC |= {"rank": 1, "lr": 1e-2, "seed": [0, 1], "steps": 3, "n_train": 64}


def swept(folder: Path, **changes: Any) -> list[str]:
    """Run the sweep; return what it says."""
    lines: list[str] = []
    ta.sweep({**SPEC, **changes}, folder, executor="inline", probe=False, say=lines.append)
    return lines


def test_what_a_task_measures_is_a_column_of_results_and_of_their_file(tmp_path: Path) -> None:
    swept(tmp_path)
    table = ta.results(tmp_path)
    grown = {run.name: run.result["head_size"] for run in ta.load_runs(tmp_path)}
    assert table["head_size"].tolist() == [grown[name] for name in table["id"]] and (table["head_size"] != 0).all()
    assert table["head_size"].dtype == "float64"
    table.to_csv(tmp_path / "runs.csv", index=False)
    assert ta.results(tmp_path / "runs.csv")["head_size"].tolist() == table["head_size"].tolist()
    assert len(ta.results(tmp_path, where="head_size>1e9")) == 0


def test_runs_that_choose_a_rate_measure_nothing(tmp_path: Path) -> None:
    swept(tmp_path, reference=None, method="cp", lr=[1e-3, 1e-2], seed=0, tuning={"seed": 9, "extend": 0})
    table = ta.results(tmp_path, tuning=True)
    assert table["head_size"].isna().tolist() == table["tuning"].tolist() and table["tuning"].any()


def test_a_measure_that_is_missing_is_said_by_the_sweep_and_by_its_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Weighed, "measure", HeadSize("no scales here"))
    assert "head_size will not be measured: no scales here" in swept(tmp_path)
    table = ta.results(tmp_path)
    assert "head_size" not in table and table["note"].str.contains("head_size was not measured: no scales").all()


def test_a_measure_that_is_called_as_a_column_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Weighed, "name_of_measure", "score")
    swept(tmp_path)
    assert ta.results(tmp_path)["note"].str.contains("'weighed' measures 'score', as another column is called").all()
