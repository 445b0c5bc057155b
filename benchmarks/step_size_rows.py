"""The rows that `step_size.py` compares: the plan of every published row and of every other parameterization, at any
width, depth and rank, and its adapter on random base weights.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

import tensoradapt as ta
from tensoradapt import parameterizations, published
from tensoradapt.adapter.adapter import Adapter
from tensoradapt.adapter.draws import starts_at_zero
from tensoradapt.planning.plan import Group, Plan
from tensoradapt.planning.variant import Variant, variant_of
from tensoradapt.sites.site import Sites
from tensoradapt.testing.laws import float64

MAX_PARAMS, LR = 300_000, 1e-4  # numbers of one tensor as published; five times as many if clipped
TASKS = ("a", "b", "c")  # for the row that has any: every task and site has gradients of its own
PROJECTIONS, HEAD_DIM = ("q", "v"), 64
TIED, FREE, SPLIT = "layer proj : head dim : model", ": out : in", ": out* : in*"
OTHERS: dict[str, tuple[str, str, dict[str, Any]]] = {  # what no published row has: name, layout, options
    "cp, weights": ("cp", TIED, {"weights": True}),
    "tucker": ("tucker", TIED, {}),
    "tensor_train": ("tensor_train", TIED, {}),
    "tensor_ring": ("tensor_ring", TIED, {}),
    "block_term": ("block_term", TIED, {}),
    "dense": ("dense", FREE, {}),
    "tt_matrix": ("tt_matrix", SPLIT, {}),
    "kronecker, full": ("kronecker", SPLIT, {"full": True}),
    "loretta, from zero": ("loretta", SPLIT, {}),
    "quanta, from zero": ("quanta", SPLIT, {}),
}
THREE = {64: (4, 4, 4), 128: (4, 4, 8), 256: (8, 8, 4), 512: (8, 8, 8), 768: (12, 8, 8), 1024: (16, 8, 8)}
THREE |= {2048: (16, 16, 8), 4096: (16, 16, 16)}
TWO = {64: (8, 8), 128: (8, 16), 256: (16, 16), 512: (16, 32), 768: (24, 32), 1024: (32, 32), 2048: (32, 64)}
TWO |= {4096: (64, 64)}
# the same at every rank: measured once
RANKLESS = ("quanta", "quanta, from zero", "dense", "kronecker, full", "krona", "kradapter", "c3a", "miss", "miss-mini")
WIDEST = dict.fromkeys(("dense", "randlora", "quanta", "quanta, from zero", "kronecker, full"), 2048)


@dataclass(frozen=True)
class Point:
    """A point at which the rows are compared."""

    rank: int = 8
    layers: int = 12
    width: int = 768
    lr: float = LR


def rows() -> tuple[str, ...]:
    """The published rows but Compacter, and the parameterizations that no row has."""
    return (*(name for name in published.names() if name != "compacter"), *OTHERS)  # whose shares Pull cannot place


@cache
def plan(name: str, point: Point, scale: str) -> tuple[Plan, bool] | None:
    """The plan of a row at a point, and whether its ranks are clipped; None where it is not defined."""
    if point.width > WIDEST.get(name, point.width):
        return None
    row = published.get(name) if name in published.names() else None
    family: str | Variant
    family, texts, options = (row.parameterization, row.layout, row.options) if row else OTHERS[name]
    wanted: dict[str, Any] = {"scale": scale, "options": dict(options), "rank": point.rank}
    if "out*" in str(texts) and (row is None or point.width not in row.split["in"]):
        parts = (TWO if getattr(parameterizations.get(family), "parts", ()) == (2,) else THREE)[point.width]
        own = {k: v for k, v in options.items() if k != "cores"}
        wanted |= {"split": {"in": parts, "out": parts}, "options": own}
    if "task" in str(texts):
        wanted["tasks"] = TASKS
    sites = _sites(point, tied="layer" in str(texts), blocks=row.blocks if row else False)
    if row and (made := _planned(sites, MAX_PARAMS, method=name, paper=True, **wanted)):
        return made, False
    if row:
        wanted = {"split": row.split, "start": row.start, "alpha": row.alpha if scale == "paper" else None, **wanted}
        family = variant_of(row, start=row.start)
    made = _planned(sites, 5 * MAX_PARAMS if family != "dense" else 2**31, layout=texts, method=family, **wanted)
    return (made, row is not None) if made else None


def _sites(point: Point, tied: bool, blocks: bool) -> Sites:
    sizes = {"hidden_size": point.width, "num_hidden_layers": point.layers if tied else 1}
    sizes |= {"num_attention_heads": point.width // HEAD_DIM, "intermediate_size": 4 * point.width}
    return ta.find_sites(SimpleNamespace(model_type="bert", **sizes), PROJECTIONS, blocks=blocks)


def _planned(sites: Sites, limit: int, **wanted: Any) -> Plan | None:
    try:
        made = ta.plan(sites, **wanted)
    except ta.TensorAdaptError:
        return None
    return made if max(group.network.n_params for group in made.groups) <= limit else None


def values(group: Group, plan: Plan, seed: int) -> dict[str, Tensor]:
    """The factors of one tensor that come from base weights, of random ones."""
    net, layout = group.network, group.network.layout
    wanted = [f for f in net.factors if f.source == "base" and not starts_at_zero(f, plan.begins.update)]
    rng = np.random.default_rng(seed)
    if [f.name for f in wanted if f.name[0] not in "AB"]:  # a train: DoTA's
        weights = rng.standard_normal(layout.shape) / math.sqrt(layout.in_)
        cores = parameterizations.get("tt_matrix").decompose(net, weights, seed)
        return {f.name: torch.from_numpy(np.ascontiguousarray(cores[f.name])) for f in wanted}
    made = {}
    for factor in wanted:  # A = S V^T and B = U where only the middle is trained (LoRA-XS), else the root on both sides
        middle, bond = "R" in [f.name for f in net.factors], (0 if factor.name[0] == "A" else -1)
        n = net.shape(factor)[bond]
        frame, _ = np.linalg.qr(rng.standard_normal((layout.in_, n)))
        power = {"A": -0.5, "B": 0.0}[factor.name[0]] if middle else -0.25
        scaled = frame * np.arange(1, n + 1) ** power
        made[factor.name] = torch.from_numpy((scaled.T if factor.name[0] == "A" else scaled).reshape(net.shape(factor)))
    return made


def adapter(made: Plan, seed: int) -> Adapter:
    """The adapter of a plan in float64, with random base weights where it needs any."""
    based = made.needs_weights
    found = [values(group, made, 100 * seed + i) for i, group in enumerate(made.groups)] if based else None
    with float64():
        return Adapter(made, seed, found)


def layers_of(made: Plan) -> int:
    """How many layers a plan adapts."""
    return len({site.coord["layer"] for site in made.sites})
