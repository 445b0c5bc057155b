"""A run stores what each test example adds to its reported metric: the mean is the score, of a lost run chance."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.configs import config_of
from support.tasks import answers, preferences

from tensoradapt.lab import tasks
from tensoradapt.lab.analysis.results import frame
from tensoradapt.lab.analysis.statistics.examples import paired_scores
from tensoradapt.lab.runs.execute import execute
from tensoradapt.lab.runs.store import Run, read_run, write_run
from tensoradapt.lab.tasks import registry

SHARED: dict[str, Any] = {"seed": 0, "model": "tiny-random-bert", "steps": 2, "batch": 8}


def run(root: Path, kind: str, task: str, lr: float, **more: Any) -> Run:
    """A run as another process reads it."""
    config = config_of(task=task, kind=kind, lr=lr, **{**SHARED, **more})
    return read_run(write_run(root, config.name, **execute(config, "cpu"), provenance={}))


@pytest.fixture
def ratings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A regression of own data, whose name is that of its file."""
    monkeypatch.chdir(tmp_path)
    rows = [{"text": f"number {i}", "label": i % 17 / 7} for i in range(200)]
    Path("ratings.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return "ratings.jsonl"


def score(one: Run) -> float:
    """The score of a run in tables, which is chance where it diverged."""
    return float(frame([one])["score"].iloc[0])


def test_the_mean_of_the_stored_scores_is_the_score(tmp_path: Path, ratings: str) -> None:
    task, record = registry.resolve(ratings)
    found = [
        run(tmp_path, "head", "planted", 1e-2),
        run(tmp_path, "head", task.name, 1e-2, own=record),
        run(tmp_path, "full", "planted", 1e30, steps=6),
    ]
    assert [one.result["status"] == "diverged" for one in found] == [False, False, True]
    for one in found:
        scores = one.array("scores")
        assert scores.shape == one.array("labels").shape and scores.mean() == pytest.approx(score(one), abs=1e-12)
    assert score(found[2]) == found[2].row["chance"]
    pair = paired_scores([(found[0].path, found[2].path)])
    assert pair is not None and np.array_equal(pair[0][0], found[0].array("scores"))


def test_a_run_that_chooses_a_rate_does_not_look_at_test_examples(tmp_path: Path) -> None:
    """All else is to the bit that of the run which is reported."""
    sizes = {"n_validation": 24, "n_test": 40}
    tuning, reported = (run(tmp_path, "head", "planted", 1e-2, tuning=flag, **sizes) for flag in (True, False))
    assert tuning.result["test"] == {} and math.isnan(score(tuning))
    assert tuning.array("labels").shape == (24,) and reported.array("labels").shape == (40,)
    accuracy = (tuning.array("predictions").argmax(1) == tuning.array("labels")).mean()
    assert tuning.result["validation"] == reported.result["validation"] == {"accuracy": pytest.approx(accuracy)}
    assert tuning.array("scores").mean() == pytest.approx(accuracy)
    assert np.array_equal(tuning.array("losses"), reported.array("losses"))


@pytest.mark.parametrize("module", [answers, preferences])
def test_the_same_holds_of_a_task_of_ones_own(module: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (name,) = module.TASKS
    monkeypatch.setattr(tasks, "_tasks", lambda: dict(module.TASKS))
    adapter = {"adapter": "lora", "layout": (": out : in",), "rank": 2, "model": "tiny"}
    one = run(tmp_path, "adapter", name, 1e-3, **adapter)
    assert one.array("scores").mean() == pytest.approx(score(one), abs=1e-12)
    assert (one.row["metric_low"], one.row["metric_high"]) == (0.0, 1.0)
