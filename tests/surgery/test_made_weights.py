"""Weights that are there in another way: made by a hook, made under inference mode, moved to the meta device."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.models import inputs, make, perturb
from torch import Tensor, nn
from torch.nn.utils import prune, spectral_norm

import tensoradapt as ta

QUERY = "bert.encoder.layer.0.attention.self.query"
MADE: dict[str, Callable[[nn.Module], Any]] = {
    "prune": lambda layer: prune.l1_unstructured(layer, "weight", 0.5),
    "spectral_norm": lambda layer: spectral_norm(layer).eval(),
}
MOVED = r"the adapter was moved to the meta device, where it lost its values\. Load the base model again"


def query(model: nn.Module) -> nn.Module:
    layer = model.get_submodule(QUERY)
    return getattr(layer, "base", layer)


def output(model: nn.Module) -> Tensor:
    return model(**inputs("bert")).logits


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("name", MADE)
def test_a_weight_that_a_hook_makes_is_used_as_it_is_made(name: str, first: bool) -> None:
    model, plain = make("bert"), make("bert")
    adapters = []
    for each in (model, plain):
        if first and each is model:
            MADE[name](query(each))
        adapters.append(ta.attach(each, "lora", rank=2))
        perturb(adapters[-1])
    if not first:
        MADE[name](query(model))
    output(model)  # the hooks have made the weight
    with torch.no_grad():
        query(plain).weight.copy_(query(model).weight)
    torch.testing.assert_close(output(model), output(plain), rtol=1e-12, atol=1e-12)
    output(model).sum().backward()
    assert all(p.grad is not None for p in adapters[0].parameters())


@pytest.mark.parametrize("name", MADE)
def test_a_weight_that_a_hook_makes_is_not_merged_into(name: str) -> None:
    model = make("bert")
    MADE[name](query(model))
    perturb(ta.attach(model, "lora", rank=2))
    before = output(model)
    with pytest.raises(
        ta.TensorAdaptError, match=rf"site {QUERY} is no Parameter: a hook makes it .* prune\.remove or"
    ):
        ta.merge(model)
    assert torch.equal(output(model), before)


@pytest.mark.parametrize("rule", ["add", "dora"])
def test_a_base_of_inference_tensors_is_refused_before_anything_is_attached(rule: str) -> None:
    with torch.inference_mode():
        model = make("bert")
        for name, parameter in list(model.named_parameters()):
            owner, _, key = name.rpartition(".")
            setattr(model.get_submodule(owner), key, nn.Parameter(parameter.clone()))
    with pytest.raises(ta.TensorAdaptError, match=rf"the weight of site {QUERY} was made in torch\.inference_mode\(\)"):
        ta.attach(model, "lora", rank=2, rule=rule)
    assert ta.adapters(model) == {}


@pytest.mark.parametrize(
    "call",
    [
        lambda model, adapter, folder: ta.merge(model),
        lambda model, adapter, folder: ta.reduce_rank(model, rank=1),
        lambda model, adapter, folder: ta.compress(adapter, layout="layer proj : out : in", method="cp", rank=2),
        lambda model, adapter, folder: adapter.save(folder),
        lambda model, adapter, folder: ta.export_lora(model, folder, heads="leave"),
    ],
    ids=["merge", "reduce_rank", "compress", "save", "export_lora"],
)
def test_a_model_that_was_moved_to_the_meta_device(call: Callable[..., Any], tmp_path: Path) -> None:
    model = make("bert")
    adapter = ta.attach(model, "lora", rank=2)
    model.to("meta")
    with pytest.raises(ta.TensorAdaptError, match=MOVED):
        call(model, adapter, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    ta.detach(model)
