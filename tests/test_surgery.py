"""Surgery on real model classes: nothing moves at attach, the right thing moves after, and detach leaves no trace."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import pytest
import torch
from models import FAMILIES, GROUPED, inputs, make, perturb, weights_with_deltas
from torch import Tensor, nn
from torch.func import functional_call

import tensoradapt as ta

COMBINATIONS = [
    pytest.param(name, parameterization, mismatch, id=f"{name}-{parameterization}-{mismatch}")
    for name in FAMILIES
    for parameterization in ta.parameterizations.names()
    for mismatch in (("split", "crop") if name in GROUPED else ("split",))
]
every_combination = pytest.mark.parametrize(("name", "parameterization", "mismatch"), COMBINATIONS)
every_model = pytest.mark.parametrize("name", FAMILIES)


@dataclass
class Setup:
    """A model with an adapter on all projections, and the same model as it was before."""

    name: str
    base: nn.Module
    model: nn.Module
    adapter: ta.Adapter

    def base_output(self) -> Tensor:
        return output(self.base, self.name)

    def output(self) -> Tensor:
        return output(self.model, self.name)

    def expected(self) -> Tensor:
        weights = weights_with_deltas(self.base, self.adapter)
        return functional_call(self.base, weights, (), inputs(self.name), tie_weights=False).logits.detach()


def output(model: nn.Module, name: str) -> Tensor:
    torch.manual_seed(6)  # the same dropout at every call in train mode
    return model(**inputs(name, next(model.parameters()).dtype)).logits.detach()


def attached(
    name: str,
    parameterization: str = "lora",
    mismatch: str = "split",
    train: tuple[str, ...] = (),
    dtype: torch.dtype = torch.float64,
) -> Setup:
    model = make(name, dtype)
    base = copy.deepcopy(model)
    sites = ta.find_sites(model, "all")
    plan = ta.plan(sites, parameterization=parameterization, rank=3, on_mismatch=mismatch, train=train)
    return Setup(name, base, model, ta.attach(model, plan, seed=7))


@pytest.fixture(autouse=True)
def double_factors(request: pytest.FixtureRequest) -> None:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    request.addfinalizer(lambda: torch.set_default_dtype(before))


@every_combination
def test_attach_leaves_the_output_and_detach_the_model_bit_for_bit(name: str, parameterization: str, mismatch: str) -> None:
    setup = attached(name, parameterization, mismatch)
    assert torch.equal(setup.output(), setup.base_output())
    perturb(setup.adapter)
    assert ta.detach(setup.model) is setup.adapter
    _assert_identical(setup.model, setup.base)
    assert torch.equal(setup.output(), setup.base_output())


@every_combination
def test_a_perturbed_adapter_is_the_base_with_deltas_in_its_weights(name: str, parameterization: str, mismatch: str) -> None:
    setup = attached(name, parameterization, mismatch)
    perturb(setup.adapter)
    expected = setup.expected()
    assert (expected - setup.base_output()).abs().max() > 1e-3
    torch.testing.assert_close(setup.output(), expected, rtol=0, atol=1e-10)
    ta.merge(setup.model)
    torch.testing.assert_close(setup.output(), expected, rtol=0, atol=1e-10)
    ta.unmerge(setup.model)
    torch.testing.assert_close(setup.output(), expected, rtol=0, atol=1e-10)


def _assert_identical(model: nn.Module, base: nn.Module) -> None:
    """Keys, bits, flags and module tree."""
    found, expected = model.state_dict(), base.state_dict()
    assert list(found) == list(expected)
    assert [key for key in expected if not torch.equal(found[key], expected[key])] == []
    flags = {name: p.requires_grad for name, p in base.named_parameters()}
    assert {name: p.requires_grad for name, p in model.named_parameters()} == flags
    assert str(model) == str(base)
