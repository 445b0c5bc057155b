"""Alternating least squares fits any labelled network to a tensor, in float64 numpy. No torch.

The dense tensor is linear in each factor, so each factor f is solved for with the others fixed: ``G f = h``, where G
contracts the other factors with themselves and h contracts them with the tensor. Modes that other factors also hold are
batch axes; modes of the factor alone are right-hand sides.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import opt_einsum

from tensoradapt.errors import TensorAdaptError
from tensoradapt.networks.contraction import compile_program, size
from tensoradapt.networks.gram import axes, normal_matrix
from tensoradapt.networks.network import Factor, Network

Factors = dict[str, np.ndarray]
MAX_SYSTEM = 4096  # unknowns of one system of equations
NEGLIGIBLE = 1e-10  # relative to the largest slice of a factor along a bond: smaller ones count as zero
RIDGE = 1e-13  # relative to the largest entry of G: keeps a degenerate system solvable


def decompose(network: Network, tensor: np.ndarray, seed: int = 0, restarts: int = 3) -> Factors:
    """Fit factors to ``tensor`` from several random starts, and return the best.

    It serves parameterizations without a ``decompose``. For a zero tensor the network's zero factor is zero.
    """
    size = np.linalg.norm(tensor)
    if not size:
        return zero(network, seed)
    fits = [fit(network, tensor / size, draw(network, seed + i)) for i in range(restarts)]
    best = min(fits, key=lambda fitted: fitted[1])[0]
    return revived(network, {**best, network.zero.name: best[network.zero.name] * size}, seed)


def fit(
    network: Network,
    tensor: np.ndarray,  # layout.shape
    start: Mapping[str, np.ndarray],
    *,
    sweeps: int = 100,
    tolerance: float = 1e-5,
) -> tuple[Factors, float]:
    """Improve the factors ``start``, and return them with their relative Frobenius error.

    Frozen factors stay as they are. The error falls with each factor. The fit stops after ``sweeps``, at an error of
    1e-14, or when ten sweeps lower the error by less than the share ``tolerance``.
    """
    factors, norm = {name: np.array(value) for name, value in start.items()}, float(np.linalg.norm(tensor))
    errors = [relative_error(network, tensor, factors, norm)]
    for sweep in range(sweeps):
        for factor in (f for f in network.factors if f.trainable):
            factors[factor.name] = solve(network, tensor, factors, factor)
        errors.append(relative_error(network, tensor, factors, norm))
        stalled = sweep >= 10 and errors[-11] - errors[-1] < tolerance * errors[-11]
        if errors[-1] < 1e-14 or stalled:
            break
    return factors, errors[-1]


def solve(network: Network, tensor: np.ndarray, factors: Mapping[str, np.ndarray], factor: Factor) -> np.ndarray:
    """Return the factor that brings the network closest to ``tensor`` with the others fixed."""
    others = [f for f in network.factors if f is not factor]
    if not others:  # the factor is the tensor
        return np.transpose(tensor, [network.layout.names.index(x) for x in factor.labels]).copy()
    shared, alone, bonds = axes(network, factor)
    n, m = size(bonds, network.sizes), size(alone, network.sizes)
    if n > MAX_SYSTEM:
        raise TensorAdaptError(
            f"factor {factor.name!r} has {n:,} numbers joined by its bonds; least squares solves for at most "
            f"{MAX_SYSTEM:,} at once. Lower the rank"
        )
    gram = normal_matrix(network, factors, factor, _einsum)
    order, operands = (*shared, *bonds, *alone), [tensor, *(factors[other.name] for other in others)]
    labels = [network.layout.names, *(other.labels for other in others)]
    right = _contract(labels, order, network.sizes, operands)
    solution = _solve(gram.reshape(-1, n, n), right.reshape(-1, n, m)).reshape([network.sizes[x] for x in order])
    return np.ascontiguousarray(np.transpose(solution, [order.index(x) for x in factor.labels]))


def relative_error(network: Network, tensor: np.ndarray, factors: Mapping[str, np.ndarray], norm: float) -> float:
    """Return ``||tensor - network|| / norm``, from the difference: the expanded square loses half the digits."""
    return float(np.linalg.norm(tensor - dense(network, factors))) / norm if norm else 0.0


def dense(network: Network, factors: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return the dense tensor of a network's factors, over ``layout.shape``."""
    labels = [factor.labels for factor in network.factors]
    return _contract(labels, network.layout.names, network.sizes, [factors[f.name] for f in network.factors])


def draw(network: Network, seed: int) -> Factors:
    """Draw normal factors whose columns have norms near 1."""
    generator, bonds = np.random.default_rng(seed), set(network.bonds)
    drawn = {}
    for factor in network.factors:
        fan = math.prod(n for x, n in zip(factor.labels, network.shape(factor), strict=True) if x not in bonds)
        drawn[factor.name] = generator.standard_normal(network.shape(factor)) / math.sqrt(fan)
    return drawn


def zero(network: Network, seed: int) -> Factors:
    """Return factors of the zero tensor: the network's zero factor is zero, the others are drawn."""
    return {name: values * (name != network.zero.name) for name, values in draw(network, seed).items()}


def revived(network: Network, factors: Mapping[str, np.ndarray], seed: int) -> Factors:
    """Change factors without changing their tensor, so that every entry of a bond can train.

    Where two factors are zero at an entry of their bond, no gradient reaches either. All but one, the network's zero
    factor if it is among them, are drawn anew there, and that one is set to exactly zero. Labels that all factors of a
    bond share index separate matrices, so each of their positions is treated alone. Where the zero factor is zero as a
    whole, so is the tensor, and no other needs to be.
    """
    values, drawn, cleared = {n: np.array(f) for n, f in factors.items()}, draw(network, seed), []
    vanishes = not values[network.zero.name].any()
    for bond in network.bonds:
        held = sorted((f for f in network.factors if bond in f.labels), key=lambda f: f.init == "zero")
        keys = [bond, *(x for x in held[0].labels if x != bond and all(x in f.labels for f in held))]
        norms = np.array([_norms(factors[f.name], f.labels, keys) for f in held])
        empty = norms <= NEGLIGIBLE * norms.max(axis=tuple(range(1, norms.ndim)), keepdims=True)
        for position in np.argwhere(empty.sum(axis=0) > 1):
            slices = [tuple(dict(zip(keys, position, strict=True)).get(x, slice(None)) for x in f.labels) for f in held]
            kept = held[-1] if not vanishes or held[-1] is network.zero else None
            for factor, index in zip(held, slices, strict=True):
                if factor is kept:
                    cleared.append((factor.name, index))
                else:
                    values[factor.name][index] = drawn[factor.name][index]
    for name, index in cleared:  # last, so that every path through several such entries meets a zero
        values[name][index] = 0
    return values


def _norms(values: np.ndarray, labels: Sequence[str], keys: Sequence[str]) -> np.ndarray:
    """Return the norms over the axes that are not in ``keys``, axes in the order of ``keys``."""
    axes = [labels.index(key) for key in keys]
    moved = np.moveaxis(values, axes, range(len(axes)))
    return np.linalg.norm(moved.reshape(*moved.shape[: len(axes)], -1), axis=-1)


def _solve(gram: np.ndarray, right: np.ndarray) -> np.ndarray:
    ridge = RIDGE * np.abs(gram).max(axis=(1, 2), keepdims=True) + np.finfo(float).tiny
    return np.linalg.solve(gram + ridge * np.eye(gram.shape[1]), right)


def _contract(labels: Sequence[Any], output: tuple[str, ...], sizes: Mapping[str, int], operands: Any) -> np.ndarray:
    return compile_program(labels, output, sizes).run(operands, _einsum)


def _einsum(equation: str, *operands: np.ndarray) -> np.ndarray:
    return _expression(equation, *(operand.shape for operand in operands))(*operands)


@lru_cache(maxsize=4096)
def _expression(equation: str, *shapes: tuple[int, ...]) -> Callable[..., np.ndarray]:
    return opt_einsum.contract_expression(equation, *shapes)
