"""Factors that start from the base weights, and from the first gradients."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from support.models import DECODER, assert_identical, inputs, make
from torch import nn

import tensoradapt as ta
from tensoradapt.surgery.factors_from_model import summed_gradients
from tensoradapt.testing.laws import float64

TIED, FREE = "layer proj : head dim : model", ": out : in"


def batch(**labels: Any) -> dict[str, torch.Tensor]:
    return {**inputs("bert"), "labels": torch.tensor([2, 5]), **labels}


def logits(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(**inputs("bert")).logits


def test_pissa_starts_as_the_weights_first_singular_directions() -> None:
    model = make("bert")
    with float64():
        adapter = ta.attach(model, ta.plan(model, method="pissa", paper=True, rank=3))
    for tensor, site in zip(adapter.factored, adapter.plan.sites, strict=True):
        weight = model.get_submodule(site.module).weight
        u, s, vt = np.linalg.svd(weight.numpy())
        product = (tensor.factors["B"] @ tensor.factors["A"]).detach().numpy()
        np.testing.assert_allclose(product, u[:, :3] * s[:3] @ vt[:3], rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", ["lora-xs", "tinylora", "pissa"])
def test_bases_from_the_weights_are_refused_without_some_weights_before_anything_changes(name: str) -> None:
    with torch.device("meta"):
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**DECODER, head_dim=8))
    model.model.layers[1].to_empty(device="cpu")
    plan = ta.plan(model, method=name, paper=True, rank=2)
    assert plan.needs_weights and "needs the base weights" in str(plan)
    before = str(model)
    with pytest.raises(
        ta.TensorAdaptError, match=r"site model[.]layers.0.self_attn.q_proj is on the meta device.*load the"
    ):
        ta.attach(model, plan)
    assert str(model) == before


def test_summed_gradients_are_the_losss_and_leave_the_model_as_it_was() -> None:
    model = make("bert").train()
    model.classifier.requires_grad_(False)
    before, names = copy.deepcopy(model), {"bert.encoder.layer.1.attention.self.query.weight"}
    found = summed_gradients(model, names, [batch(), batch(labels=torch.tensor([1, 1]))])
    assert_identical(model, before)
    assert model.training and all(p.grad is None for p in model.parameters())
    twin = copy.deepcopy(before).eval()
    for one in (batch(), batch(labels=torch.tensor([1, 1]))):
        twin(**one).loss.backward()
    [name] = names
    torch.testing.assert_close(found[name], twin.get_parameter(name).grad.float())


@pytest.mark.thorough
@pytest.mark.parametrize(
    "parameterization", ["cp", "tucker", "tensor_train", "tensor_ring", "lora", "block_term", "loha"]
)
def test_a_gradient_start_is_zero_and_its_first_step_falls_faster_than_a_random_ones(parameterization: str) -> None:
    layout = FREE if parameterization in ("lora", "loha") else TIED
    falls = {}
    for start in ("zero", "gradient"):
        model = make("bert")
        plan = ta.plan(ta.find_sites(model, ("q", "v")), layout, parameterization, rank=2, start=start)
        with float64():
            adapter = ta.attach(model, plan, seed=1, **({"batches": [batch()]} if start == "gradient" else {}))
        assert torch.equal(logits(model), logits(make("bert")))
        loss = model(**batch()).loss
        loss.backward()
        # what one normalised step of the update itself would gain, per unit of its length
        gains = [p.grad.square().sum() for p in adapter.parameters() if p.grad is not None]
        falls[start] = float(sum(gains).sqrt())
    assert falls["gradient"] > 1.2 * falls["zero"], falls


@pytest.mark.parametrize("name", ["vera", "randlora", "lora-xs", "tinylora", "pissa", "lokr", "lora-fa"])
def test_a_gradient_start_leaves_frozen_factors_as_they_are(name: str) -> None:
    model, plain = make("bert"), make("bert")
    options: dict[str, Any] = {"split": {"in": (5, 6), "out": (5, 6)}} if name == "lokr" else {}
    options |= {"options": {"svd_rank": 3}} if name == "tinylora" else {}
    plan = ta.plan(model, method=name, paper=True, rank=2, start="gradient", scale="matched", **options)
    adapter = ta.attach(model, plan, batches=[batch()])
    assert torch.equal(logits(model), logits(make("bert")))
    drawn = ta.attach(plain, ta.plan(plain, method=name, paper=True, rank=2, start="zero", scale="matched", **options))
    for one, other in zip(adapter.factored, drawn.factored, strict=True):
        for factor in one.network.factors:
            if not factor.trainable:
                torch.testing.assert_close(one.factors[factor.name].abs(), other.factors[factor.name].abs())
    model(**batch()).loss.backward()
    assert all(t.trained[t.network.zero.name].grad.count_nonzero() for t in adapter.factored)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, 'start="gradient" needs the batches .*batches='),
        ({"batches": []}, 'start="gradient" needs the batches'),
        ({"batches": [inputs("bert")]}, "returned the loss None; expected one number with a gradient. Give batches"),
        ({"batches": [torch.ones(2, 3)]}, "a batch is .*; expected a mapping of the model's arguments, or give loss="),
        (
            {"batches": [batch()], "loss": lambda model, _: model.classifier.bias.sum() * 0 + zero(model)},
            "is zero; give",
        ),
    ],
)
def test_a_gradient_start_without_gradients_is_refused(given: dict[str, Any], says: str) -> None:
    model, before = make("bert"), make("bert")
    plan = ta.plan(ta.find_sites(model, ("q", "v")), TIED, "cp", rank=2, start="gradient")
    with pytest.raises(ta.TensorAdaptError, match=says):
        ta.attach(model, plan, **given)
    assert_identical(model, before)


def zero(model: nn.Module) -> torch.Tensor:
    return sum((p * 0).sum() for p in model.parameters())
