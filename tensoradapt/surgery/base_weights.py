"""Hash the base weights, and make the factors that start from them."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor

from tensoradapt import parameterizations
from tensoradapt.adapter.dense_stack import stack
from tensoradapt.adapter.draws import starts_at_zero
from tensoradapt.layers.stored_matrix import Matrices
from tensoradapt.planning.plan import Group, Plan
from tensoradapt.surgery.checks import check_loaded

SAMPLE = 1024  # entries of each base weight that the hash covers


def factors_from_weights(matrices: Matrices, plan: Plan, seed: int) -> list[dict[str, Tensor]]:
    """For each tensor of a plan the factors that come from the base weights."""
    return [_from_weights(matrices, group, plan, seed) for group in plan.groups]


def _from_weights(matrices: Matrices, group: Group, plan: Plan, seed: int) -> dict[str, Tensor]:
    """The factors of one tensor that come from the base weights, by the parameterization's own decomposition."""
    based = [factor for factor in group.network.factors if factor.source == "base"]
    if plan.start == "gradient":
        based = [factor for factor in based if not factor.trainable]
    wanted = [factor.name for factor in based if not starts_at_zero(factor, plan.start)]
    if not wanted:
        return {}
    weights = stack(group, lambda site: matrices[site.name].block())
    factors = parameterizations.get(plan.given_parameterization).decompose(group.network, weights.numpy(), seed=seed)
    return {name: torch.from_numpy(np.ascontiguousarray(factors[name])) for name in wanted}


def base_hash(matrices: Matrices) -> str:
    """A hash over the first entries of every adapted weight, which tells bases apart and is cheap at any size."""
    digest = hashlib.sha256()
    for name, matrix in matrices.items():
        check_loaded(matrix)
        weight = matrix.read() if matrix.quantisation else matrix.weight
        digest.update(name.encode() + weight.detach().flatten()[:SAMPLE].double().cpu().numpy().tobytes())
    return digest.hexdigest()
