"""Tensor-train: a chain of cores, ``delta[m1, ..., mN] = G1[m1] G2[m2] ... GN[mN]``, one bond per cut.

Over ``layer proj : head dim : in`` in this order it is MetaTT-5D (Lopez-Piqueres et al., arXiv 2506.09105); over
``: out1 out2 : in1 in2`` TT-LoRA. Choose it when neighbouring modes interact; the order of the modes matters.
"""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import tensorly

from tensoradapt.errors import TensorAdaptError
from tensoradapt.modes import Layout
from tensoradapt.network import Factor, Network
from tensoradapt.parameterizations.tucker import per_mode

label = "Tensor-train"


def build(layout: Layout, rank: int | Mapping[str, int], order: Sequence[str] | None = None) -> Network:
    """A core per mode in ``order`` (columns, index, rows unless given); the last starts at zero. Paper multiplier:
    alpha.

    The bond after mode m is named for it: ``rank={"model": 8, "layer": 6, ...}`` gives one for every mode but the last.
    """
    chain = _chain(layout, order)
    ranks = per_mode(chain[:-1], rank, layout)
    factors = []
    for left, mode in itertools.pairwise(("", *chain)):
        labels = ((f"r_{left}",) if left else ()) + (mode,) + ((f"r_{mode}",) if mode != chain[-1] else ())
        paper = ("identity", 1.0) if len(labels) == 3 else ("orthogonal", 1.0)
        factors.append(Factor(mode, labels, "zero" if mode == chain[-1] else "normal", paper))  # type: ignore[arg-type]
    return Network(layout, tuple(factors), {f"r_{m}": ranks[m] for m in chain[:-1]})


def count(layout: Layout, rank: Mapping[str, int], order: Sequence[str] | None = None) -> int:
    """The sum of r_{k-1} n_k r_k along the chain."""
    chain = _chain(layout, order)
    bonds = (1, *(rank[m] for m in chain[:-1]), 1)
    return sum(a * layout.size_of[m] * b for m, a, b in zip(chain, bonds, bonds[1:], strict=False))


def oracle(layout: Layout, factors: Mapping[str, np.ndarray]) -> np.ndarray:
    """TensorLy's train reconstruction; the chain is the order the factors come in."""
    chain = list(factors)
    last = len(chain) - 1
    cores = [np.asarray(factors[m]) for m in chain]
    cores = [g[None] if i == 0 else g for i, g in enumerate(cores)]
    cores = [g[..., None] if i == last else g for i, g in enumerate(cores)]
    return np.transpose(tensorly.tt_to_tensor(cores), [chain.index(m) for m in layout.names])


def _chain(layout: Layout, order: Sequence[str] | None) -> tuple[str, ...]:
    usual = tuple(m.name for m in (*layout.cols, *layout.index, *layout.rows))
    if order is not None and sorted(order) != sorted(usual):
        raise TensorAdaptError(
            f"order {tuple(order)} is not a permutation of the modes {usual} of layout {str(layout)!r}"
        )
    return tuple(order or usual)
