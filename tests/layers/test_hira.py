"""HiRA: the update multiplies the base weight, entry by entry, with every parameterization."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import torch
from peft import HiraConfig, get_peft_model
from support.families import PLANNED, planned
from support.models import assert_identical, inputs, make, perturb
from torch import Tensor, nn
from torch.func import functional_call

import tensoradapt as ta
from tensoradapt.layers import hira

pytestmark = pytest.mark.usefixtures("double")
MODELS = ("bert", "gpt2", "phi3")  # plain, Conv1D with q, k, v in one module, Linear with two kinds of fused modules


def logits(model: nn.Module, name: str) -> Tensor:
    return model(**inputs(name)).logits


def weights(base: nn.Module, adapter: ta.Adapter) -> dict[str, Tensor]:
    """The paper's equation 4, in plain torch, on the block of each site; W is divided by its root mean square."""
    values = {name: p.detach() for name, p in base.named_parameters()}
    for site in adapter.plan.sites:
        whole = base.get_parameter(site.key).detach()
        turned = type(base.get_submodule(site.module)).__name__ == "Conv1D"
        rms = whole.square().mean().sqrt() if adapter.plan.scale == "matched" else 1
        factor = torch.zeros_like(whole.T if turned else whole)
        factor[site.block] = adapter.delta(site) / rms
        values[site.key] = values[site.key] + whole * (factor.T if turned else factor)
    return values


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("parameterization", [p for p in PLANNED if p != "quanta"])
def test_it_starts_as_the_base_and_computes_the_papers_equation(name: str, parameterization: str) -> None:
    model = make(name)
    base = copy.deepcopy(model)
    adapter = ta.attach(model, planned(ta.find_sites(model, "all"), parameterization, rank=3, rule="hira"), seed=1)
    assert torch.equal(logits(model, name), logits(base, name))
    perturb(adapter, 0.3)
    expected = functional_call(base, weights(base, adapter), (), inputs(name), tie_weights=False).logits
    assert (expected - logits(base, name)).abs().max() > 1e-4
    torch.testing.assert_close(logits(model, name), expected, rtol=0, atol=1e-10)
    before = copy.deepcopy(model)
    ta.merge(model)
    torch.testing.assert_close(logits(model, name), expected, rtol=0, atol=1e-10)
    ta.unmerge(model)
    assert_identical(model, before)


@pytest.mark.parametrize("name", ["bert", "gpt2"])
@pytest.mark.parametrize("parameterization", ["lora", "cp", "vera"])
def test_its_gradients_are_those_of_the_equation(name: str, parameterization: str) -> None:
    model = make(name)
    base = copy.deepcopy(model)
    adapter = ta.attach(model, planned(ta.find_sites(model, "all"), parameterization, rank=2, rule="hira"), seed=1)
    perturb(adapter, 0.3)
    trained = [p for p in adapter.parameters() if p.requires_grad]
    found = torch.autograd.grad(logits(model, name).square().sum(), trained)
    values = weights(base, adapter)
    expected = torch.autograd.grad(
        functional_call(base, values, (), inputs(name), tie_weights=False).logits.square().sum(), trained
    )
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("rank", [2, 5])
def test_the_published_row_is_pefts(rank: int, tmp_path: Path) -> None:
    """On the same factors; the count is PEFT's too."""
    base = make("bert")
    theirs = get_peft_model(copy.deepcopy(base), HiraConfig(r=rank, target_modules=["query", "value"]))
    model = copy.deepcopy(base)
    adapter = ta.attach(model, ta.plan(model, "hira", paper=True, rank=rank, train=()))
    with torch.no_grad():
        for group, tensor in zip(adapter.plan.groups, adapter.factored, strict=True):
            layer = theirs.get_base_model().get_submodule(group.members[0].site.module)
            for half in "AB":
                number = getattr(layer, f"hira_{half}")["default"]
                number.copy_(0.3 * torch.randn(number.shape))
                tensor.trained[half].copy_(number)
    assert adapter.n_params == sum(p.numel() for n, p in theirs.named_parameters() if "hira_" in n)
    torch.testing.assert_close(logits(model, "bert"), logits(theirs, "bert"), rtol=0, atol=1e-12)
    adapter.save(tmp_path / "saved")
    again = copy.deepcopy(base)
    ta.load(again, tmp_path / "saved")
    assert torch.equal(logits(again, "bert"), logits(model, "bert"))


@pytest.mark.parametrize("method", ["lora", "cp", "tensor_train"])
def test_a_first_step_at_the_matched_scale_is_loras(method: str) -> None:
    def moved(rule: str) -> float:
        model = make("bert")
        base = copy.deepcopy(model)
        adapter = ta.attach(model, ta.plan(model, method, rank=4, rule=rule), seed=0)
        optimizer = torch.optim.AdamW(adapter.parameters(), lr=1e-4)
        logits(model, "bert").square().sum().backward()
        optimizer.step()
        ta.merge(model)
        now = {key.replace(".base.", "."): p.detach() for key, p in model.named_parameters()}
        squares = [
            (now[site.key] - base.get_parameter(site.key).detach()).square().sum() for site in adapter.plan.sites
        ]
        return math.sqrt(sum(map(float, squares)))

    assert moved("hira") / moved("add") == pytest.approx(1, abs=0.1)


def test_a_small_update_of_a_narrow_weight_is_not_rounded_away() -> None:
    """In bfloat16 the next number after 1 is 1.0078."""
    torch.manual_seed(0)
    weight, a, b = torch.randn(32, 32).bfloat16(), torch.randn(2, 32).bfloat16(), torch.full((32, 2), 1e-3).bfloat16()
    change = sum(part.double() for part in hira.parts(weight, a, b)) - weight.double()
    torch.testing.assert_close(change, weight.double() * (b.double() @ a.double()), rtol=0.02, atol=1e-5)
