"""Multipliers, the frozen draw, and PEFT's own layers with our factors copied in."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import peft
import pytest
import torch
import transformers
from support.models import ENCODER, TEXT, inputs, perturb
from support.oracles import FREE
from torch import nn

import tensoradapt as ta
from tensoradapt.adapter import frozen
from tensoradapt.adapter.frozen import Bases
from tensoradapt.networks.layout import Layout
from tensoradapt.parameterizations import vera
from tensoradapt.planning import scale
from tensoradapt.testing.laws import float64


@pytest.mark.parametrize(("name", "expected"), [("lora", 16 / 8), ("lorta", 16 / 8), ("vera", 2 / math.sqrt(768 * 8))])
def test_paper_scale_is_the_papers_multiplier_times_its_frozen_draw(name: str, expected: float) -> None:
    config = transformers.RobertaConfig()
    group = ta.plan(config, method=name, paper=True, rank=8).groups[0]
    alpha = ta.published.get(name).alpha
    assert scale.paper_scale(group.network, alpha) == pytest.approx(expected, rel=1e-12)


def test_a_smaller_site_reads_a_slice_of_the_larger_ones_frozen_matrices() -> None:
    wide = vera.build(Layout.parse(FREE, {"out": 11, "in": 13}), 5)
    narrow = vera.build(Layout.parse(": head dim : model", {"head": 2, "dim": 3, "model": 7}), 4)
    together, alone = Bases([wide, narrow], seed=3), Bases([narrow], seed=3)
    (a, b), (small_a, small_b) = (net.factors[:2] for net in (wide, narrow))
    assert torch.equal(together.read(narrow, small_a), together.read(wide, a)[:4, :7])
    assert torch.equal(together.read(narrow, small_b).reshape(6, 4), together.read(wide, b)[:6, :4])
    assert torch.equal(together.read(narrow, small_a), alone.read(narrow, small_a))
    assert not torch.equal(alone.read(narrow, small_a), Bases([narrow], seed=4).read(narrow, small_a))


def test_frozen_entries_are_what_they_were_in_earlier_versions_and_have_unit_variance() -> None:
    np.testing.assert_allclose(frozen.frozen_uniform(3, "A", 2, 3), GOLDEN, rtol=0, atol=1e-12)
    many = frozen.frozen_uniform(3, "B", 200, 300)
    assert abs(many.mean()) < 0.02
    assert many.std() == pytest.approx(1, abs=0.01)
    assert np.abs(many).max() <= math.sqrt(3)


GOLDEN = [
    [-1.18272817366601, -1.0964025255075425, -1.7283924723303485],
    [0.25301903476495397, 1.6855794862961264, -0.1631011595096824],
]

peft_on_transformers = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


@pytest.fixture
def bert() -> nn.Module:
    torch.manual_seed(0)
    return transformers.BertModel(transformers.BertConfig(**ENCODER, **TEXT, initializer_range=0.2)).eval()


def targets(adapter: ta.Adapter, model: nn.Module) -> dict[str, Any]:
    """PEFT's layer for each of our sites."""
    return {site.name: model.base_model.model.get_submodule(site.module) for site in adapter.plan.sites}


@peft_on_transformers
def test_matched_lora_of_rank_8_is_pefts_lora_with_alpha_16(bert: nn.Module) -> None:
    theirs = peft.get_peft_model(
        copy.deepcopy(bert),
        peft.LoraConfig(
            r=8, lora_alpha=16, lora_dropout=0.0, target_modules=r".*(query|output\.dense|intermediate\.dense)"
        ),
    ).eval()
    adapter = ta.attach(bert, ta.plan(ta.find_sites(bert, ("q", "o", "up", "down")), FREE, "lora", rank=8))
    layers = targets(adapter, theirs)
    assert {tuple(layer.weight.shape) for layer in layers.values()} == {(30, 30), (34, 30), (30, 34)}
    for tensor, layer in zip(adapter.tensors, layers.values(), strict=True):
        ours, peers = (a.detach().square().mean().sqrt() for a in (tensor.factors["A"], layer.lora_A["default"].weight))
        torch.testing.assert_close(ours, peers, rtol=0.1, atol=0)  # the same size of the start, drawn otherwise
    perturb(adapter)
    for tensor, (name, layer) in zip(adapter.tensors, layers.items(), strict=True):
        layer.lora_A["default"].weight.data.copy_(tensor.factors["A"])
        layer.lora_B["default"].weight.data.copy_(tensor.factors["B"])
        torch.testing.assert_close(adapter.delta(name), layer.get_delta_weight("default"), rtol=0, atol=1e-6)
    ours, peers = (model(**inputs("bert")).last_hidden_state for model in (bert, theirs))
    torch.testing.assert_close(ours, peers, rtol=0, atol=1e-5)


@peft_on_transformers
def test_vera_is_pefts_vera_with_our_frozen_matrices(bert: nn.Module) -> None:
    theirs = peft.get_peft_model(
        copy.deepcopy(bert),
        peft.VeraConfig(r=6, target_modules=r".*(query|output\.dense|intermediate\.dense)"),
    ).eval()
    sites = ta.find_sites(bert, ("q", "o", "up", "down"))
    adapter = ta.attach(bert, ta.plan(sites, FREE, "vera", rank=6, scale=1.0))
    perturb(adapter)
    assert {(site.out, site.in_) for site in sites} == {(30, 30), (34, 30), (30, 34)}
    shared = theirs.base_model
    shared.vera_A["default"].copy_(adapter.bases.A)
    shared.vera_B["default"].copy_(adapter.bases.B)
    for site in sites:
        tensor, layer = adapter.tensors[adapter.plan.sites.index(site)], targets(adapter, theirs)[site.name]
        layer.vera_lambda_d["default"].data.copy_(tensor.factors["d"])
        layer.vera_lambda_b["default"].data.copy_(tensor.factors["b"])
        torch.testing.assert_close(adapter.delta(site), layer.get_delta_weight("default"), rtol=0, atol=1e-6)
    ours, peers = (model(**inputs("bert")).last_hidden_state for model in (bert, theirs))
    torch.testing.assert_close(ours, peers, rtol=0, atol=1e-5)


@pytest.mark.parametrize("layout", ["layer : head dim : model", FREE])
def test_every_matrix_takes_loras_first_step_for_its_own_width_as_stored(layout: str) -> None:
    config = transformers.LlamaConfig(**{**ENCODER, "hidden_size": 24, "num_attention_heads": 6}, head_dim=8)
    plan = ta.plan(ta.find_sites(config, ("q", "o")), layout, "lora", rank=3)
    with float64():
        adapter = ta.Adapter(plan)
    for group, tensor in zip(plan.groups, adapter.tensors, strict=True):
        for site in (member.site for member in group.members):
            power = 0.0
            b = tensor.trained["B"].data
            for i in range(b.numel()):
                b.zero_().view(-1)[i] = 1.0
                power += float(adapter.delta(site).detach().square().sum())
            b.zero_()
            target = 2 * math.sqrt(8 / (3 * site.in_))
            assert math.sqrt(power / (site.out * site.in_)) == pytest.approx(target, rel=1e-9), site.name
