"""PEFT's own update from our factors, in the stored orientation: LoRA's relatives, and methods that cut a matrix."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import peft
import pytest
import torch
import transformers
from support.families import planned
from support.models import ENCODER, TEXT, One, inputs, perturb
from torch import Tensor, nn

import tensoradapt as ta
from tensoradapt.adapter.factored import FactoredTensor
from tensoradapt.networks.layout import Layout
from tensoradapt.parameterizations import get
from tensoradapt.testing.laws import Case, float64

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


TWO = ": out1 out2 : in1 in2"
CUT = [(30, 30), (48, 18), (12, 30)]  # out, in: multiples of 6


def ours(name: str, out: tuple[int, int], in_: tuple[int, int], rank: Any = None) -> FactoredTensor:
    """A perturbed tensor at the paper's multiplier."""
    layout = Layout.parse(TWO, dict(zip(("out1", "out2", "in1", "in2"), (*out, *in_), strict=True)))
    return Case(name, get(name).build(layout, rank), {}, seed=3, scale="paper").perturbed()


def assert_is_theirs(tensor: FactoredTensor, config: peft.PeftConfig, names: dict[str, Tensor]) -> nn.Module:
    """Copies values into PEFT's parameters of those names; its number of parameters and its outputs are ours."""
    torch.manual_seed(0)
    shape = tensor.delta({}).shape
    base = One(*shape).double()
    x = torch.randn(5, shape[1], dtype=torch.float64)
    before = base(x).detach()
    with float64():
        theirs = peft.get_peft_model(base, config).double()
    layer = theirs.base_model.model.lin
    n = sum(p.numel() for p in theirs.parameters() if p.requires_grad)
    assert n == tensor.network.n_params
    for name, value in names.items():
        held = getattr(layer, name)["default"]
        held.data = value.detach().reshape(held.shape).to(held.dtype)
    expected = theirs(x).detach() - before
    assert expected.abs().max() > 1e-2
    torch.testing.assert_close(tensor.apply(x, {}).detach(), expected, rtol=0, atol=2e-5 * float(expected.abs().max()))
    return layer


@pytest.mark.parametrize("shape", CUT)
@pytest.mark.parametrize(("blocks", "rank"), [(2, 3), (6, 1)])
def test_gralora_is_pefts(shape: tuple[int, int], blocks: int, rank: int) -> None:
    """Its r is a block's rank times the blocks of a side; A's rank axis is (out1, s), B's (in1, s)."""
    tensor = ours("block_low_rank", *((blocks, n // blocks) for n in shape), rank=rank)
    config = peft.GraloraConfig(r=rank * blocks, gralora_k=blocks, alpha=64, target_modules=["lin"])
    f = tensor.factors
    layer = assert_is_theirs(tensor, config, {"gralora_A": f["A"], "gralora_B": f["B"]})
    delta = layer.get_delta_weight("default").detach()
    torch.testing.assert_close(tensor.delta({}).detach(), delta, rtol=0, atol=1e-12 * float(delta.abs().max()))
    assert tensor.network.rank == rank and tensor.network.zero.name == "B"


@pytest.mark.parametrize("shape", CUT)
@pytest.mark.parametrize("size", [2, 6])
def test_c3a_is_pefts(shape: tuple[int, int], size: int) -> None:
    tensor = ours("block_circulant", *((n // size, size) for n in shape))
    layer = assert_is_theirs(
        tensor, peft.C3AConfig(block_size=size, target_modules=["lin"]), {"c3a_kernel": tensor.factors["K"]}
    )
    delta = layer.get_delta_weight("default").detach()
    torch.testing.assert_close(tensor.delta({}).detach(), delta, rtol=0, atol=1e-5 * float(delta.abs().max()))


@pytest.mark.parametrize("shape", CUT)
@pytest.mark.parametrize(("r", "mini"), [(6, None), (3, 6), (6, 2)])
def test_miss_is_pefts(shape: tuple[int, int], r: int, mini: int | None) -> None:
    out, in_ = shape
    block = mini or out
    tensor = ours("shared_block", (out // block, block), (in_ // r, r))
    more = {"init_weights": "mini", "mini_r": mini} if mini else {}
    config = peft.MissConfig(r=r, target_modules=["lin"], **more)
    assert_is_theirs(tensor, config, {"miss_block": tensor.factors["D"].T})
