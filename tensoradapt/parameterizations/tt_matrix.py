"""TT-matrix (MPO): ``delta[o1..oN, i1..iN] = G1[o1, i1] G2[o2, i2] ... GN[oN, iN]``, a row and a column mode per core.

Oseledets, SIAM J. Matrix Anal. Appl. 31 (2010); DoTA (Hu et al., arXiv 2412.20891) starts it as the truncated train of
the base weight and subtracts that. Index modes, which DoTA lacks, have cores in front of the others. Choose it instead
of a tensor-train over split modes if updates are near Kronecker products, which have rank 1 here.
"""

import itertools
from collections.abc import Mapping

import numpy as np
from tensorly.decomposition import tensor_train_matrix
from tensorly.tt_matrix import tt_matrix_to_tensor

from tensoradapt.errors import TensorAdaptError
from tensoradapt.networks.decomposition import checked, tensorly_on_numpy, widened
from tensoradapt.networks.layout import Layout
from tensoradapt.networks.network import Factor, Network
from tensoradapt.parameterizations.tucker import per_mode

layouts = (": out* : in*",)
parts = (1, 2, 3)
label = "TT-matrix"
aliases = ("ttm", "mpo")


def build(layout: Layout, rank: int | Mapping[str, int]) -> Network:
    """Chain a core (r_{k-1}, index, r_k) per index mode and a core (r_{k-1}, row, column, r_k) per row mode.

    Each is named for its mode, and the last starts at zero. The paper's multiplier is alpha. The bond after a core is
    named for it: ``rank={"out1": 8, "out2": 8}`` for three row modes.
    """
    names, labels = _chain(layout)
    ranks = per_mode(names[:-1], rank, layout)
    factors = []
    for left, name, modes in zip(("", *names), names, labels, strict=False):
        ends = [f"r_{left}"] if left else [], [f"r_{name}"] if name != names[-1] else []
        factors.append(Factor(name, (*ends[0], *modes, *ends[1]), "normal" if ends[1] else "zero", ("orthogonal", 1.0)))
    return Network(layout, tuple(factors), {f"r_{name}": ranks[name] for name in names[:-1]})


def count(layout: Layout, rank: Mapping[str, int]) -> int:
    """Return the sum of r_{k-1} m_k n_k r_k along the chain, m_k and n_k the sizes of a core's row and column modes."""
    sizes = [m.size for m in layout.index] + [m.size * n.size for m, n in zip(layout.rows, layout.cols, strict=True)]
    bonds = (1, *(rank[m.name] for m in (*layout.index, *layout.rows)[:-1]), 1)
    return sum(a * n * b for n, (a, b) in zip(sizes, itertools.pairwise(bonds), strict=True))


def decompose(network: Network, tensor: np.ndarray, seed: int = 0) -> dict[str, np.ndarray]:
    """Return the truncated train of a tensor over the layout, by TensorLy's TT-SVD."""
    layout, clipped = network.layout, network.clipped()
    index, rows, cols = ([m.size for m in modes] for modes in (layout.index, layout.rows, layout.cols))
    pairs = checked(network, tensor).reshape(*index, *rows, *(1 for _ in index), *cols)
    with tensorly_on_numpy():
        train = tensor_train_matrix(pairs, [1, *clipped.bonds.values(), 1]).factors
    cores = zip(network.factors, train, strict=True)
    values = {factor.name: core.reshape(clipped.shape(factor)) for factor, core in cores}
    return widened(network, clipped, values, seed)


def oracle(layout: Layout, factors: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return TensorLy's TT-matrix reconstruction; the column of an index mode's core has size 1."""
    sizes = [(m.size, 1) for m in layout.index]
    sizes += [(m.size, n.size) for m, n in zip(layout.rows, layout.cols, strict=True)]
    cores, left = [], 1
    for (m, n), core in zip(sizes, factors.values(), strict=True):
        cores.append(np.reshape(core, (left, m, n, -1)))
        left = cores[-1].shape[-1]
    return tt_matrix_to_tensor(cores).reshape(layout.shape)


def _chain(layout: Layout) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Return the names of the cores, and the modes of each."""
    if len(layout.rows) != len(layout.cols):
        raise TensorAdaptError(
            f"tt_matrix takes as many row as column modes, and layout {str(layout)!r} has {len(layout.rows)} and "
            f'{len(layout.cols)}; use e.g. ": out1 out2 out3 : in1 in2 in3" with split='
        )
    pairs = tuple((m.name, n.name) for m, n in zip(layout.rows, layout.cols, strict=True))
    index = tuple(m.name for m in layout.index)
    return (*index, *(m.name for m in layout.rows)), (*((m,) for m in index), *pairs)
