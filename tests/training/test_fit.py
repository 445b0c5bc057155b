"""The training loop: what moves, how fast, what it shows, and what happens when numbers rise or blow up."""

from __future__ import annotations

import io
import itertools
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.models import inputs, make
from support.sweeping import TINY
from support.terminals import written
from torch import nn

import tensoradapt as ta
from tensoradapt.lab.runs.store import load_runs
from tensoradapt.lab.sweeps.report import report
from tensoradapt.training.fit import FitResult, fit
from tensoradapt.training.loss_rise import TIMES, rise


class Regression(nn.Module):
    """Two linear maps in a row; ``head`` is a head."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body, self.head = nn.Linear(5, 4), nn.Linear(4, 1)

    def forward(self, x, y):
        return type("Out", (), {"loss": (self.head(self.body(x)) - y).square().mean()})


def batches(n=100):
    generator = torch.Generator().manual_seed(2)
    for _ in range(n):
        x = torch.randn(16, 5, generator=generator)
        yield {"x": x, "y": x.sum(1, keepdim=True)}


def test_training_lowers_the_loss_and_leaves_the_model_in_eval_mode():
    model = Regression()
    fitted = fit(model, batches(), lr=0.05, steps=60)
    assert fitted.status == "finished" and not model.training
    assert len(fitted.losses) == len(fitted.seconds) == 60
    assert fitted.losses[-1] < 0.1 * fitted.losses[0]


def test_heads_learn_at_their_own_rate():
    model = Regression()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    fit(model, batches(), lr=1e-4, head_lr=1e-2, heads=("head",), steps=1)
    moved = {name: (p - before[name]).abs().max().item() for name, p in model.named_parameters()}
    # Adam's first step is the rate in every entry, whatever the gradient
    assert moved["body.weight"] == pytest.approx(1e-4, rel=1e-2)
    assert moved["head.weight"] == pytest.approx(1e-2, rel=1e-2)


def test_the_rate_rises_over_the_warm_up_and_falls_to_zero_after_the_last_step():
    seen = []
    model = Regression()

    def loss(m, batch):
        seen.append([p.detach().clone() for p in m.parameters()])
        # a constant gradient of sign +1: each step is the current rate
        return sum(p.sum() for p in m.parameters())

    fit(model, batches(), lr=1.0, steps=10, warmup=0.3, clip=1e9, loss=loss)
    seen.append(list(model.parameters()))
    steps = [(a[0] - b[0]).mean().item() for a, b in itertools.pairwise(seen)]
    expected = [1 / 3, 2 / 3, 1, *((10 - k) / 7 for k in range(3, 10))]
    assert steps == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_number_that_is_not_finite_stops_the_run_before_the_step_and_is_named(where):
    model = Regression()

    def loss(m, batch):
        value = m(**batch).loss
        loss.calls += 1
        if loss.calls < 3:
            return value
        loss.before = {name: p.detach().clone() for name, p in m.named_parameters()}
        if where == "loss":
            return value * float("inf")
        m.head.weight.register_hook(lambda g: g * float("nan"))
        return m(**batch).loss

    loss.calls = 0
    fitted = fit(model, batches(), lr=0.1, steps=10, loss=loss)
    says = {"loss": "step 3: the loss is inf", "gradient": "step 3: the gradient of head.weight is not finite"}[where]
    assert (fitted.status, fitted.note, len(fitted.losses)) == ("diverged", says, 2)
    assert all(torch.equal(p, loss.before[name]) for name, p in model.named_parameters())


def test_gradients_are_clipped_to_the_norm_asked_for():
    model, norms = Regression(), []

    def loss(m, batch):
        norms.append([p.grad.norm().item() for p in m.parameters() if p.grad is not None])
        return 1e6 * m(**batch).loss

    fit(model, batches(), lr=1e-3, steps=3, clip=0.5, loss=loss)
    # grads seen when the next loss is computed are those of the step before, after clipping
    assert sum(n**2 for n in norms[1]) ** 0.5 == pytest.approx(0.5, rel=1e-3)


@pytest.mark.parametrize("off", [torch.no_grad, torch.inference_mode])
def test_a_fit_without_gradients_is_refused(off):
    with (
        off(),
        pytest.raises(ta.TensorAdaptError, match=r"in torch.no_grad\(\) or torch.inference_mode\(\), .* outside"),
    ):
        fit(Regression(), batches(), lr=0.05, steps=3)


@pytest.mark.parametrize("enabled", [True, False])
def test_within_another_autocast_context_a_head_learns_as_outside(enabled):
    """Such a context keeps the parameters that it has cast until it ends, so the head would stay as it was."""
    outside = fit(Regression(), batches(), lr=0.05, steps=60, precision="bf16").losses
    with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
        within = fit(Regression(), batches(), lr=0.05, steps=60, precision="bf16").losses
    assert within == pytest.approx(outside, rel=0.02, abs=0.02) and outside[-1] < 0.5 * outside[0]


def test_in_bf16_the_model_computes_in_bfloat16_and_its_parameters_stay_in_float32():
    losses, seen = {}, set()
    for precision in ("fp32", "bf16"):
        model = Regression()
        model.body.register_forward_hook(lambda *call, p=precision: seen.add((p, call[2].dtype)))
        losses[precision] = fit(model, batches(), lr=0.05, steps=60, precision=precision).losses
        assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert seen == {("fp32", torch.float32), ("bf16", torch.bfloat16)}
    assert losses["fp32"] != losses["bf16"]
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.05, abs=0.05)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"lr": float("nan")}, "lr is nan; expected a finite number above 0"),
        ({"head_lr": -1.0}, "head_lr is -1.0; expected"),
        ({"steps": 0}, "steps is 0; expected a whole number from 1 up to"),
        ({"warmup": 1.0}, "warmup is 1.0; expected a share"),
        ({"heads": "head"}, "heads is 'head'; expected names of modules"),
        ({"heads": ("haed",)}, "heads names 'haed', in which nothing requires gradients; did you mean \"head\""),
        ({"precision": "bf61"}, "precision is 'bf61'; did you mean \"bf16\""),
    ],
)
def test_bad_settings_are_refused(options, says):
    with pytest.raises(ta.TensorAdaptError, match=says):
        fit(Regression(), batches(), **{"lr": 0.1, "steps": 2, **options})


def test_a_merged_adapter_is_not_trained_in_vain():
    model = make("bert")
    ta.attach(model, ta.plan(model, ": out : in", "lora", 2))
    ta.merge(model)
    with pytest.raises(ta.TensorAdaptError, match="merged into the weights, and training would not move them"):
        fit(model, [inputs("bert")], lr=0.1, steps=1)


def test_too_few_batches_and_nothing_to_train_are_refused():
    model = Regression().eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ta.TensorAdaptError, match=r"len\(batches\) is 2 and steps is 5; .*for _ in range\(3\)"):
        fit(model, list(batches(2)), lr=0.1, steps=5)
    assert not model.training and all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    with pytest.raises(ta.TensorAdaptError, match="ended after 2 of 5 steps"):
        fit(Regression(), (batch for batch in batches(2)), lr=0.1, steps=5)
    with pytest.raises(ta.TensorAdaptError, match="nothing in the model requires gradients"):
        fit(Regression().requires_grad_(False), batches(), lr=0.1, steps=5)


@pytest.mark.parametrize("wrong", ["batch", "loss"])
def test_an_error_puts_back_the_mode_that_each_module_had(wrong: str) -> None:
    model = make("bert").eval()
    ta.attach(model, "cp", rank=2)
    model.dropout.train()  # some modules train and others do not
    before = {name: module.training for name, module in model.named_modules()}
    given = [{"nonsense": torch.zeros(2)}] if wrong == "batch" else [inputs("bert")]
    with pytest.raises((ta.TensorAdaptError, TypeError)):
        fit(model, given, lr=0.1, steps=1, loss=None if wrong == "batch" else lambda model, batch: "no tensor")
    assert {name: module.training for name, module in model.named_modules()} == before


def test_the_rank_falls_on_schedule_while_training_goes_on() -> None:
    model, batch = make("bert", torch.float32), {**inputs("bert"), "labels": torch.tensor([2, 5])}
    adapter = ta.attach(model, ta.plan(model, method="tensor_train", rank=4))
    ranks: list[int] = []

    def note(step: int, loss: float) -> None:
        ranks.append(max(adapter.plan.groups[0].network.bonds.values()))

    fitted = ta.fit(model, [batch] * 9, lr=1e-2, steps=9, reduce={3: 3, 6: 2}, on_step=note)
    assert ranks == [4, 4, 3, 3, 3, 2, 2, 2, 2]
    assert fitted.losses[-1] < fitted.losses[0]
    assert adapter.plan.n_params == sum(p.numel() for p in adapter.parameters())
    with pytest.raises(ta.TensorAdaptError, match=r"rank 8 at step 2; expected .* ranks that fall from 2 on"):
        ta.fit(model, [batch] * 9, lr=1e-2, steps=9, reduce={2: 8})


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


STEPS = 30


def squared(model: nn.Module, batch: Any) -> torch.Tensor:
    return model(batch).square().mean()


def short(steps: int = STEPS, **options: Any) -> FitResult:
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
    text, result = shown(short, monkeypatch)
    last = text.rstrip().splitlines()[-1].split("\r")[-1]
    assert re.search(rf"^fit: 100%.* {STEPS}/{STEPS} .*it/s, loss {result.losses[-1]:.4g}\]", last), last
    assert max(map(len, re.split(r"[\r\n]+", text))) <= 100


@pytest.mark.parametrize("stream", [None, io.StringIO()])
def test_nothing_is_shown_without_a_terminal(stream: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    assert short().status == "finished"
    assert stream is None or not stream.getvalue()


def test_a_result_says_in_a_line_how_it_ended() -> None:
    result = short()
    first, last = result.losses[0], result.losses[-1]
    assert re.fullmatch(rf"FitResult\(finished, {STEPS} steps in \d+ s, loss {first:.4g} to {last:.4g}\)", repr(result))
    stopped = short(loss=lambda model, batch: squared(model, batch) * float("nan"))
    assert repr(stopped).startswith("FitResult(diverged, 0 steps in 0 s, step 1: the loss is nan")
