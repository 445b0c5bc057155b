"""The change of a weight: DoRA, which trains the rows' lengths apart, with every parameterization; rank dropout."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from support.families import PLANNED, planned
from support.models import assert_identical, inputs, make, perturb
from torch import Tensor, nn
from torch.func import functional_call

import tensoradapt as ta

pytestmark = pytest.mark.usefixtures("double")
MODELS = ("bert", "gpt2", "phi3")  # plain, Conv1D with q, k, v in one module, Linear with two kinds of fused modules


@torch.no_grad()
def logits(model: nn.Module, name: str) -> Tensor:
    return model(**inputs(name)).logits


def with_dora(name: str, parameterization: str, rank: int = 3) -> tuple[nn.Module, nn.Module, ta.Adapter]:
    """A model with a DoRA adapter, and the model as it was."""
    model = make(name)
    base = copy.deepcopy(model)
    plan = planned(ta.find_sites(model, "all"), parameterization, rank=rank, rule="dora")
    return model, base, ta.attach(model, plan, seed=1)


def moved(adapter: ta.Adapter) -> None:
    """Updates as large as the weights, and lengths that are other ones."""
    lengths = [m.detach().clone() for m in adapter.magnitudes]
    perturb(adapter)
    with torch.no_grad():
        for magnitude, length in zip(adapter.magnitudes, lengths, strict=True):
            magnitude.copy_(length * torch.linspace(0.5, 2, len(length)))


def weights(base: nn.Module, adapter: ta.Adapter) -> dict[str, Tensor]:
    """The paper's equation 5, in plain torch, on each adapted projection's rows of the base weights."""
    values = {name: p.detach().clone() for name, p in base.named_parameters()}
    for row_block, magnitude in zip(adapter.plan.row_blocks, adapter.magnitudes, strict=True):
        [site] = row_block.sites
        transposed = type(base.get_submodule(site.module)).__name__ == "Conv1D"
        stored = values[site.key].T if transposed else values[site.key]
        rows = slice(None) if site.rows is None else slice(*site.rows)
        summed = stored[rows] + adapter.delta(site).detach()
        stored[rows] = magnitude.detach()[:, None] * summed / summed.square().sum(1, keepdim=True).sqrt()
    return values


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("parameterization", [p for p in PLANNED if p != "quanta"])
def test_it_starts_as_the_base_and_computes_the_papers_equation(name: str, parameterization: str) -> None:
    model, base, adapter = with_dora(name, parameterization)
    assert torch.equal(logits(model, name), logits(base, name))
    moved(adapter)
    with torch.no_grad():
        expected = functional_call(base, weights(base, adapter), (), inputs(name), tie_weights=False).logits
    assert (expected - logits(base, name)).abs().max() > 1e-3
    torch.testing.assert_close(logits(model, name), expected, rtol=0, atol=1e-10)
    ta.merge(model)
    torch.testing.assert_close(logits(model, name), expected, rtol=0, atol=1e-10)
    ta.unmerge(model)
    ta.detach(model)
    assert_identical(model, base)


@pytest.mark.parametrize("name", MODELS)
def test_lengths_are_counted_once_trained_saved_and_loaded(name: str, tmp_path: Path) -> None:
    model, base, adapter = with_dora(name, "cp")
    rows = sum(site.out for site in adapter.plan.sites)
    assert adapter.plan.n_magnitudes == rows
    assert adapter.plan.n_params == adapter.n_params == sum(g.network.n_params for g in adapter.plan.groups) + rows
    assert f"{rows:,} lengths of the weights' rows (DoRA)" in str(adapter.plan)
    moved(adapter)
    model(**inputs(name)).logits.square().sum().backward()
    assert all(m.grad is not None and m.grad.count_nonzero() for m in adapter.magnitudes)
    adapter.save(tmp_path)
    ta.load(base, tmp_path)
    assert torch.equal(logits(base, name), logits(model, name))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_model_that_is_cast_while_adapted_has_the_bits_of_one_that_loads_it_and_is_cast(
    dtype: torch.dtype, tmp_path: Path
) -> None:
    torch.set_default_dtype(torch.float32)
    model, other = make("bert", torch.float32), make("bert", torch.float32)
    moved(ta.attach(model, "cp", rank=3, rule="dora"))
    model.to(dtype)
    ta.merge(model)
    ta.unmerge(model)
    found = logits(model, "bert")
    assert found.dtype == dtype
    ta.adapters(model)["default"].save(tmp_path)
    loaded = ta.load(other.to(dtype), tmp_path)  # in float32, as adapters are held: one rounding of the type away
    torch.testing.assert_close(logits(other, "bert"), found, rtol=0, atol=2 * torch.finfo(dtype).eps + 1e-7)
    loaded.to(dtype)
    assert torch.equal(logits(other, "bert"), found)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # PEFT asks transformers for it
def test_output_and_gradients_are_pefts() -> None:
    model, base, adapter = with_dora("bert", "lora", rank=4)
    modules = [site.module for site in adapter.plan.sites]
    config = LoraConfig(r=4, lora_alpha=4, target_modules=modules, use_dora=True)
    peer = get_peft_model(copy.deepcopy(base), config)
    moved(adapter)
    pairs = []
    with torch.no_grad():
        for site, row_block in zip(adapter.plan.sites, adapter.plan.row_blocks, strict=True):
            layer = peer.base_model.model.get_submodule(site.module)
            a, b = adapter.pair(site)
            layer.lora_A["default"].weight.copy_(a)
            layer.lora_B["default"].weight.copy_(b)
            layer.lora_magnitude_vector["default"].weight.copy_(adapter.magnitudes.of(row_block))
            pairs.append((layer.lora_magnitude_vector["default"].weight, adapter.magnitudes.of(row_block)))
    torch.testing.assert_close(logits(model, "bert"), logits(peer, "bert"), rtol=0, atol=1e-10)
    for one in (model, peer):
        one(**inputs("bert")).logits.square().sum().backward()
    for theirs, ours in pairs:
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-8, atol=1e-10)


def test_export_and_compress_refuse_dora() -> None:
    model, _, adapter = with_dora("bert", "cp")
    with pytest.raises(ta.TensorAdaptError, match="a LoRA can only add; call ta"):
        ta.export_lora(model, "never-written")
    with pytest.raises(ta.TensorAdaptError, match="no sum of updates; merge"):
        ta.compress(adapter, method="lora", rank=2)
    tied = "layer proj task : head dim : model"
    with pytest.raises(ta.TensorAdaptError, match="Plan one adapter for each task"):
        ta.plan(make("bert"), tied, "cp", 2, tasks=("x", "y"), rule="dora")


def test_rank_dropout_drops_whole_components_in_training_alone_and_is_saved(tmp_path: Path) -> None:
    model = make("bert")
    sites = ta.find_sites(model, ("q",), layers=[0])
    adapter = ta.attach(model, ta.plan(sites, ": out : in", "lora", rank=4, rank_dropout=0.5))
    perturb(adapter)
    layer, x = model.get_submodule(sites[0].module), torch.eye(30)
    a, b = adapter.pair(sites[0])
    kept = set()
    for _ in range(20):
        update = (layer.train()(x) - layer.base(x)).T.detach()
        components = torch.stack([torch.outer(b[:, i], a[i]).flatten() for i in range(4)], 1)
        shares = torch.linalg.lstsq(components, update.flatten()).solution.round(decimals=6).tolist()
        assert set(shares) <= {0.0, 2.0}
        kept.add(tuple(shares))
    assert len(kept) > 3
    torch.testing.assert_close(layer.eval()(x) - layer.base(x), (b @ a).T, rtol=0, atol=1e-12)
    adapter.save(tmp_path)
    assert ta.load(make("bert"), tmp_path).plan.spec.rank_dropout == 0.5


def test_rank_dropout_leaves_a_subtracted_start_at_zero() -> None:
    model = make("bert").train()
    for part in model.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
    base = logits(model, "bert")
    plan = ta.plan(ta.find_sites(model), method="cp", rank=4, start="subtract", rank_dropout=0.5)
    ta.attach(model, plan)
    torch.testing.assert_close(logits(model, "bert"), base, rtol=0, atol=1e-12)
