"""What a card does beside a stand-in's counts: bf16, compilation, quantised bases, moves, and steps that do not wait.

Each test runs on the CPU, or on the stand-in where it asks what a step waits for, as a check of itself, and with
``-m gpu`` on a card.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from support.device_standin import Device, standin
from support.families import planned
from support.models import inputs, make, perturb
from support.quantised_models import X, full_precision
from torch import Tensor, nn

import tensoradapt as ta
from tensoradapt.sites.site import Site

METHODS = ("lora", "cp", "vera")  # a tensor for each matrix, one for all, and frozen matrices that all share
SYNCHRONIZES = "synchronizing CUDA operation"  # what torch says of a wait
every_method = pytest.mark.parametrize("method", METHODS)
pytestmark = pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")  # it says once


def needs_card() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> str:
    if request.param == "cuda":
        needs_card()
    return str(request.param)


@pytest.fixture(params=["stand-in", pytest.param("card", marks=pytest.mark.gpu)])
def card(request: pytest.FixtureRequest) -> Iterator[Device | None]:
    """The stand-in, or None for the card."""
    if request.param == "card":
        needs_card()
        yield None
    else:
        with standin() as found:
            yield found


@contextmanager
def waits(card: Device | None) -> Iterator[Callable[[], int]]:
    """Count what waits for the device: what is yielded returns how often it did so far."""
    if card:
        with card.counting() as counts:
            yield lambda: counts.waits.total() + counts.copies.total()
        return
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield lambda: sum(SYNCHRONIZES in str(warning.message) for warning in found)
        finally:
            torch.cuda.set_sync_debug_mode("default")


@contextmanager
def no_wait(card: Device | None) -> Iterator[None]:
    """Fail where something waits for the device: on a card at once, with the line in the traceback."""
    if card:
        with card.counting() as counts:
            yield
        assert not +counts.waits and not +counts.copies
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def adapted(method: str, device: str, name: str = "default") -> tuple[nn.Module, ta.Adapter]:
    """A model without dropout, and an adapter of its q and v."""
    model = make("bert", torch.float32).to(device)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model, ta.attach(model, planned(ta.find_sites(model, ("q", "v")), method, rank=2), seed=0, name=name)


def batch() -> dict[str, Tensor]:
    return {**inputs("bert"), "labels": torch.tensor([2, 5])}


def embedded(device: str) -> Tensor:
    """Inputs of which no model asks whether they are padded, for which it would wait."""
    return torch.randn(2, 7, 30, generator=torch.Generator().manual_seed(0)).to(device)


def loss_of(model: nn.Module, x: Tensor) -> Tensor:
    return model(inputs_embeds=x).logits.square().mean()  # type: ignore[no-any-return]


@pytest.mark.parametrize("optimizer", ["adamw", "equal_steps"])
@every_method
def test_a_training_in_bf16_is_near_the_one_in_fp32_and_keeps_its_parameters(
    method: str, optimizer: str, device: str
) -> None:
    losses = {}
    for precision in ("fp32", "bf16"):
        model, _ = adapted(method, device)
        fit = partial(ta.fit, model, [batch()] * 4, lr=1e-2, steps=4, optimizer=optimizer)
        losses[precision] = fit(precision=precision).losses
        assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.05)
    assert losses["bf16"] != losses["fp32"]  # or nothing was computed in it


# both libraries try native kernels that a CPU has not, and warn or log of it
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("kind", ["nf4", "fp4"])
def test_a_quantised_base_is_trained_around_and_stays_as_it_is(kind: str, device: str) -> None:
    pytest.importorskip("bitsandbytes")
    model = full_precision(kind).to(device)  # which quantises
    kept = {name: p.detach().clone() for name, p in model.named_parameters()}
    sites = tuple(Site(f"layers.{i}", f"layers.{i}", (("layer", i), ("proj", "q")), 32, 64, ()) for i in range(2))
    ta.attach(model, ta.plan(sites, "layer proj : out : in", "cp", 3), seed=0)
    x = X.to(device)
    result = ta.fit(model, [{"x": x}] * 20, lr=1e-2, steps=20, loss=lambda model, of: (model(**of) - 1).square().mean())
    assert result.status == "finished" and result.losses[-1] < result.losses[0]
    ta.detach(model)
    assert all(torch.equal(p, kept[name]) for name, p in model.named_parameters())


@every_method
def test_forward_backward_and_update_wait_for_nothing(method: str, card: Device | None) -> None:
    model, adapter = adapted(method, "cuda")
    x, trained = embedded("cuda"), list(adapter.parameters())
    optimizer = torch.optim.AdamW(trained, lr=1e-3)

    def step() -> None:
        optimizer.zero_grad()
        loss_of(model, x).backward()
        nn.utils.clip_grads_with_norm_(trained, 1.0, nn.utils.get_total_norm([p.grad for p in trained]))
        optimizer.step()

    for _ in range(2):  # what is made once
        step()
    with no_wait(card):
        step()


@every_method
def test_a_first_pass_without_gradients_waits_for_nothing(method: str, card: Device | None) -> None:
    model, _ = adapted(method, "cuda")
    x = embedded("cuda")
    loss_of(model, x)  # not a pass without gradients, whose pairs the next would keep if the factors are the same
    with torch.no_grad(), no_wait(card):
        model(inputs_embeds=x)


@pytest.mark.parametrize(("optimizer", "most"), [("adamw", 1), ("equal_steps", 2)])
@every_method
def test_a_step_of_fit_waits_no_more_than_it_says(method: str, optimizer: str, most: int, card: Device | None) -> None:
    model, _ = adapted(method, "cuda")
    x, found = embedded("cpu"), []

    def loss(model: nn.Module, of: Any) -> Tensor:
        return loss_of(model, of["x"])

    with waits(card) as so_far:
        note = lambda *_: found.append(so_far())  # noqa: E731
        ta.fit(model, [{"x": x}] * 4, lr=1e-3, steps=4, loss=loss, optimizer=optimizer, on_step=note)
    assert 1 <= found[2] - found[1] <= most  # its loss at least is read


@every_method
def test_a_model_that_is_moved_computes_what_it_did(method: str, device: str, tmp_path: Path) -> None:
    model, adapter = adapted(method, "cpu")
    perturb(adapter)
    with torch.no_grad():
        before = model(**inputs("bert")).logits
        model.to(device)
        there = model(**{key: value.to(device) for key, value in inputs("bert").items()}).logits
        adapter.save(tmp_path / "saved")
        model.to("cpu")
        torch.testing.assert_close(there.cpu(), before, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(model(**inputs("bert")).logits, before, rtol=0, atol=0)
    loaded = ta.load(adapted(method, "cpu", name="other")[0], tmp_path / "saved", name="loaded")
    for one, other in zip(loaded.parameters(), adapter.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


@every_method
def test_an_equal_step_moves_the_matrices_as_far_as_asked(method: str, device: str) -> None:
    model, adapter = adapted(method, device)
    perturb(adapter, 0.1)
    optimizer = ta.equal_steps(torch.optim.AdamW(adapter.parameters(), lr=1e-2, weight_decay=0.0), model)

    def matrices() -> Tensor:
        return torch.cat([adapter.delta(site).detach().double().flatten() for site in adapter.plan.sites])

    before = matrices()
    loss_of(model, embedded(device)).backward()
    optimizer.step()
    moved = float((matrices() - before).square().mean().sqrt())
    assert moved == pytest.approx(1e-2 * 2 * (8 / (3 * 30)) ** 0.5, rel=1e-3)  # of matrices that read 30 inputs
