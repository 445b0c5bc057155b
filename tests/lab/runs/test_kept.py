"""A sweep keeps adapters beside its runs: which, how they load, and that no result depends on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.sweeping import TINY

import tensoradapt as ta
from tensoradapt.lab.runs.batches import predict
from tensoradapt.lab.runs.config import RunConfig
from tensoradapt.lab.runs.execute import load_data
from tensoradapt.lab.runs.kept import path_of
from tensoradapt.lab.runs.store import Run
from tensoradapt.lab.sweeps.spec import read_spec

SPEC = {**TINY, "method": ["cp", "lora"], "rank": [1, 2], "seed": [0, 1, 2], "steps": 5}


def sweep(out: Path, **more: Any) -> list[Run]:
    ta.sweep({**SPEC, **more}, out, executor="inline", device="cpu", probe=False, say=lambda line: None)
    return ta.load_runs(out)


def is_kept(out: Path, run: Run) -> bool:
    return (path_of(out, RunConfig.from_dict(run.config)) / "adapter.json").is_file()


def predictions(run: Run, trained: Any) -> np.ndarray:
    data = load_data(trained.config)
    rows = data.task.encode(data.test, trained.config.model, trained.config.data.max_length)
    return predict(trained.task, trained.model, rows, "cpu")


@pytest.mark.thorough
def test_of_each_method_and_size_the_best_on_validation_is_kept_and_has_its_predictions(tmp_path: Path) -> None:
    cells: dict[tuple[Any, Any], list[Run]] = {}
    for run in sweep(tmp_path, lr=[1e-3, 4e-3]):
        if run.row["kind"] == "adapter" and not run.config["tuning"]:
            cells.setdefault((run.row["method"], run.row["rank"]), []).append(run)
    assert len(cells) == 4 and all(len(runs) == 3 for runs in cells.values())
    assert len(list((tmp_path / "adapters").glob("*/*"))) == 4
    for runs in cells.values():
        (kept,) = (run for run in runs if is_kept(tmp_path, run))
        scores = {run.name: run.result["validation"]["accuracy"] for run in runs}
        assert scores[kept.name] == max(scores.values())
        trained = ta.load_run(tmp_path, kept)
        assert not trained.model.training and trained.adapter is not None
        np.testing.assert_allclose(predictions(kept, trained), kept.array("predictions"), atol=1e-6)


@pytest.mark.thorough
def test_a_run_is_trained_again_to_the_bit(tmp_path: Path) -> None:
    runs = [run for run in sweep(tmp_path, seed=0, rank=2) if run.row["kind"] == "adapter"]
    for run in runs:
        first, again = ta.load_run(tmp_path, run.name), ta.train(run.config)
        assert first.adapter is not None and again.adapter is not None
        for one, other in zip(first.model.parameters(), again.model.parameters(), strict=True):
            assert torch.equal(one, other)
        assert torch.equal(first.adapter.tensors[0].full(), again.adapter.tensors[0].full())


@pytest.mark.parametrize(("keep", "n"), [("all", 2), ("none", 0)])
def test_all_or_none_are_kept_and_no_result_depends_on_it(tmp_path: Path, keep: str, n: int) -> None:
    runs = sweep(tmp_path, method="cp", rank=1, seed=[0, 1], keep=keep)
    assert sum(is_kept(tmp_path, run) for run in runs) == n
    assert read_spec({**SPEC, "keep": keep}).id == read_spec(SPEC).id
    with pytest.raises(ta.TensorAdaptError, match=r"keep is 'last'\. Valid: best, all, none"):
        read_spec({**SPEC, "keep": "last"})
