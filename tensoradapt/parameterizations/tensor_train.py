"""Tensor-train: a chain of cores, ``delta[m1, ..., mN] = G1[m1] G2[m2] ... GN[mN]``, one bond per cut.

Over ``layer proj : head dim : in`` in this order it is MetaTT-5D (Lopez-Piqueres et al., arXiv 2506.09105); over
``: out1 out2 : in1 in2``, from in2 to in1 and on, TT-LoRA. Choose it when neighbouring modes interact. The order of the
modes matters.
"""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import tensorly
from tensorly.decomposition import tensor_train

from tensoradapt.errors import TensorAdaptError
from tensoradapt.networks import least_squares
from tensoradapt.networks.decomposition import checked, tensorly_on_numpy, widened
from tensoradapt.networks.layout import Layout
from tensoradapt.networks.network import Factor, Network
from tensoradapt.parameterizations.tucker import per_mode

label = "Tensor-train"
look = ("#009E73", "^")
aliases = ("tt", "mps")


def build(layout: Layout, rank: int | Mapping[str, int], order: Sequence[str] | None = None) -> Network:
    """Chain a core per mode in ``order`` (columns, index, rows unless given); the last core starts at zero.

    The paper's multiplier is alpha. The bond after mode m is named for it: ``rank={"model": 8, "layer": 6, ...}`` gives
    one for every mode but the last.
    """
    chain = chain_of(layout, order)
    ranks = per_mode(chain[:-1], rank, layout)
    factors = []
    for left, mode in itertools.pairwise(("", *chain)):
        labels = ((f"r_{left}",) if left else ()) + (mode,) + ((f"r_{mode}",) if mode != chain[-1] else ())
        paper = ("identity", 1.0) if len(labels) == 3 else ("orthogonal", 1.0)
        factors.append(Factor(mode, labels, "zero" if mode == chain[-1] else "normal", paper))  # type: ignore[arg-type]
    return Network(layout, tuple(factors), {f"r_{m}": ranks[m] for m in chain[:-1]})


def count(layout: Layout, rank: Mapping[str, int], order: Sequence[str] | None = None) -> int:
    """Return the sum of r_{k-1} n_k r_k along the chain."""
    chain = chain_of(layout, order)
    bonds = (1, *(rank[m] for m in chain[:-1]), 1)
    return sum(a * layout.size_of[m] * b for m, a, b in zip(chain, bonds, bonds[1:], strict=False))


def oracle(layout: Layout, factors: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return TensorLy's train reconstruction; the chain is the order the factors come in."""
    chain = list(factors)
    cores = [np.asarray(factors[m]) for m in chain]
    cores[0] = cores[0][None]
    cores[-1] = cores[-1][..., None]
    return np.transpose(tensorly.tt_to_tensor(cores), [chain.index(m) for m in layout.names])


def decompose(network: Network, tensor: np.ndarray, seed: int = 0) -> dict[str, np.ndarray]:
    """Return cores with ``oracle(layout, factors)`` near ``tensor`` (layout.shape), by successive SVDs (TT-SVD).

    Every core but the last is orthonormal towards the next, and the last holds the norm. Only the entries of bonds that
    are wider than either side can carry, and the cores of a zero tensor, are random.
    """
    chain, small = tuple(factor.name for factor in network.factors), network.clipped()
    if not checked(network, tensor).any():
        return least_squares.zero(network, seed)
    in_order = np.transpose(checked(network, tensor), [network.layout.names.index(mode) for mode in chain])
    ranks = [1, *(small.bonds[f"r_{mode}"] for mode in chain[:-1]), 1]
    with tensorly_on_numpy():
        cores = list(tensor_train(in_order, ranks))
    values = {f.name: core.reshape(small.shape(f)) for f, core in zip(small.factors, cores, strict=True)}
    return widened(network, small, values, seed)


def from_cp(network: Network, factors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return cores of exactly the CP tensor of ``factors`` (mode, r).

    Cores are made diagonal, then their bonds are cut to what both sides carry. The network's bonds are those to which a
    plan clips r.
    """
    chain = tuple(factor.name for factor in network.factors)
    inner = [np.einsum("mr,rs->rms", factors[mode], np.eye(factors[mode].shape[1])) for mode in chain]
    inner[0], inner[-1] = inner[0].sum(0, keepdims=True), inner[-1].sum(2, keepdims=True)
    # make cores orthonormal from the right, which cuts bonds to the sizes behind them
    for i in range(len(inner) - 1, 0, -1):
        q, r = np.linalg.qr(inner[i].reshape(len(inner[i]), -1).T)
        inner[i], inner[i - 1] = q.T.reshape(-1, *inner[i].shape[1:]), inner[i - 1] @ r.T
    for i in range(len(inner) - 1):  # and from the left, as decompose returns them
        q, r = np.linalg.qr(inner[i].reshape(-1, inner[i].shape[2]))
        inner[i], inner[i + 1] = q.reshape(*inner[i].shape[:2], -1), np.tensordot(r, inner[i + 1], 1)
    return {f.name: core.reshape(network.shape(f)) for f, core in zip(network.factors, inner, strict=True)}


def chain_of(layout: Layout, order: Sequence[str] | None) -> tuple[str, ...]:
    """Return the modes in chain order: columns, index, rows unless ``order`` is given, which may have more."""
    usual = tuple(m.name for m in (*layout.cols, *layout.index, *layout.rows))
    given = usual if order is None else tuple(order)
    chain = tuple(mode for mode in given if mode in usual)
    if sorted(chain) != sorted(usual):
        raise TensorAdaptError(f"order {given} is not a permutation of the modes {usual} of layout {str(layout)!r}")
    return chain
