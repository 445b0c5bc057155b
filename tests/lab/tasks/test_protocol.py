"""The run loop computes tasks that it does not know: answers of a language model, and preferences."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.configs import config_of, encoded
from support.tasks import answers, preferences

from tensoradapt.lab import tasks
from tensoradapt.lab.runs.batches import batches
from tensoradapt.lab.runs.config import RunConfig
from tensoradapt.lab.runs.execute import execute, load_data, prepare

FILES = Path(__file__).parents[2] / "support" / "tasks"


@pytest.fixture(autouse=True)
def two_more_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "__path__", [*tasks.__path__, str(FILES)])
    for module in (answers, preferences):
        monkeypatch.setitem(sys.modules, f"tensoradapt.lab.tasks.{module.__name__.rpartition('.')[2]}", module)


def config(task: str, **more: object) -> RunConfig:
    sizes: dict[str, Any] = {"rank": 4, "batch": 16, "steps": 60, "lr": 1e-2, "n_train": 150, "n_test": 50, **more}
    return config_of("made here", task, "lora", **sizes)


@pytest.mark.thorough
def test_a_language_model_is_trained_on_answers_alone() -> None:
    run = config("answers")
    data = load_data(run)
    model, _ = prepare(data.task, run)
    batch = next(batches(data.task, model, encoded(data.train, run), run.data.batch, run.seed, "cpu"))
    assert (batch["labels"] != -100).sum() == 16
    model.eval()
    with torch.no_grad():
        assert tasks.get("answers").loss(model, batch) == pytest.approx(float(answers.by_hand(model, batch)), rel=1e-5)
    parts = execute(run, "cpu")
    result, predictions, labels = parts["result"], parts["arrays"]["predictions"], parts["arrays"]["labels"]
    assert parts["arrays"]["losses"][-10:].mean() < 0.5 * parts["arrays"]["losses"][0]
    assert result["test"]["accuracy"] == (predictions.argmax(1) == labels).mean()
    assert predictions.shape == (50, 2) and (predictions < 0).all()
    assert result["test"]["loss"] == pytest.approx(-predictions[np.arange(50), labels].mean(), rel=1e-5)


@pytest.mark.thorough
def test_preference_pairs_are_learned_against_the_frozen_base() -> None:
    parts = execute(config("preferences"), "cpu")
    assert parts["result"]["status"] == "finished" and parts["result"]["test"]["accuracy"] > 0.9
    assert parts["arrays"]["predictions"].shape == (50,) and parts["arrays"]["losses"][0] == pytest.approx(np.log(2))
