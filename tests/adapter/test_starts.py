"""Starts that are not zero: the drawn value is subtracted, or values are given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.families import PLANNED, planned
from support.models import inputs, make, perturb
from torch import nn

import tensoradapt as ta
from tensoradapt.adapter.factored import FactoredTensor
from tensoradapt.networks.layout import Layout
from tensoradapt.parameterizations import cp

TIED, FREE = "layer proj : head dim : model", ": out : in"


def batch(**labels: Any) -> dict[str, torch.Tensor]:
    return {**inputs("bert"), "labels": torch.tensor([2, 5]), **labels}


def logits(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(**inputs("bert")).logits


@pytest.mark.parametrize("parameterization", ["cp", "tucker", "tensor_train", "lora", "block_term", "loha"])
def test_a_subtracted_start_is_exactly_zero_and_alive(parameterization: str) -> None:
    model, base = make("bert", torch.float32), make("bert", torch.float32)
    layout = FREE if parameterization in ("lora", "loha") else TIED
    sites = ta.find_sites(model, ("q", "v"))
    adapter = ta.attach(model, ta.plan(sites, layout, parameterization, rank=2, start="subtract"))
    assert torch.equal(logits(model), logits(base))
    for site in adapter.plan.sites:
        a, b = adapter.pair(site)
        assert not adapter.delta(site).count_nonzero()
        assert len(a) == 2 * adapter.plan.groups[0].network.cut.rank
    model(**batch()).loss.backward()
    assert all(p.grad.count_nonzero() for p in adapter.parameters())
    perturb(adapter)
    for site in adapter.plan.sites:
        a, b = adapter.pair(site)
        torch.testing.assert_close(b @ a, adapter.delta(site), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", PLANNED)
def test_a_subtracted_start_is_one_pair_whose_product_is_exactly_zero(name: str, dtype: torch.dtype) -> None:
    model = make("bert", torch.float32)
    plan = planned(ta.find_sites(model, ("q", "o")), name, rank=2, start="subtract")
    adapter = ta.attach(model, plan, seed=0).to(dtype)
    for site in adapter.plan.sites:
        a, b = adapter.pair(site)
        x = torch.randn(7, a.shape[1], dtype=dtype)
        assert not (b @ a).count_nonzero() and not (x @ a.T @ b.T).count_nonzero()
        assert adapter.copies(site) == 2 or len(a) == adapter.plan.groups[0].network.cut.rank
    perturb(adapter)
    wide = adapter.double()
    for site in adapter.plan.sites:
        a, b = wide.pair(site)
        torch.testing.assert_close(b @ a, wide.delta(site), rtol=1e-10, atol=1e-10)


def test_what_is_subtracted_survives_saving(tmp_path: Path) -> None:
    model = make("bert")
    adapter = ta.attach(model, ta.plan(model, TIED, "cp", rank=2, start="subtract"))
    perturb(adapter)
    adapter.save(tmp_path)
    again = make("bert")
    ta.load(again, tmp_path)
    assert torch.equal(logits(again), logits(model))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda value: value[:-1], r"factor 'layer' has shape \(2, 2\); expected finite numbers of shape \(3, 2\)"),
        (lambda value: value * float("nan"), r"factor 'layer' has non-finite entries"),
    ],
)
def test_values_of_another_shape_or_not_finite_are_refused(change: Any, says: str) -> None:
    network = cp.build(Layout.parse("layer : out : in", {"layer": 3, "out": 4, "in": 5}), 2)
    good = dict(FactoredTensor(network).factors)
    with pytest.raises(ta.TensorAdaptError, match=says):
        FactoredTensor(network, values={**good, "layer": change(good["layer"].detach())})
