"""The bar of ``fit``: what it shows in a terminal, and all that shows none."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.terminals import written
from torch import nn

import tensoradapt as ta
from tensoradapt.training.fit import FitResult

STEPS = 30


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


def test_a_result_says_in_a_line_how_it_ended() -> None:
    result = fit()
    first, last = result.losses[0], result.losses[-1]
    assert re.fullmatch(rf"FitResult\(finished, {STEPS} steps in \d+ s, loss {first:.4g} to {last:.4g}\)", repr(result))
    stopped = fit(loss=lambda model, batch: squared(model, batch) * float("nan"))
    assert repr(stopped).startswith("FitResult(diverged, 0 steps in 0 s, step 1: the loss is nan")
