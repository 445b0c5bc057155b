"""Orthonormal factors: against the papers' equations in loops, and by what stays so; what cannot is refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.families import PLANNED, planned
from support.models import inputs, make
from support.published_rows import attached, tiny
from torch import Tensor

import tensoradapt as ta
from tensoradapt import doors
from tensoradapt.extras.orthonormal.gauge import radius, unfoldings
from tensoradapt.extras.orthonormal.steps import polar, tangent
from tensoradapt.training.state import collect, put_back

MAPS = "unilora" in doors.names("maps")  # of another room, which may be deleted

pytestmark = pytest.mark.usefixtures("double")
TIED = "layer proj : head dim : model"
FORMS = ("lora", "tucker", "tensor_train", "tt_matrix", "block_low_rank", "loretta")  # that have an orthonormal form
FROZEN = ("lora_xs", "tinylora", "block_circulant")  # whose other factors are frozen
SIZES = [(7, 3), (5, 5)]


def frame(n: int, r: int, seed: int = 0) -> Tensor:
    return torch.linalg.qr(torch.randn(n, r, generator=torch.Generator().manual_seed(seed))).Q


def random_gradients(parameters: Any, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in parameters:
        parameter.grad = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)


def distances(adapter: ta.Adapter) -> dict[str, float]:
    """How far X^T X is from I, at most, for each factor that is to be orthonormal; X has columns of length 1."""
    found: dict[str, float] = {}
    for tensor in adapter.factored:
        for one in unfoldings(tensor.network):
            length = radius(one, adapter.plan.scale == "matched")
            x = one.unfold(tensor.trained[one.factor.name].detach()) / length
            off = float((x.mT @ x - torch.eye(x.shape[-1])).abs().max())
            found[one.factor.name] = max(found.get(one.factor.name, 0.0), off)
    return found


# the papers' equations, entry by entry


def product(*matrices: np.ndarray) -> np.ndarray:
    made = matrices[0]
    for other in matrices[1:]:
        n, m = len(made), other.shape[1]
        made = np.array(
            [[sum(made[i, k] * other[k, j] for k in range(len(other))) for j in range(m)] for i in range(n)]
        )
    return made


def landing(x: np.ndarray, g: np.ndarray, weight: float) -> np.ndarray:  # PoLAR, section 4
    skew = product(g, x.T) - product(x, g.T)
    return product(skew, x) + weight * product(x, product(x.T, x) - np.eye(x.shape[1]))


def stella(x: np.ndarray, g: np.ndarray, update: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:  # algorithm 1
    step = update(g - product(x, g.T, x))
    inner = product(x.T, step)
    u, _, vt = np.linalg.svd(x + step - product(x, (inner + inner.T) / 2), full_matrices=False)
    return product(u, vt)


def adam_once(g: np.ndarray, lr: float) -> np.ndarray:
    """Adam's first step: the sign of the gradient, less what eps takes."""
    return -lr * g / (np.abs(g) + 1e-8)


def matrices(name: str, by: str, size: tuple[int, int], **settings: Any) -> tuple[ta.Adapter, list[dict[str, Any]]]:
    """An adapter of one matrix of a Llama-like size, and its factors before and after a step with their gradients."""
    sites = [s for s in ta.find_sites(make("bert").config, ("q", "up")) if s.coord["layer"] == 1]
    adapter = ta.Adapter(ta.plan(sites, method=name, paper=True, rank=size[1]), seed=3)
    model = torch.nn.Sequential(adapter)
    random_gradients(adapter.parameters(), 5)
    before = [
        {f: (p.detach().numpy().copy(), p.grad.numpy().copy()) for f, p in t.trained.items()} for t in adapter.factored
    ]
    optimizer = torch.optim.Adam(adapter.parameters(), lr=0.05)
    ta.orthonormal(optimizer, model, by=by, **settings)
    optimizer.step()
    return adapter, before


@pytest.mark.parametrize("rank", [2, 5])
@pytest.mark.parametrize("name", ["polar", "stella", "stella-diagonal"])
def test_a_step_of_landing_is_adam_on_polars_field(name: str, rank: int) -> None:
    adapter, before = matrices(name, "landing", (0, rank), weight=0.3)
    for tensor, old in zip(adapter.factored, before, strict=True):
        for factor, (x, g) in old.items():
            field = landing(x, g, 0.3) if factor in ("out", "in") else g
            expected = x + adam_once(field, 0.05)
            np.testing.assert_allclose(tensor.trained[factor].detach().numpy(), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("rank", [2, 5])
@pytest.mark.parametrize("name", ["polar", "stella", "stella-diagonal"])
def test_a_step_of_retraction_is_stellas(name: str, rank: int) -> None:
    adapter, before = matrices(name, "retraction", (0, rank))
    for tensor, old in zip(adapter.factored, before, strict=True):
        for factor, (x, g) in old.items():
            one = lambda found: adam_once(found, 0.05)  # noqa: E731
            expected = stella(x, g, one) if factor in ("out", "in") else x + one(g)
            np.testing.assert_allclose(tensor.trained[factor].detach().numpy(), expected, rtol=0, atol=1e-12)


@settings(max_examples=20)
@given(seed=st.integers(0, 99), size=st.floats(-8, 6))
@pytest.mark.parametrize(("n", "r"), SIZES)
def test_the_polar_factor_is_that_of_the_singular_value_decomposition(n: int, r: int, seed: int, size: float) -> None:
    x = frame(n, r, seed)
    y = x + tangent(x, 10**size * frame(n, r, seed + 1))
    (found,), (u, _, vt) = polar(y), torch.linalg.svd(y, full_matrices=False)
    torch.testing.assert_close(found.mT @ found, torch.eye(r), rtol=0, atol=1e-12)
    torch.testing.assert_close(found, u @ vt, rtol=0, atol=1e-9 * max(1.0, 10**size))


# any network


def formed(model: Any, name: str, scale: str) -> ta.Plan:
    """A plan of rank 2; the bond between LoReTTA's two trains is as wide."""
    options = {"options": {"bottleneck": 2}} if name == "loretta" else {}
    return planned(ta.find_sites(model, ("q", "v")), name, rank=2, scale=scale, **options)


@pytest.mark.parametrize("scale", ["matched", "paper"])
@pytest.mark.parametrize("name", FORMS)
def test_a_retraction_makes_every_factor_but_one_orthonormal(name: str, scale: str) -> None:
    model = make("bert")
    adapter = ta.attach(model, formed(model, name, scale), seed=2)
    optimizer = torch.optim.AdamW(adapter.parameters(), lr=0.05, weight_decay=0.1)
    ta.orthonormal(optimizer, model, "retraction")
    zero = {tensor.network.zero.name for tensor in adapter.factored}
    for step in range(4):
        random_gradients(adapter.parameters(), step)
        optimizer.step()
        found = distances(adapter)
        assert set(found) | zero == {f for tensor in adapter.factored for f in tensor.trained}
        assert max(found.values()) < 1e-12, found


@pytest.mark.parametrize("scale", ["paper", "matched"])
@pytest.mark.parametrize("layout", [TIED, "layer : out : in", "(layer proj) : out : in"])
def test_landing_keeps_a_training_near_orthonormal(layout: str, scale: str) -> None:
    """Of a tensor fitted to a random one of its size, with the core at zero as in papers, or a larger factor."""
    options = {"zero": "core"} if scale == "paper" else {}
    ends = []
    for by in ("landing", None):
        sites = ta.find_sites(make("bert").config, ("q", "v"))
        adapter = ta.Adapter(
            ta.plan(sites, method="tucker", layout=layout, rank=2, scale=scale, options=options), seed=2
        )
        assert max(distances(adapter).values()) < 1e-12
        optimizer = torch.optim.Adam(adapter.parameters(), lr=3e-3)
        if by:
            ta.orthonormal(optimizer, torch.nn.Sequential(adapter), by, weight=1.0)
        targets = [
            torch.randn(t.network.layout.shape, generator=torch.Generator().manual_seed(1)) for t in adapter.factored
        ]
        for _ in range(100):
            optimizer.zero_grad()
            pairs = zip(adapter.factored, targets, strict=True)
            sum(((one.full() - target).square().mean() for one, target in pairs), torch.zeros(())).backward()
            optimizer.step()
        ends.append(max(distances(adapter).values()))
    assert ends[0] < min(0.1, ends[1] / 3), ends


@pytest.mark.parametrize("by", ["landing", "retraction"])
def test_a_training_that_is_resumed_ends_bit_for_bit_like_one_that_was_not(by: str) -> None:
    def begun() -> tuple[Any, ta.Adapter, torch.optim.Optimizer]:
        model = make("bert")
        adapter = ta.attach(model, ta.plan(model, method="polar", rank=2), seed=2)
        optimizer = torch.optim.AdamW(adapter.parameters(), lr=0.01)
        ta.orthonormal(optimizer, model, by)
        return model, adapter, optimizer

    def steps(adapter: ta.Adapter, optimizer: torch.optim.Optimizer, which: range) -> None:
        for step in which:
            random_gradients(adapter.parameters(), step)
            optimizer.step()

    model, adapter, optimizer = begun()
    steps(adapter, optimizer, range(3))
    state = {name: tensor.clone() for name, tensor in collect(model, optimizer).items()}
    steps(adapter, optimizer, range(3, 6))
    again, resumed, other = begun()
    assert put_back(again, other, state)
    steps(resumed, other, range(3, 6))
    assert all(torch.equal(p, q) for p, q in zip(adapter.parameters(), resumed.parameters(), strict=True))


@pytest.mark.parametrize("by", ["landing", "retraction"])
def test_equal_steps_move_the_weights_as_far_as_asked_around_it(by: str) -> None:
    """Exactly by landing; by retraction but for what the polar factor adds, which is of second order."""
    model = tiny()
    adapter = attached("stella", model)
    optimizer = torch.optim.AdamW(adapter.parameters(), lr=1e-4)
    ta.orthonormal(optimizer, model, by)
    ta.equal_steps(optimizer, model)
    sites = adapter.plan.sites
    asked = 1e-4 * 2 * math.sqrt(8 / (3 * 30))
    for step in range(4):
        before = torch.cat([adapter.delta(site).detach().flatten() for site in sites])
        random_gradients(adapter.parameters(), step)
        optimizer.step()
        moved = torch.cat([adapter.delta(site).detach().flatten() for site in sites]) - before
        assert float(moved.square().mean().sqrt()) == pytest.approx(
            asked, rel={"landing": 1e-6, "retraction": 1e-4}[by]
        )
        if by == "retraction":
            assert max(distances(adapter).values()) < 1e-12


@pytest.mark.parametrize("optimizer", ["adamw", "equal_steps"])
def test_fit_keeps_factors_orthonormal_and_learns(optimizer: str) -> None:
    model = tiny()
    adapter = attached("stella", model)
    batch = {**inputs("bert"), "labels": torch.tensor([2, 5])}
    fitted = ta.fit(model, [batch] * 8, lr=3e-3, steps=8, optimizer=optimizer, orthonormal="retraction")
    assert max(distances(adapter).values()) < 1e-12
    assert fitted.losses[-1] < fitted.losses[0]
    with pytest.raises(ta.TensorAdaptError, match="both orthonormal= and reduce= were given"):
        ta.fit(model, [batch] * 8, lr=3e-3, steps=8, orthonormal="landing", reduce={4: 1})


def test_handles_end_the_rule_and_factors_without_gradients_stay() -> None:
    for by in ("landing", "retraction"):
        model = make("bert")
        adapter = ta.attach(model, ta.plan(model, method="polar", rank=2), seed=2)
        optimizer = torch.optim.SGD(adapter.parameters(), lr=0.1)
        handle = ta.orthonormal(optimizer, model, by)
        random_gradients(adapter.parameters(), 1)
        still = adapter.factored[0].trained["in"]
        still.grad, kept = None, still.detach().clone()
        optimizer.step()
        assert torch.equal(still, kept)
        handle.remove()
        random_gradients(adapter.parameters(), 2)
        before = [(p.detach().clone(), p.grad.clone()) for p in adapter.parameters()]
        optimizer.step()
        for parameter, (x, g) in zip(adapter.parameters(), before, strict=True):
            torch.testing.assert_close(parameter.detach(), x - 0.1 * g, rtol=0, atol=1e-15)


# what is refused


@pytest.mark.parametrize("name", [name for name in PLANNED if name not in (*FORMS, *FROZEN)])
def test_networks_without_an_orthonormal_form_are_refused_by_name(name: str) -> None:
    model = make("bert")
    rank = {} if name in ("quanta", "khatri_rao", "block_circulant", "shared_block") else {"rank": 2}
    adapter = ta.attach(model, planned(ta.find_sites(model, ("q", "v")), name, **rank), seed=2)
    optimizer = torch.optim.AdamW(adapter.parameters())
    with pytest.raises(ta.TensorAdaptError, match=f"{name} has no orthonormal form.*Use preconditioned or equal_steps"):
        ta.orthonormal(optimizer, model)


@pytest.mark.parametrize(
    ("method", "changes", "says"),
    [
        ("lora-fa", {}, r"lora-fa has frozen factors only \(A\) beside B.*Use preconditioned"),
        ("lora-xs", {}, "frozen factors only"),
        ("pissa", {}, "factor 'A' of pissa starts from the base weights"),
        ("tucker", {"start": "gradient"}, "starts from gradients"),
        *[("lora", {"map": {"unilora": 20}}, "a map makes the adapter's factors of other numbers.*plan without map=")]
        * MAPS,
        (
            "metatt-4d",
            {"rank": 31},
            r"factor 'in' of metatt-4d is a matrix of 30 x 31 \(r_in=31\).*make r_in 30 or less",
        ),
    ],
)
def test_factors_that_cannot_be_orthonormal_are_refused(method: str, changes: dict[str, Any], says: str) -> None:
    model = make("bert")
    plan = ta.plan(model, method=method, **{"rank": 2, **changes})
    batch = {**inputs("bert"), "labels": torch.tensor([2, 5])}
    adapter = ta.attach(model, plan, **({"batches": [batch]} if plan.start == "gradient" else {}))
    with pytest.raises(ta.TensorAdaptError, match=says):
        ta.orthonormal(torch.optim.AdamW(adapter.parameters()), model)


def test_optimizers_and_models_that_it_cannot_work_on_are_refused() -> None:
    model = make("bert")
    with pytest.raises(ta.TensorAdaptError, match="has no adapter to keep orthonormal; call attach"):
        ta.orthonormal(torch.optim.AdamW(model.parameters()), model)
    adapter = ta.attach(model, ta.plan(model, method="polar", rank=2))
    every = list(adapter.parameters())
    for arguments, says in (
        ((torch.optim.AdamW(every[1:]), model), "the optimizer lacks 1 of the factors"),
        ((torch.optim.AdamW(every), model, "cayley"), "by is 'cayley'. Valid: landing, retraction"),
        ((torch.optim.AdamW(every), model, "landing", 0), "weight is 0; expected a finite number above 0"),
        ((torch.optim.LBFGS(every), model), "LBFGS moves the weights several times"),
        ((ta.equal_steps(torch.optim.AdamW(every), model), model, "retraction"), "call orthonormal first"),
    ):
        with pytest.raises(ta.TensorAdaptError, match=says):
            ta.orthonormal(*arguments)
    optimizer = torch.optim.SGD(every, lr=0.1)
    ta.orthonormal(optimizer, model)
    with pytest.raises(ta.TensorAdaptError, match="was given a closure"):
        optimizer.step(lambda: 0.0)
    ta.merge(model)
    with pytest.raises(ta.TensorAdaptError, match="merged into the weights"):
        ta.orthonormal(torch.optim.SGD(every), model)
