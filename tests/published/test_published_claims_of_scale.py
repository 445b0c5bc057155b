"""Claims 13 to 17: what the first step changes, and what a learning rate means."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch
from support.claims import ZERO, adapter_of
from support.models import inputs, make, perturb
from torch import Tensor

import tensoradapt as ta
from tensoradapt import parameterizations, published
from tensoradapt.adapter.factored import FactoredTensor
from tensoradapt.networks.layout import Layout
from tensoradapt.networks.network import Network
from tensoradapt.planning.variant import Variant
from tensoradapt.testing.laws import float64


def first_step(network: Network, seed: int, random_signs: bool = False) -> float:
    """The RMS of the update per unit (alpha lr) after a sign step of the zero factor, for a normal gradient.

    ``random_signs``: the step of a gradient whose entries are independent, as the factor's own are where it is small.
    """
    generator = torch.Generator().manual_seed(1000 + seed)
    with float64():
        tensor = FactoredTensor(network, scale="paper", alpha=1.0, seed=seed)
    value, full = tensor.trained[network.zero.name], tensor.full()
    if random_signs:
        sign = torch.randn(value.shape, generator=generator).sign()
    else:
        slope = torch.randn(full.shape, generator=generator, dtype=torch.float64)
        (gradient,) = torch.autograd.grad((full * slope).sum(), value)
        sign = gradient.sign()
    with torch.no_grad():
        value.copy_(sign)
        return float(tensor.full().square().mean().sqrt())


def mean_step(network: Network, seeds: int = 3, **how: bool) -> float:
    return float(np.mean([first_step(network, seed, **how) for seed in range(seeds)]))


def sized(text: str, d: int, heads: int, layers: int, proj: int = 4) -> Layout:
    sizes = {"layer": layers, "proj": proj, "head": heads, "dim": d // heads, "model": d, "out": d, "in": d}
    return Layout.parse(text, sizes)


CP, LORTA = parameterizations.get("cp"), "layer proj : head dim : model"
TABLE = {4: (4.3e-2, 2.6e-3, 1.8e-2), 16: (1.4e-3, 1.0e-4, 9.2e-3), 128: (8.8e-6, 6.0e-7, 3.7e-3)}


@pytest.mark.parametrize("rank", TABLE)
def test_claim_13_loras_first_step_falls_as_the_root_of_the_rank_and_lortas_as_its_fifth_power(rank: int) -> None:
    """At d = 256, H = L = M = 4: LoRTA (init_scale 0, 1) and LoRA. Theory: LoRTA (1/r) sqrt(r) (3 r)^-1/2 (2/r)^3/2, of
    any width; LoRA (1/r) sqrt(r) (3 d)^-1/2. A draw has r components of 12 small factors, so the mean of four is within
    30 %.
    """
    layout = sized(LORTA, 256, 4, 4)
    official = CP.build(layout, rank)
    other = Variant(CP, draws=dict.fromkeys(("layer", "proj", "head"), ("uniform", 1 / math.sqrt(rank))))
    lorta = mean_step(official, 4)
    assert lorta == pytest.approx(TABLE[rank][0], rel=0.3)
    assert lorta == pytest.approx(math.sqrt(8 / 3) * rank**-2.5, rel=0.3)
    narrow = mean_step(CP.build(sized(LORTA, 64, 4, 4), rank), 4)
    assert narrow == pytest.approx(lorta, rel=0.4)  # does not depend on d
    # init_scale 1 draws from the same numbers, within 1 / sqrt(r) and not sqrt(6 / r), three factors of them
    assert first_step(other.build(layout, rank), 0) == pytest.approx(first_step(official, 0) / 6**1.5, rel=1e-9)
    assert lorta / 6**1.5 == pytest.approx(TABLE[rank][1], rel=0.3)
    lora = mean_step(parameterizations.get("lora").build(sized(": out : in", 256, 4, 4), rank))
    assert lora == pytest.approx(TABLE[rank][2], rel=0.05)
    assert lora == pytest.approx(1 / math.sqrt(3 * 256 * rank), rel=0.15)
    # factors of size 1 and an input factor of LoRA's size restore its law
    ones = {"model": ("uniform", 1 / 16), **dict.fromkeys(("layer", "proj", "head"), ("uniform", math.sqrt(3)))}
    assert mean_step(Variant(CP, draws=ones).build(layout, rank), 4) == pytest.approx(lora, rel=0.3)


@pytest.mark.parametrize("rank", [1, 4, 16, 64])
def test_claim_14_lotrs_first_step_is_its_scale_at_every_rank(rank: int) -> None:
    """U G V / r with normal U, V and a core of signs has RMS 1, whatever the rank and width: 100 steps of LoRA at r = 4
    and d = 768. The signs of a real gradient are correlated, for what U and V span: 1.17 at r = 64 and d = 256.
    """
    row = published.get("lotr")
    family = Variant(parameterizations.get("tucker"), draws=row.draws, power=row.power)
    network = family.build(sized("layer : out : in", 256, 4, 4), rank, **row.options)
    assert mean_step(network, random_signs=True) == pytest.approx(1, abs=0.06)
    assert 0.94 < mean_step(network) < 1.25
    if rank == 4:
        wide = family.build(sized("layer : out : in", 768, 4, 2), rank, **row.options)
        lora = 1 / math.sqrt(3 * 768 * 4)
        assert mean_step(wide, 2, random_signs=True) / lora == pytest.approx(96, rel=0.06)


def moved(tensor: FactoredTensor, change: Callable[[Mapping[str, Tensor]], None], steps: int = 5) -> list[Tensor]:
    """The tensor with changed factors, before and after a few steps of Adam towards a fixed one."""
    own = copy.deepcopy(tensor)
    with torch.no_grad():
        change(own.trained)
    target = torch.randn(own.network.layout.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    optimizer, seen = torch.optim.Adam(own.parameters(), lr=0.02), [own.full().detach()]
    for _ in range(steps):
        optimizer.zero_grad()
        (own.full() - target).square().sum().backward()
        optimizer.step()
    return [*seen, own.full().detach()]


def assert_gauge(tensor: FactoredTensor, change: Callable[[Mapping[str, Tensor]], None], same_path: bool) -> None:
    (before, after), (changed, elsewhere) = moved(tensor, lambda _: None), moved(tensor, change)
    torch.testing.assert_close(changed, before, rtol=0, atol=1e-12)
    travelled, apart = float((after - before).norm()), float((elsewhere - after).norm())
    assert apart < 1e-9 * travelled if same_path else apart > 0.1 * travelled, (apart, travelled)


def test_claim_16_adam_sees_the_gauge_that_the_update_does_not() -> None:
    """A CP component's factors by c and 1 / c: same update, another path. Components in another order: same path."""
    tensor = adapter_of(("q", "v"), method="lorta", paper=True, rank=3).factored[0]

    def scaled(f: Mapping[str, Tensor]) -> None:
        f["head"][:, 1] *= 5
        f["layer"][:, 1] /= 5

    def reordered(f: Mapping[str, Tensor]) -> None:
        for value in f.values():
            value.copy_(value[:, [2, 0, 1]])

    assert_gauge(tensor, scaled, same_path=False)
    assert_gauge(tensor, reordered, same_path=True)


@pytest.mark.parametrize("bond", [("in", "layer"), ("layer", "proj"), ("proj", "out")])
def test_claim_16_every_bond_of_a_train_has_a_matrix_of_freedom(bond: tuple[str, str]) -> None:
    """G_k X and X^-1 G_{k+1} for any invertible X."""
    tensor = adapter_of(("q", "v"), method="metatt-4d", paper=True, rank=2).factored[0]
    x = torch.tensor([[1.0, 4.0], [-0.5, 0.25]], dtype=torch.float64)

    def turned(f: Mapping[str, Tensor]) -> None:
        f[bond[0]].copy_(torch.tensordot(f[bond[0]], x, 1))
        f[bond[1]].copy_(torch.tensordot(torch.linalg.inv(x), f[bond[1]], 1))

    assert_gauge(tensor, turned, same_path=False)


def regression_loss(name: str, rates: dict[str, float]) -> float:
    """The loss of a tiny BERT without dropout after 20 steps towards another one's logits, from 0.0138 at the start."""
    target, model = make("bert"), make("bert")
    with float64():
        teacher = ta.attach(target, ta.plan(target, method="cp", rank=3, scale=1.0))
        ta.attach(model, ta.plan(model, method=name, paper=True, rank=3, rates=rates, alpha=4.0, train=()))
    perturb(teacher, 0.6)
    with torch.no_grad():
        wanted = target(**inputs("bert")).logits
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0

    def loss(student: torch.nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        return (student(**batch).logits - wanted).square().mean()

    return ta.fit(model, [inputs("bert")] * 20, lr=1e-3, steps=20, warmup=0, loss=loss).losses[-1]


FACTORS = {"lora": ("A", "B"), "tenslora-att_qkv_depth": ("in", "layer", "proj", "head", "dim", "core")}


@pytest.mark.parametrize("name", FACTORS)
def test_claim_17_a_higher_rate_for_the_zero_factor_lowers_the_loss(name: str) -> None:
    """LoRA+ and TensLoRA+: B, or the core, at 8 times the rate of the others; it helps more than the reverse."""
    others = [factor for factor in FACTORS[name] if factor != ZERO[name]]
    plain, faster, slower = (
        regression_loss(name, dict.fromkeys(raised, 8.0)) for raised in ((), (ZERO[name],), others)
    )
    assert faster < plain / 2
    assert faster < 0.8 * slower
