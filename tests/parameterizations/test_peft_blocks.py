"""PEFT's own update from our factors for the methods that cut a matrix into blocks: GraLoRA, C3A, MiSS."""

from __future__ import annotations

from typing import Any

import peft
import pytest
import torch
from support.models import One
from torch import Tensor, nn

from tensoradapt.adapter.factored import FactoredTensor
from tensoradapt.networks.layout import Layout
from tensoradapt.parameterizations import get
from tensoradapt.testing.laws import Case, float64

TWO = ": out1 out2 : in1 in2"
SHAPES = [(30, 30), (48, 18), (12, 30)]  # out, in: multiples of 6


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


@pytest.mark.parametrize("shape", SHAPES)
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


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [2, 6])
def test_c3a_is_pefts(shape: tuple[int, int], size: int) -> None:
    tensor = ours("block_circulant", *((n // size, size) for n in shape))
    layer = assert_is_theirs(
        tensor, peft.C3AConfig(block_size=size, target_modules=["lin"]), {"c3a_kernel": tensor.factors["K"]}
    )
    delta = layer.get_delta_weight("default").detach()
    torch.testing.assert_close(tensor.delta({}).detach(), delta, rtol=0, atol=1e-5 * float(delta.abs().max()))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("r", "mini"), [(6, None), (3, 6), (6, 2)])
def test_miss_is_pefts(shape: tuple[int, int], r: int, mini: int | None) -> None:
    out, in_ = shape
    block = mini or out
    tensor = ours("shared_block", (out // block, block), (in_ // r, r))
    more = {"init_weights": "mini", "mini_r": mini} if mini else {}
    config = peft.MissConfig(r=r, target_modules=["lin"], **more)
    assert_is_theirs(tensor, config, {"miss_block": tensor.factors["D"].T})
