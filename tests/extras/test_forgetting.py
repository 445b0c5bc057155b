"""What a causal model forgets of general text: the loss against transformers' own, in runs, and its figure."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from support.chat_models import numbered, saved_chat_model
from support.configs import config_of

from tensoradapt.extras import forgetting
from tensoradapt.extras.answers.instruct import Instruct
from tensoradapt.lab.data import assets
from tensoradapt.lab.runs.config import RunConfig
from tensoradapt.lab.runs.execute import execute
from tensoradapt.lab.runs.row import row_of
from tensoradapt.lab.tasks.registry import resolve

figure = importlib.import_module("tensoradapt.lab.analysis.plots.forgetting")


TASK = Instruct("said", numbered, content="sixty sentences")


@pytest.fixture
def model(tmp_path: Path) -> str:
    return saved_chat_model(tmp_path / "model")


@pytest.fixture
def text(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    sentences = " ".join(f"In the year {1000 + i} there were {i} ships and {7 * i} sailors." for i in range(400))
    monkeypatch.setattr(forgetting, "text", lambda: sentences)
    forgetting.windows.cache_clear()
    yield
    forgetting.windows.cache_clear()


def test_the_loss_is_that_of_transformers_and_the_mode_stays(model: str, text: None) -> None:
    made, ids = TASK.model(model), forgetting.windows(model)
    assert ids.shape == (forgetting.WINDOWS, forgetting.LENGTH) and len(torch.unique(ids, dim=0)) == len(ids)
    expected = np.mean([made.eval()(input_ids=row[None], labels=row[None]).loss.item() for row in ids])
    made.train()
    assert forgetting.general_loss(made, ids, "cpu") == pytest.approx(expected, abs=1e-5) and made.training


@pytest.mark.parametrize("kind", ["adapter", "full"])
def test_a_run_reports_the_change_from_its_base(
    model: str, text: None, monkeypatch: pytest.MonkeyPatch, kind: str, tmp_path: Path
) -> None:
    losses: list[float] = []
    measure = forgetting.general_loss
    monkeypatch.setattr(forgetting, "general_loss", lambda *args: losses.append(measure(*args)) or losses[-1])
    config = config_of(model, "said", "lora", own=resolve(f"{__name__}:TASK")[1], rank=4, batch=8, steps=10, lr=2e-2)
    parts = execute(config if kind == "adapter" else _full(config), "cpu")
    base = measure(TASK.model(model), forgetting.windows(model), "cpu")
    assert losses[0] == base and len(losses) == 2
    assert parts["result"]["forgetting"] == losses[1] - losses[0] and abs(losses[1] - losses[0]) > 1e-3
    written = parts["result"] | {"metric": parts["result"]["metric"] | {"low": None}}  # as JSON has no infinity
    assert row_of(tmp_path, config, written, parts["measurements"])["forgetting"] == losses[1] - losses[0]


def _full(config: RunConfig) -> RunConfig:
    return replace(config, kind="full", adapter=None, method="full")


@pytest.mark.slow
def test_a_real_model_expects_the_text_of_the_archive() -> None:
    name = "smollm2-135m-instruct"
    assets.fetch(forgetting.TEXT)
    forgetting.windows.cache_clear()
    assert len(forgetting.text()) == 399_293
    loss = forgetting.general_loss(TASK.model(name), forgetting.windows(name), "cpu")
    assert 3.5 < loss < 4.5  # a guess among all tokens has 10.8


def runs(**changed: Any) -> pd.DataFrame:
    made = [
        {"method": method, "rank": rank, "seed": seed, "n_params": 1000 * rank, "score": score + 0.01 * seed}
        | {"forgetting": lost + 0.002 * seed, **changed}
        for method, rank, score, lost in (("lora", 1, 0.80, 0.03), ("lora", 8, 0.84, 0.08), ("cp", 8, 0.83, 0.01))
        for seed in range(3)
    ]
    return pd.DataFrame(made)
