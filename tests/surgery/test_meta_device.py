"""Weights that are not there yet or in another way: on the meta device, made by a hook or under inference mode."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from support.families import RANKLESS
from support.families import SPLIT as PARTED
from support.models import DECODER, inputs, make, perturb
from torch import Tensor, nn
from torch.nn.utils import prune, spectral_norm

import tensoradapt as ta
from tensoradapt import parameterizations

PARTS = {24: (4, 6), 8: (2, 4)}
SPLIT = {"split": {"out": PARTS, "in": PARTS}}
ASKED: dict[str, dict[str, Any]] = {
    **dict.fromkeys(PARTED, SPLIT),
    "quanta": {**SPLIT, "projections": ("q", "o")},
}
every = pytest.mark.parametrize("name", parameterizations.names())
INPUT = {"input_ids": torch.arange(6).reshape(2, 3)}
ON_META = {name: value.to("meta") for name, value in INPUT.items()}


def llama() -> nn.Module:
    torch.manual_seed(0)
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**DECODER)).eval()


def on_meta() -> nn.Module:
    with torch.device("meta"):
        return llama()


def planned(model: nn.Module, name: str = "lora", **changes: Any) -> ta.Plan:
    rank = None if name in RANKLESS else 3
    return ta.plan(model, method=name, rank=rank, **ASKED.get(name, {}), **changes)


def shapes(module: nn.Module) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {name: (value.shape, value.dtype) for name, value in (*module.named_parameters(), *module.named_buffers())}


@every
def test_an_adapter_on_the_meta_device_has_the_names_shapes_and_sizes_of_a_real_one(name: str) -> None:
    real, meta = llama(), on_meta()
    expected, adapter = ta.attach(real, planned(real, name)), ta.attach(meta, planned(meta, name))
    assert shapes(adapter) == shapes(expected) and all(value.is_meta for value in adapter.state_dict().values())
    assert (adapter.n_params, adapter.n_bytes) == (expected.n_params, expected.n_bytes)
    logits = meta(**ON_META).logits
    assert logits.is_meta and logits.shape == real(**INPUT).logits.shape
    ta.detach(meta)
    assert (shapes(meta), str(meta)) == (shapes(on_meta()), str(on_meta()))


@every
def test_an_adapter_that_was_moved_off_the_meta_device_gets_the_values_that_attach_gives(
    name: str, tmp_path: Path
) -> None:
    real, meta = llama(), on_meta()
    expected, adapter = ta.attach(real, planned(real, name), seed=5), ta.attach(meta, planned(meta, name), seed=5)
    meta.to_empty(device="cpu")
    with pytest.raises(ta.TensorAdaptError, match="was attached on the meta device and has no values yet"):
        meta(**INPUT)
    base = {key: value for key, value in real.state_dict().items() if not key.startswith("tensoradapt")}
    meta.load_state_dict(base, strict=False)
    for buffer, value in zip(meta.model.buffers(), real.model.buffers(), strict=True):
        buffer.copy_(value)  # the rotary embedding, which is not saved
    if adapter.plan.needs_weights:
        with pytest.raises(ta.TensorAdaptError, match=f"{name} with start='zero'.* takes values from the base weights"):
            adapter.reset_parameters()
        expected.save(tmp_path)
        ta.restore(meta, tmp_path)
    else:
        adapter.reset_parameters()
    assert [tensor.scale for tensor in adapter.factored] == [tensor.scale for tensor in expected.factored]
    perturb(adapter)
    perturb(expected)
    assert torch.equal(meta(**INPUT).logits, real(**INPUT).logits)


def test_what_needs_values_is_refused_until_they_come(tmp_path: Path) -> None:
    model = on_meta()
    adapter = ta.attach(model, planned(model))
    for refused in (
        lambda: adapter.save(tmp_path),
        lambda: ta.export_lora(model, tmp_path),
        lambda: ta.compress(adapter, method="lora", rank=1),
        lambda: ta.merge(model),
    ):
        with pytest.raises(ta.TensorAdaptError, match=r"has no values yet. Load the base weights, then detach"):
            refused()
    with pytest.raises(ta.TensorAdaptError, match=r"the adapter is on the meta device.*model.to_empty"):
        adapter.reset_parameters()
    real = llama()
    ta.attach(real, planned(real)).save(tmp_path / "saved")
    with pytest.raises(ta.TensorAdaptError, match=r"the adapter is on the meta device.*model.to_empty"):
        ta.restore(model, tmp_path / "saved")
    for strict in (True, False):
        with pytest.raises(ta.TensorAdaptError, match=r"q_proj is on the meta device.*load the weights first"):
            ta.load(on_meta(), tmp_path / "saved", strict=strict)
    model.lm_head.weight = real.lm_head.weight
    with pytest.raises(ta.TensorAdaptError, match="was attached on the meta device and has no values yet"):
        model(**INPUT)


def test_values_would_be_lost_on_the_meta_device_and_are_refused() -> None:
    model, real = on_meta(), llama()
    plan = planned(real)
    adapter = ta.attach(real, plan)
    values = [{name: value.detach() for name, value in tensor.factors.items()} for tensor in adapter.factored]
    with pytest.raises(ta.TensorAdaptError, match=r"q_proj is on the meta device.*no values= given"):
        ta.attach(model, plan, values=values)


@pytest.mark.parametrize(("name", "frozen"), [("cp", False), ("vera", False), ("vera", True)])
def test_values_that_were_given_are_not_drawn_in_their_place(name: str, frozen: bool, tmp_path: Path) -> None:
    model = llama()
    plan = planned(model, name)
    drawn = ta.attach(model, plan)
    values = [{key: v.detach() for key, v in t.factors.items()} for t in drawn.factored]
    keys = [f.name for f in plan.groups[0].network.frozen_draws] if frozen else list(values[0])
    ta.detach(model)
    adapter = ta.attach(model, plan, values=[{key: one[key] for key in keys} for one in values])
    perturb(adapter)
    before = copy.deepcopy(adapter.state_dict())
    with pytest.raises(ta.TensorAdaptError, match=r"were given, by values= of attach.*attach\(model, plan, values=..."):
        adapter.reset_parameters()
    assert all(torch.equal(value, before[key]) for key, value in adapter.state_dict().items())
    if frozen:  # a file says so too
        adapter.save(tmp_path)
        with pytest.raises(ta.TensorAdaptError, match="were given, by values= of attach"):
            ta.load(llama(), tmp_path).reset_parameters()


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
