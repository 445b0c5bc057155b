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

import tensoradapt as ta
from tensoradapt.errors import TensorAdaptError
from tensoradapt.lab.data import assets
from tensoradapt.lab.runs import forgetting
from tensoradapt.lab.runs.config import RunConfig
from tensoradapt.lab.runs.execute import execute
from tensoradapt.lab.runs.row import row_of
from tensoradapt.lab.sweeps.messages import forgetting_text
from tensoradapt.lab.sweeps.spec import read_spec
from tensoradapt.lab.tasks.language.instruct import Instruct
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


def run(model: str, **settings: Any) -> dict[str, Any]:
    sizes = {"rank": 4, "batch": 8, "steps": 10, "lr": 2e-2, "max_length": 160, **settings}
    return execute(config_of(model, "said", "lora", own=resolve(f"{__name__}:TASK")[1], **sizes), "cpu")


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


def test_a_run_that_chooses_a_rate_measures_none(model: str, text: None) -> None:
    result = run(model, tuning=True)["result"]
    assert "forgetting" not in result and not result["note"]


def test_of_an_adapter_that_does_not_start_at_zero_the_base_is_without_it(model: str, text: None) -> None:
    config = config_of(model, "said", "lora", own=resolve(f"{__name__}:TASK")[1], rank=4, batch=8, steps=1, lr=1e-9)
    assert config.adapter is not None
    moved = execute(replace(config, adapter=replace(config.adapter, start="pissa")), "cpu")["result"]["forgetting"]
    assert abs(moved) < 1e-4
    assert abs(execute(config, "cpu")["result"]["forgetting"]) < 1e-4


def test_without_the_text_a_run_is_whole_and_says_so(
    model: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TENSORADAPT_CACHE", str(tmp_path / "empty"))
    forgetting.windows.cache_clear()
    result = run(model, steps=2)["result"]
    assert "forgetting" not in result and result["status"] in ("finished", "at chance")
    assert "forgetting was not measured: the general text is not in the cache" in result["note"]


@pytest.mark.slow
def test_a_real_model_expects_the_text_of_the_archive() -> None:
    name = "smollm2-135m-instruct"
    assets.fetch(assets.GENERAL_TEXT)
    forgetting.windows.cache_clear()
    assert len(forgetting.text()) == 399_293
    loss = forgetting.general_loss(TASK.model(name), forgetting.windows(name), "cpu")
    assert 3.5 < loss < 4.5  # a guess among all tokens has 10.8


def test_a_sweep_fetches_the_text_for_causal_models_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr(assets, "fetch", asked.append)
    common = {"method": "lora", "rank": 2, "lr": 1e-3, "seed": 0, "steps": 3}
    spec = read_spec({"model": "tiny-random-bert", "task": "planted", **common})
    assert forgetting_text(spec) == "" and asked == []
    causal = read_spec({"model": "tiny-random-llama", "task": f"{__name__}:TASK", **common})
    assert forgetting_text(causal) == "" and asked == ["general-text"]

    def refuse(_: object) -> None:
        raise TensorAdaptError("no index")

    monkeypatch.setattr(assets, "fetch", refuse)
    assert forgetting_text(causal) == "forgetting will not be measured: no index"


def runs(**changed: Any) -> pd.DataFrame:
    made = [
        {"method": method, "rank": rank, "seed": seed, "n_params": 1000 * rank, "score": score + 0.01 * seed}
        | {"forgetting": lost + 0.002 * seed, **changed}
        for method, rank, score, lost in (("lora", 1, 0.80, 0.03), ("lora", 8, 0.84, 0.08), ("cp", 8, 0.83, 0.01))
        for seed in range(3)
    ]
    return pd.DataFrame(made)


def test_the_figure_has_means_and_intervals_of_both() -> None:
    rows = figure.rows(runs())
    assert rows[["method", "rank"]].to_numpy().tolist() == [["cp", 8], ["lora", 1], ["lora", 8]]
    np.testing.assert_allclose(rows["forgetting"], [0.012, 0.032, 0.082])
    found = ta.statistics.t_interval([0.01, 0.012, 0.014])
    assert (rows["forgetting_low"].iloc[0], rows["forgetting_high"].iloc[0]) == pytest.approx((found.low, found.high))
    assert rows["on_frontier"].tolist() == [True, False, True]
    assert figure.headline(rows) == (
        "LoRA r=8 has the best mean, at a forgetting of 0.082 nats a token; of those whose intervals overlap with its "
        "own CP r=8 has the least, 0.012"
    )


def test_runs_without_the_column_are_refused() -> None:
    with pytest.raises(TensorAdaptError, match="no run has measured what it forgets"):
        ta.plots.forgetting(runs().drop(columns="forgetting"))
    with pytest.raises(TensorAdaptError, match="no run has measured what it forgets"):
        ta.plots.forgetting(runs(forgetting=np.nan))
