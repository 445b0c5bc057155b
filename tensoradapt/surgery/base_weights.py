"""Base weights: their hash, and the factors that start from them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from tensoradapt import parameterizations
from tensoradapt.adapter.dense_stack import stack
from tensoradapt.adapter.draws import starts_at_zero
from tensoradapt.layers.kinds import block_of, weight_of
from tensoradapt.layers.quantised import quantised
from tensoradapt.planning.plan import Group, Plan
from tensoradapt.surgery.checks import check_loaded

SAMPLE = 1024  # entries of each base weight that the hash covers


def factors_from_weights(modules: Mapping[str, nn.Module], plan: Plan, seed: int) -> list[dict[str, Tensor]]:
    """Of each tensor of a plan, the factors that come from the base weights; ``modules``: by the names of the sites."""
    return [_from_weights(modules, group, plan, seed) for group in plan.groups]


def _from_weights(modules: Mapping[str, nn.Module], group: Group, plan: Plan, seed: int) -> dict[str, Tensor]:
    """The factors of one tensor that come from the base weights, by the parameterization's own decomposition."""
    based = [factor for factor in group.network.factors if factor.source == "base"]
    if plan.start == "gradient":
        based = [factor for factor in based if not factor.trainable]
    wanted = [factor.name for factor in based if not starts_at_zero(factor, plan.start)]
    if not wanted:
        return {}
    weights = stack(group, lambda site: block_of(modules[site.module], site))
    found = parameterizations.get(plan.family).decompose(group.network, weights.numpy(), seed=seed)
    return {name: torch.from_numpy(np.ascontiguousarray(found[name])) for name in wanted}


def base_hash(modules: Mapping[str, nn.Module], plan: Plan) -> str:
    """A hash over the first entries of every weight the plan adapts: tells bases apart, cheaply at any size."""
    digest = hashlib.sha256()
    for site in plan.sites:
        if site.module not in modules:
            continue  # attach names it
        check_loaded(modules[site.module], site)
        packed = quantised(modules[site.module])
        weight = packed.matrix(modules[site.module]) if packed else weight_of(modules[site.module], site)
        digest.update(site.name.encode() + weight.detach().flatten()[:SAMPLE].double().cpu().numpy().tobytes())
    return digest.hexdigest()
