"""The bar of ``fit``: what it shows in a terminal, and all that shows none."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.terminals import written
from torch import nn

import tensoradapt as ta
from tensoradapt.lab.runs.config import DataSpec, RunConfig
from tensoradapt.lab.runs.execute import execute
from tensoradapt.planning.spec import AdapterSpec
from tensoradapt.training.fit import FitResult
from tensoradapt.training.options import Training
from tensoradapt.training.state import TrainingState

STEPS = 30
DATA = DataSpec(n_train=64, n_validation=32, n_test=32)


def squared(model: nn.Module, batch: Any) -> torch.Tensor:
    return model(batch).square().mean()


def fit(steps: int = STEPS, **options: Any) -> FitResult:
    torch.manual_seed(0)
    model = nn.Linear(4, 2)
    return ta.fit(model, [torch.ones(3, 4)] * steps, lr=1e-2, steps=steps, **{"loss": squared, **options})


def shown(work: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> tuple[str, Any]:
    """What some work writes to stderr where that is a terminal, and its result."""
    with written(columns=100) as (terminal, seen), monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", terminal)
        result = work()
    return seen[0], result


def test_a_terminal_shows_steps_their_rate_and_the_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    text, result = shown(fit, monkeypatch)
    last = text.rstrip().splitlines()[-1].split("\r")[-1]
    assert re.search(rf"^fit: 100%.* {STEPS}/{STEPS} .*it/s, loss {result.losses[-1]:.4g}\]", last), last
    assert max(map(len, re.split(r"[\r\n]+", text))) <= 100


@pytest.mark.parametrize("stream", [None, io.StringIO()])
def test_nothing_is_shown_without_a_terminal(stream: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    assert fit().status == "finished"
    assert stream is None or not stream.getvalue()


def test_nothing_is_shown_where_it_is_not_wanted_and_by_other_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(lambda: fit(progress=False), monkeypatch)[0] == ""
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    assert shown(fit, monkeypatch)[0] == ""


def test_a_run_of_a_sweep_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    config = RunConfig("tiny-random-bert", "planted", Training(1e-3, 3), adapter=AdapterSpec("lora", rank=1), data=DATA)
    text, files = shown(lambda: execute(config, "cpu"), monkeypatch)
    assert len(files["arrays"]["losses"]) == 3 and "fit:" not in text


def test_on_step_is_told_the_same_with_a_bar_as_without(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, float]] = []
    _, result = shown(lambda: fit(on_step=lambda *step: told.append(step)), monkeypatch)
    assert told == [*enumerate(result.losses, 1)] and result.losses == fit().losses


def test_a_training_that_goes_on_is_shown_from_its_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = TrainingState(tmp_path / "state", every=20)
    first, _ = shown(lambda: fit(checkpoint=state), monkeypatch)
    again, _ = shown(lambda: fit(checkpoint=state), monkeypatch)
    assert f" 0/{STEPS} " in first and f"{STEPS}/{STEPS}" in again and state.resumed == 20


def test_what_is_refused_shows_no_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused() -> None:
        with pytest.raises(ta.TensorAdaptError, match="on_step is 3; expected a"):
            fit(on_step=3)
        with pytest.raises(ta.TensorAdaptError, match="progress is 'no'; expected true or false"):
            fit(progress="no")
        with pytest.raises(ta.TensorAdaptError, match="batches is 3"):
            ta.fit(nn.Linear(1, 1), 3, lr=1.0, steps=2)  # type: ignore[arg-type]

    assert shown(refused, monkeypatch)[0] == ""


def test_a_result_says_in_a_line_how_it_ended() -> None:
    result = fit()
    first, last = result.losses[0], result.losses[-1]
    assert re.fullmatch(rf"FitResult\(finished, {STEPS} steps in \d+ s, loss {first:.4g} to {last:.4g}\)", repr(result))
    stopped = fit(loss=lambda model, batch: squared(model, batch) * float("nan"))
    assert repr(stopped).startswith("FitResult(diverged, 0 steps in 0 s, step 1: the loss is nan")
