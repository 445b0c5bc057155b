"""Tensor ring: a tensor-train closed to a ring, ``delta[m1, ..., mN] = trace(G1[m1] G2[m2] ... GN[mN])``.

Zhao et al., arXiv 1606.05535. No published adapter for language models uses it. Choose it where the ends of a
tensor-train would limit it: in a ring every mode has two bonds.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from tensorly.tr_tensor import tr_to_tensor

from tensoradapt.networks import least_squares
from tensoradapt.networks.decomposition import checked, widened
from tensoradapt.networks.layout import Layout
from tensoradapt.networks.network import Factor, Network
from tensoradapt.parameterizations import tensor_train
from tensoradapt.parameterizations.tucker import per_mode

label = "Tensor ring"
look = ("#009E73", "h")
aliases = ("tr",)


def build(layout: Layout, rank: int | Mapping[str, int], order: Sequence[str] | None = None) -> Network:
    """Close a ring of cores (r_left, mode, r_right), one per mode in ``order``; the last core starts at zero.

    The order is columns, index, rows unless given. The multiplier is alpha. The bond after mode m is named for it; the
    one of the last mode leads to the first. As no paper defines a draw, every core is uniform within 1/sqrt(r_right).
    """
    chain = tensor_train.chain_of(layout, order)
    ranks = per_mode(chain, rank, layout)
    factors = tuple(
        Factor(m, (f"r_{left}", m, f"r_{m}"), "zero" if m == chain[-1] else "normal", ("kaiming_bond", 1.0))
        for left, m in itertools.pairwise((chain[-1], *chain))
    )
    return Network(layout, factors, {f"r_{m}": ranks[m] for m in chain})


def count(layout: Layout, rank: Mapping[str, int], order: Sequence[str] | None = None) -> int:
    """Return the sum of r_{k-1} n_k r_k around the ring."""
    chain = tensor_train.chain_of(layout, order)
    return sum(rank[left] * layout.size_of[m] * rank[m] for left, m in itertools.pairwise((chain[-1], *chain)))


def oracle(layout: Layout, factors: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return TensorLy's ring reconstruction; the order is the one the factors come in."""
    chain = list(factors)
    return np.transpose(tr_to_tensor([factors[m] for m in chain]), [chain.index(m) for m in layout.names])


def decompose(network: Network, tensor: np.ndarray, seed: int = 0, restarts: int = 3) -> dict[str, np.ndarray]:
    """Return cores with ``oracle(layout, factors)`` near ``tensor`` (layout.shape): the best of several starts.

    Each start is improved by alternating least squares. The first is the tensor-train of the same bonds, so the ring is
    at least as close to the tensor. For a zero tensor the network's zero core is zero.
    """
    tensor = checked(network, tensor)
    size, last = float(np.linalg.norm(tensor)), network.factors[-1].name
    if not size:
        return least_squares.zero(network, seed)
    drawn = (least_squares.draw(network, seed + i) for i in range(restarts - 1))
    starts = [_from_train(network, tensor / size, seed), *drawn]
    best = min((least_squares.fit(network, tensor / size, start) for start in starts), key=lambda fitted: fitted[1])[0]
    return least_squares.revived(network, {**best, last: best[last] * size}, seed)


def _from_train(network: Network, tensor: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Return the tensor-train as a ring, which uses one entry of the bond that closes it."""
    chain = tuple(factor.name for factor in network.factors)
    opened = replace(network, bonds={**network.bonds, f"r_{chain[-1]}": 1}).clipped()
    train = tensor_train.build(network.layout, {m: opened.bonds[f"r_{m}"] for m in chain[:-1]}, chain)
    cores = tensor_train.decompose(train, tensor, seed)
    return widened(network, opened, {f.name: cores[f.name].reshape(opened.shape(f)) for f in opened.factors}, seed)
