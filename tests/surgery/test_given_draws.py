"""Frozen factors that are given: PEFT's own VeRA read in, the drawn ones given back, saved, loaded, refused."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file
from support.models import ENCODER, TEXT, assert_identical, inputs, make, perturb
from torch import nn

import tensoradapt as ta

Q = "site bert.encoder.layer.0.attention.self.query"


def fresh_bert() -> nn.Module:
    torch.manual_seed(0)
    return transformers.BertModel(transformers.BertConfig(**ENCODER, **TEXT, initializer_range=0.2)).eval()


def vera(model: nn.Module, **options: object) -> ta.Plan:
    return ta.plan(model, ": out : in", "vera", 6, scale=1.0, **options)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_an_adapter_of_pefts_vera_is_read_in_with_its_own_matrices() -> None:
    bert = fresh_bert()
    theirs = peft.get_peft_model(copy.deepcopy(bert), peft.VeraConfig(r=6, target_modules=["query", "value"])).eval()
    torch.manual_seed(1)
    for name, parameter in theirs.named_parameters():
        if "lambda" in name:
            nn.init.normal_(parameter)
    plan = vera(ta.find_sites(bert, ("q", "v")))
    shared, values = theirs.base_model, []
    for site in plan.sites:
        layer = shared.model.get_submodule(site.module)
        d, b = layer.vera_lambda_d["default"], layer.vera_lambda_b["default"]
        a, left = shared.vera_A["default"][:6, : site.in_], shared.vera_B["default"][: site.out, :6]
        values.append({"A": a, "B": left, "d": d.detach(), "b": b.detach()})
    ta.attach(bert, plan, values=values)
    ours, peers = (model(**inputs("bert")).last_hidden_state for model in (bert, theirs))
    torch.testing.assert_close(ours, peers, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["vera", "randlora"])
def test_given_matrices_are_saved_and_loaded_for_each_tensor(name: str, tmp_path: Path) -> None:
    model = make("bert")
    plan = ta.plan(model, ": out : in", name, 4)
    drawn = plan.groups[0].network.frozen_draws
    torch.manual_seed(2)
    values = [{f.name: torch.randn(g.network.shape(f)) for f in drawn} for g in plan.groups]
    adapter = ta.attach(model, plan, values=values)
    perturb(adapter)
    adapter.save(tmp_path)
    for again in (ta.load(make("bert"), tmp_path), ta.load(make("bert"), tmp_path, strict=False)):
        assert all(torch.equal(again.delta(site), adapter.delta(site)) for site in plan.sites)
    n = sum(value.numel() for named in values for value in named.values())
    assert again.plan.n_base == n
    assert f"frozen bases given: {n:,} numbers" in str(again.plan)
    loaded = again.factored[1].factors[drawn[0].name]
    torch.testing.assert_close(loaded, values[1][drawn[0].name].to(loaded), rtol=0, atol=0)


def test_equal_steps_and_export_read_the_given_matrices(tmp_path: Path) -> None:
    model = make("bert")
    plan = vera(model)
    torch.manual_seed(3)
    shapes = {f.name: plan.groups[0].network.shape(f) for f in plan.groups[0].network.frozen_draws}
    values = [{name: torch.randn(shape) / 3 for name, shape in shapes.items()} for _ in plan.groups]
    adapter = ta.attach(model, plan, values=values)
    optimizer = ta.equal_steps(torch.optim.AdamW(adapter.parameters(), lr=1e-2), model)
    before = {site: adapter.delta(site).detach() for site in plan.sites}
    model(**inputs("bert")).logits.square().sum().backward()
    optimizer.step()
    moved = torch.cat([(adapter.delta(site).detach() - before[site]).flatten() for site in plan.sites])
    target = 1e-2 * 2 * math.sqrt(8 / (3 * plan.sites[0].in_))
    torch.testing.assert_close(moved.square().mean().sqrt().item(), target, rtol=1e-5, atol=0)
    ta.export_lora(model, tmp_path, heads="leave")
    stored = load_file(tmp_path / "adapter_model.safetensors")
    name = f"base_model.model.{plan.sites[0].module}.lora_"
    scale = json.loads((tmp_path / "adapter_config.json").read_text())
    product = stored[f"{name}B.weight"] @ stored[f"{name}A.weight"] * scale["lora_alpha"] / scale["r"]
    torch.testing.assert_close(product.double(), adapter.delta(plan.sites[0]).detach().double(), rtol=1e-5, atol=1e-7)


BAD = {
    "another shape": ({"A": torch.ones(2, 2)}, "factor 'A' has shape (2, 2); expected finite numbers of shape (6, "),
    "NaN": ({"B": torch.full((24, 6), math.nan)}, "factor 'B' has"),
    "part of the trained": ({"A": torch.ones(6, 24), "d": torch.ones(6)}, f"{Q} lack factor 'b'"),
    "an unknown name": ({"C": torch.ones(6, 24)}, f"{Q} name 'C', which it does not have"),
    "nothing": ({}, f"{Q} lack factor 'd'"),
}


@pytest.mark.parametrize("case", BAD)
def test_given_matrices_that_do_not_fit_are_refused_and_change_nothing(case: str) -> None:
    named, message = BAD[case]
    model = make("bert")
    plan = vera(model)
    with pytest.raises(ta.TensorAdaptError) as error:
        ta.attach(model, plan, values=[named] * len(plan.groups))
    assert message in str(error.value)
    assert_identical(model, make("bert"))
