"""The distance of a change is that of the dense updates, as a polynomial without rounding that grows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any
from unittest.mock import patch

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.families import PLANNED, planned
from support.models import make, perturb
from torch import Tensor

import tensoradapt as ta
from tensoradapt.training.distance import adapter_distance as distance
from tensoradapt.training.distance import polynomials
from tensoradapt.training.distance.adapter_distance import Distance
from tensoradapt.training.distance.step_length import solve

pytestmark = pytest.mark.usefixtures("double")
Values = list[dict[str, Tensor]]


def factors(adapter: ta.Adapter) -> Values:
    return [{name: p.detach().clone() for name, p in tensor.trained.items()} for tensor in adapter.factored]


def dense(adapter: ta.Adapter, before: Values, change: Values, c: float) -> float:
    """The squared distance between the dense updates of the factors and of those moved by c changes."""
    deltas = []
    for length in (0.0, c):
        for tensor, old, step in zip(adapter.factored, before, change, strict=True):
            for name, parameter in tensor.trained.items():
                parameter.data = old[name] + length * step[name]
        deltas.append(torch.cat([adapter.delta(site).detach().flatten() for site in adapter.plan.sites]))
    return float((deltas[1] - deltas[0]).square().sum())


@pytest.mark.parametrize("start", ["zero", "moved"])
@pytest.mark.parametrize("name", [name for name in PLANNED if name != "randlora"])  # more numbers than these matrices
def test_a_distance_and_a_length_are_those_of_the_dense_updates(name: str, start: str) -> None:
    model = make("bert")
    adapter = ta.attach(model, planned(ta.find_sites(model, ("q", "v", "up", "down")), name, rank=3), seed=0)
    if start == "moved":
        perturb(adapter, 0.3)
    before, generator = factors(adapter), torch.Generator().manual_seed(0)
    change = [{k: 0.1 * torch.randn(p.shape, generator=generator) for k, p in of.items()} for of in before]
    curve = Distance(adapter).along(before, change)
    assert curve(0.0) == 0
    for c in (-2.0, 0.03, 1.0, 40.0):
        assert curve(c) == pytest.approx(dense(adapter, before, change, c), rel=1e-9), c
    for asked in (1e-6, 1e-3, 1.0, 30.0):  # the first is 1e-8 of some of these updates
        length = solve(curve, asked)
        assert length is not None
        assert math.sqrt(dense(adapter, before, change, length)) == pytest.approx(asked, rel=1e-6 + 1e-13 / asked)


TIED = "layer : out : in"
VARIED: dict[str, dict[str, Any]] = {
    "a drawn factor": {"method": "lora", "frozen": ["A"]},
    "a drawn factor of all layers": {"method": "lora", "layout": TIED, "frozen": ["A"], "shared": {"A": "layer"}},
    "a shared factor": {"method": "lora", "layout": TIED, "shared": {"B": "layer"}},
    "an entangled one": {"method": "vera", "layout": TIED, "options": {"trained": True}, "frozen": ["A", "d"]},
    "a shared entangled one": {"method": "vera", "layout": TIED, "frozen": ["d"], "shared": {"d": "layer"}},
    "ones": {"method": "vera", "layout": TIED, "options": {"trained": True}, "frozen": {"d": "ones", "A": "ones"}},
    "CP": {"method": "cp", "layout": "layer proj : out : in", "frozen": ["layer", "in"]},
    "Tucker": {"method": "tucker", "layout": "layer proj : out : in", "frozen": {"layer": "identity", "in": "drawn"}},
    "LoHa": {"method": "loha", "layout": TIED, "frozen": ["B1"], "shared": {"A1": "layer"}},
}


@pytest.mark.parametrize("how", VARIED)
def test_a_distance_is_that_of_frozen_and_shared_factors(how: str) -> None:
    model = make("bert")
    plan = ta.plan(ta.find_sites(model, ("q", "v", "o")), rank=3, **VARIED[how])
    adapter = ta.attach(model, plan, seed=0)
    perturb(adapter, 0.3)
    before, generator = factors(adapter), torch.Generator().manual_seed(0)
    change = [{k: 0.1 * torch.randn(p.shape, generator=generator) for k, p in of.items()} for of in before]
    curve = Distance(adapter).along(before, change)
    for c in (-2.0, 0.03, 1.0, 40.0):
        assert curve(c) == pytest.approx(dense(adapter, before, change, c), rel=1e-9), c


@pytest.mark.parametrize("name", ["tucker", "block_term", "tensor_train"])
def test_a_large_core_is_contracted_at_each_length(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make("bert")
    adapter = ta.attach(model, planned(ta.find_sites(model, ("q", "v", "up", "down")), name, rank=3), seed=0)
    perturb(adapter, 0.3)
    before, generator = factors(adapter), torch.Generator().manual_seed(0)
    change = [{k: 0.1 * torch.randn(p.shape, generator=generator) for k, p in of.items()} for of in before]
    at_once = Distance(adapter).along(before, change)
    monkeypatch.setattr(distance, "CORE", 0)
    curve = Distance(adapter).along(before, change)
    assert curve(0.0) == 0
    for c in (-2.0, 0.3, 1.0, 40.0):
        assert curve(c) == pytest.approx(at_once(c), rel=1e-9), c


@pytest.mark.parametrize("seed", range(4))
def test_a_square_is_not_below_zero_where_its_powers_cancel(seed: int) -> None:
    """At length 1e4 this change takes three of four factors to zero, in float32."""
    torch.set_default_dtype(torch.float32)
    model = make("bert", torch.float32)
    adapter = ta.attach(model, planned(ta.find_sites(model, ("q", "v")), "loha", rank=3), seed=seed)
    before = factors(adapter)
    change = [{k: -1e-4 * p if k != "A2" else 1e-6 * torch.ones_like(p) for k, p in of.items()} for of in before]
    curve = Distance(adapter).along(before, change)
    assert min(curve(1e4 * (1 + sign * k / 1000)) for k in range(5, 30) for sign in (-1, 1)) > 0
    assert solve(curve, 10.0) is not None


def test_a_distance_follows_the_frozen_values_that_are_written_to() -> None:
    model = make("bert")
    adapter = ta.attach(model, planned(ta.find_sites(model, ("q",)), "vera", rank=3), seed=0)
    before: Any = factors(adapter)
    change: list[Mapping[str, Tensor]] = [{k: torch.ones_like(p) for k, p in of.items()} for of in before]
    kept = Distance(adapter)
    assert kept.fits(adapter)
    moved = kept.along(before, change)(1.0)
    with torch.no_grad():
        next(adapter.bases.buffers()).mul_(2)
    assert not kept.fits(adapter)
    assert Distance(adapter).along(before, change)(1.0) == pytest.approx(4 * moved)


@given(powers=st.tuples(st.integers(1, 4), st.integers(1, 4)), seed=st.integers(0, 99))
def test_products_of_polynomials_have_the_products_of_their_values(powers: tuple[int, int], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    a, b = (torch.randn(n, *shape, generator=generator) for n, shape in zip(powers, ((2, 3), (3, 4)), strict=True))

    def at(value: Tensor, c: float) -> Any:
        return sum(c**k * coefficient for k, coefficient in enumerate(value))

    for large in (polynomials.LARGE, 0):  # with fewer calls, and with fewer copies
        with patch.object(polynomials, "LARGE", large):
            found = polynomials.einsum("ij,jk->ik", a, b)
        assert len(found) == sum(powers) - 1
        for c in (0.0, -0.7, 1.3):
            torch.testing.assert_close(at(found, c), at(a, c) @ at(b, c))
