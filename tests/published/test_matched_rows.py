"""Matched scale: the first Adam step of every published row moves the matrices as far as LoRA's does.

The gradients are of rank 4 with directions that sites share in part; the rule is solved for gradients of independent
entries, so the two agree only as far as the rule does not depend on them.
"""

from __future__ import annotations

import math
import statistics
from functools import cache
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support.published_rows import BLOCKS
from torch import Tensor

import tensoradapt as ta
from tensoradapt import published
from tensoradapt.adapter.adapter import Adapter
from tensoradapt.networks.halves import pissa
from tensoradapt.planning.plan import Group, Plan
from tensoradapt.published.row import Published
from tensoradapt.testing.laws import float64

WIDTH, LAYERS, HEADS, RANK, SEEDS, LR = 64, 8, 8, 8, 5, 1e-5
CONFIG = SimpleNamespace(
    model_type="bert",
    hidden_size=WIDTH,
    num_hidden_layers=LAYERS,
    num_attention_heads=HEADS,
    intermediate_size=2 * WIDTH,
)
THREE = {"split": {"in": (4, 4, 4), "out": (4, 4, 4)}}
OWN: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("tt-lora", "quanta", "dota"), THREE),
    "loretta-rep": {**THREE, "options": {"bottleneck": 8}},
    **{name: {"split": {"in": (8, 8), "out": (8, 8)}} for name in BLOCKS},
    **{name: {"split": {"in": (2, 32), "out": (2, 32)}} for name in ("gralora", "more")},
    "miss": {"split": {"in": (8, 8), "out": (1, 64)}},
    "metatt-4+1d": {"tasks": ("a", "b")},
}


def random_bases(row: Published, group: Group, seed: int) -> dict[str, Tensor]:
    """Base factors as a weight of this width gives them; what starts at zero is left to the start."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(group.network.layout.shape, generator=generator, dtype=torch.float64) / 8
    decompose = getattr(ta.parameterizations.get(row.parameterization), "decompose", None)
    if decompose is None:  # ABBA's first pair
        left, right = pissa(weight.numpy(), None, group.network.bonds["r"])
        return {"B1": torch.from_numpy(left), "A1": torch.from_numpy(right)}
    found = decompose(group.network, weight.numpy(), seed=seed)
    based = [factor.name for factor in group.network.factors if factor.source == "base"]
    return {name: torch.from_numpy(found[name].copy()) for name in based}


def adapter(plan: Plan, row: Published, seed: int) -> Adapter:
    values = [random_bases(row, g, 10 * seed + i) for i, g in enumerate(plan.groups)] if plan.needs_weights else None
    with float64():
        return Adapter(plan, seed, values)


def gradients(n_sites: int, seed: int) -> list[Tensor]:  # (WIDTH, WIDTH) each
    generator = torch.Generator().manual_seed(seed)
    shared = torch.randn(2, WIDTH, 4, generator=generator, dtype=torch.float64)
    own = torch.randn(n_sites, 2, WIDTH, 4, generator=generator, dtype=torch.float64)
    return [u @ v.T for u, v in (shared + own) / math.sqrt(2)]


def first_step(plan: Plan, row: Published, seed: int) -> float:
    """The RMS of what one Adam step changes, per unit rate."""
    made, sites = adapter(plan, row, seed), plan.sites
    tasks = plan.spec.tasks or (None,)
    pull = gradients(len(sites) * len(tasks), seed)

    def deltas() -> list[Tensor]:
        found = []
        for task in tasks:
            if task:
                made.select(task=task)
            found += [made.delta(site) for site in sites]
        return found

    before = deltas()
    rates = made.rates()
    optimizer = torch.optim.Adam([{"params": [p], "lr": LR * rate} for p, rate in rates.items()], eps=1e-30)
    sum((g * d).sum() for g, d in zip(pull, before, strict=True)).backward()
    optimizer.step()
    with torch.no_grad():
        moved = [(new - old).square().mean().item() for new, old in zip(deltas(), before, strict=True)]
    return math.sqrt(statistics.fmean(moved)) / LR


def ratio(name: str, scale: str = "matched") -> float:
    """A row's first step over that of LoRA r=8, alpha=16, from its source's own draws: the mean of the seeds."""
    return mean_step(name, RANK, scale) / mean_step("lora", 8, "paper")


@cache
def mean_step(name: str, rank: int, scale: str) -> float:
    row = published.get(name)
    sites = ta.find_sites(CONFIG, ("q", "v"), blocks=row.blocks)
    plan = ta.plan(sites, method=name, paper=True, rank=rank, scale=scale, **OWN.get(name, {}))
    return statistics.fmean(first_step(plan, row, seed) for seed in range(SEEDS))


@pytest.mark.parametrize("name", published.names())
def test_the_first_step_of_every_row_is_loras_within_a_tenth(name: str) -> None:
    assert ratio(name) == pytest.approx(1, rel=0.1)


@pytest.mark.parametrize(("name", "low", "high"), [("lotr", 2, math.inf), ("loha", 0, 0.2), ("vera", 0, 0.2)])
def test_under_the_papers_own_scales_it_is_not(name: str, low: float, high: float) -> None:
    assert low < ratio(name, "paper") < high
