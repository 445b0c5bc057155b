"""PEFT's own update from our factors, in the stored orientation: rsLoRA, PiSSA, LoHa, LoKr, RandLoRA, TinyLoRA."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import peft
import pytest
import torch
import transformers
from support.families import planned
from support.models import ENCODER, TEXT, inputs, perturb
from torch import Tensor, nn

import tensoradapt as ta
from tensoradapt.adapter.factored import FactoredTensor

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
TARGETS = r".*(query|attention\.output\.dense|intermediate\.dense|layer\.\d+\.output\.dense)"
SHAPES = {(30, 30), (34, 30), (30, 34)}  # q and o, up, down as stored


@pytest.fixture(scope="module")
def bert() -> nn.Module:
    torch.manual_seed(0)
    return transformers.BertModel(transformers.BertConfig(**ENCODER, **TEXT, initializer_range=0.2)).eval()


def pairs(
    bert: nn.Module, config: peft.PeftConfig, parameterization: str | None = None, **changes: Any
) -> Iterator[tuple[ta.Adapter, FactoredTensor, nn.Module, str]]:
    """Ours and PEFT's for each site, ours with the published multiplier and perturbed."""
    theirs = peft.get_peft_model(copy.deepcopy(bert), config).eval()
    model = copy.deepcopy(bert)
    sites = ta.find_sites(model, ("q", "o", "up", "down"))
    plan = planned(sites, parameterization, scale="paper", **changes) if parameterization else ta.plan(sites, **changes)
    adapter = ta.attach(model, plan)
    perturb(adapter, std=0.5)
    assert {(site.out, site.in_) for site in adapter.plan.sites} == SHAPES
    for group, tensor in zip(adapter.plan.groups, adapter.tensors, strict=True):
        (member,) = group.members
        layer = theirs.base_model.model.get_submodule(member.site.module)
        yield adapter, tensor, layer, member.site.name
    check_models(model, theirs, parameterization)


def check_models(model: nn.Module, theirs: nn.Module, parameterization: str | None) -> None:
    if parameterization != "randlora":  # PEFT's layers share bases that are relabelled for one of them at a time
        ours, peers = (one(**inputs("bert")).last_hidden_state for one in (model, theirs))
        torch.testing.assert_close(ours, peers, rtol=0, atol=2e-4)


def assert_same(adapter: ta.Adapter, name: str, layer: nn.Module) -> None:
    expected = layer.get_delta_weight("default").detach()
    assert expected.abs().max() > 1e-3
    torch.testing.assert_close(adapter.delta(name), expected, rtol=0, atol=3e-6 * float(expected.abs().max()))


def copy_into(layer: nn.Module, values: dict[str, Tensor]) -> None:
    with torch.no_grad():
        for name, value in values.items():
            getattr(layer, name)["default"].copy_(value)


def test_rslora_is_pefts(bert: nn.Module) -> None:
    config = peft.LoraConfig(r=3, lora_alpha=16, use_rslora=True, target_modules=TARGETS)
    for adapter, tensor, layer, name in pairs(bert, config, method="rslora", paper=True, rank=3):
        assert not layer.lora_B["default"].weight.count_nonzero()
        copy_lora(layer, tensor)
        assert_same(adapter, name, layer)
        other = 16 / 3 * tensor.factors["B"] @ tensor.factors["A"]  # LoRA's own multiplier
        assert (other - adapter.delta(name)).abs().max() > 0.1


def test_pissa_is_pefts(bert: nn.Module) -> None:
    """PEFT takes the first r directions out of the weight; here they are subtracted from the update. So PEFT's update
    less its start is ours, and so are the outputs.
    """
    config = peft.LoraConfig(r=3, lora_alpha=3, init_lora_weights="pissa", target_modules=TARGETS)
    for adapter, tensor, layer, name in pairs(bert, config, method="pissa", paper=True, rank=3):
        start = layer.get_delta_weight("default").detach()
        a, b = tensor.held["initial.A"], tensor.held["initial.B"]
        torch.testing.assert_close(b @ a, start, rtol=0, atol=1e-5)
        # a singular vector's sign is free, its share of the singular value is not
        for ours, peers, dim in ((a, layer.lora_A, 1), (b, layer.lora_B, 0)):
            torch.testing.assert_close(ours.norm(dim=dim), peers["default"].weight.norm(dim=dim), rtol=1e-4, atol=0)
        copy_lora(layer, tensor)
        expected = layer.get_delta_weight("default").detach() - start
        assert expected.abs().max() > 0.1
        torch.testing.assert_close(adapter.delta(name), expected, rtol=0, atol=1e-5)


def copy_lora(layer: nn.Module, tensor: FactoredTensor) -> None:
    with torch.no_grad():
        layer.lora_A["default"].weight.copy_(tensor.factors["A"])
        layer.lora_B["default"].weight.copy_(tensor.factors["B"])


def test_loha_is_pefts(bert: nn.Module) -> None:
    for adapter, tensor, layer, name in pairs(bert, peft.LoHaConfig(r=3, target_modules=TARGETS), "loha", rank=3):
        names = {"hada_w1_a": "B1", "hada_w1_b": "A1", "hada_w2_a": "B2", "hada_w2_b": "A2"}
        assert not layer.hada_w2_b["default"].count_nonzero()  # the factor that is zero at the start is the same
        assert tensor.network.zero.name == "A2"
        copy_into(layer, {peer: tensor.factors[own] for peer, own in names.items()})
        assert_same(adapter, name, layer)


@pytest.mark.parametrize(("rank", "options"), [(2, {}), (9, {"full": True})])
def test_lokr_is_pefts(bert: nn.Module, rank: int, options: dict[str, Any]) -> None:
    # PEFT takes the full second factor from r >= half its longer side, and divides alpha by r all the same
    config = peft.LoKrConfig(r=rank, alpha=8, target_modules=TARGETS)
    for adapter, tensor, layer, name in pairs(bert, config, "kronecker", rank=rank, options=options):
        assert not layer.lokr_w1["default"].count_nonzero()
        assert tensor.network.zero.name == "C"
        names = {"lokr_w1": "C", **({"lokr_w2": "D"} if options else {"lokr_w2_a": "B", "lokr_w2_b": "A"})}
        copy_into(layer, {peer: tensor.factors[own] for peer, own in names.items()})
        assert_same(adapter, name, layer)


@pytest.mark.parametrize("rank", [4, 7])
def test_randlora_is_pefts_with_its_bases_relabelled(bert: nn.Module, rank: int) -> None:
    """PEFT flattens (term, r) for its larger bases and (r, term) for the smaller: with its column of B at r * n + term
    taken from our (term, r), it computes our sum.
    """
    for adapter, tensor, layer, name in pairs(
        bert, peft.RandLoraConfig(r=rank, target_modules=TARGETS), "randlora", rank=rank
    ):
        f = tensor.factors
        n, big, r = f["B"].shape
        assert layer.num_bases == n
        assert not layer.randlora_lambda["default"].count_nonzero()
        assert layer.randlora_gamma["default"].unique().item() == pytest.approx(1 / 30)
        relabelled = f["B"].permute(1, 2, 0).reshape(big, n, r)
        layer.randlora_B["default"][:big, :n].copy_(relabelled)
        layer.randlora_A["default"][:, 0, : f["A"].shape[1]].copy_(f["A"])
        copy_into(layer, {"randlora_lambda": f["L"].T, "randlora_gamma": f["G"]})
        assert_same(adapter, name, layer)


def test_randloras_bases_have_the_variance_that_pefts_have(bert: nn.Module) -> None:
    config = peft.RandLoraConfig(r=6, target_modules=TARGETS)
    _, tensor, layer, _ = next(pairs(bert, config, "randlora", rank=6))
    for ours, peers in ((tensor.factors["A"], layer.randlora_A), (tensor.factors["B"], layer.randlora_B)):
        assert float(ours.detach().std()) == pytest.approx(float(peers["default"].std()), rel=0.1)


@pytest.mark.parametrize("svd_rank", [2, 5])
def test_tinylora_is_pefts(bert: nn.Module, svd_rank: int) -> None:
    config = peft.TinyLoraConfig(r=svd_rank, u=4, target_modules=TARGETS)
    for adapter, tensor, layer, name in pairs(bert, config, "tinylora", rank=4, options={"svd_rank": svd_rank}):
        f = tensor.factors
        theirs = layer.tinylora_B["default"] @ layer.tinylora_A["default"]
        torch.testing.assert_close(f["B"] @ f["A"], theirs, rtol=0, atol=1e-5)
        torch.testing.assert_close(f["A"].norm(dim=1), layer.tinylora_A["default"].norm(dim=1), rtol=1e-4, atol=0)
        copy_into(layer, {"tinylora_A": f["A"], "tinylora_B": f["B"]})  # a singular vector's sign is free
        copy_into(layer, {"tinylora_P": f["P"] / svd_rank**0.5})  # ours have variance 1, and the multiplier the rest
        with torch.no_grad():
            v = layer.tinylora_v["default"][layer._tinylora_v_key["default"]]
            assert not v.count_nonzero()
            v.copy_(f["v"])
        assert_same(adapter, name, layer)


def test_tied_tinylora_is_pefts_with_one_vector_for_all_matrices(bert: nn.Module) -> None:
    config = peft.TinyLoraConfig(r=2, u=4, weight_tying=1.0, target_modules=["query", "key"])
    theirs, model = peft.get_peft_model(copy.deepcopy(bert), config), copy.deepcopy(bert)
    options = {"svd_rank": 2, "tied": True}
    plan = ta.plan(ta.find_sites(model, ("q", "k")), "layer proj : out : in", "tinylora", 4, options=options)
    adapter = ta.attach(model, plan)
    assert plan.n_params == 4 == sum(p.numel() for p in theirs.parameters() if p.requires_grad)
    perturb(adapter, std=0.5)
    tensor = adapter.factored[0]
    f = {name: value.detach() for name, value in tensor.factors.items()}
    for member in plan.groups[0].members:
        layer = theirs.base_model.model.get_submodule(member.site.module)
        at = member.at["layer"], member.at["proj"]
        # PEFT has no multiplier; it goes to P here
        copy_into(layer, {"tinylora_A": f["A"][at], "tinylora_B": f["B"][at], "tinylora_P": tensor.scale * f["P"]})
        with torch.no_grad():
            layer.tinylora_v["default"][layer._tinylora_v_key["default"]].copy_(f["v"])
        assert_same(adapter, member.site.name, layer)
