"""Block-term: a sum of Tucker terms, ``delta = sum_b core_b x_1 F1_b x_2 F2_b ... x_N FN_b``.

De Lathauwer, SIAM J. Matrix Anal. Appl. 30 (2008), the decomposition in rank-(L, M, N) terms. One term is Tucker, and
terms of rank 1 are CP. Choose it between the two: several small cores cost less than one of their summed ranks, and
each term has factors of its own.
"""

import math
from collections.abc import Mapping

import numpy as np
import tensorly
from tensorly.decomposition import tucker

from tensoradapt.checks import check_whole
from tensoradapt.networks import least_squares
from tensoradapt.networks.decomposition import checked, tensorly_on_numpy, widened
from tensoradapt.networks.layout import Layout
from tensoradapt.networks.network import Factor, Network
from tensoradapt.parameterizations.tucker import per_mode

label = "Block-term"
aliases = ("btd",)
# over modes of 4 and 3, two terms of ranks 3 and 2 have spans of dimension 6 that meet in 2: they span 10 of 12
below_cut = "over split modes the spans of two terms can meet"
POLISHED = 1024  # least squares refines the fit where all cores together have at most this many numbers

Term = tuple[np.ndarray, list[np.ndarray]]  # a core and a factor for each mode


def build(layout: Layout, rank: int | Mapping[str, int], terms: int = 2) -> Network:
    """Join a factor (mode, b, r_mode) per mode to a core (b, r_mode, ...) that starts at zero; b counts the terms.

    The multiplier is alpha. Factors are drawn as Tucker's are: their columns are orthonormal.
    """
    check_whole("terms", terms)
    ranks = per_mode(layout.names, rank, layout)
    factors = tuple(Factor(m, (m, "b", f"r_{m}"), paper=("orthogonal", 1.0)) for m in layout.names)
    core = Factor("core", ("b", *(f"r_{m}" for m in layout.names)), "zero")
    return Network(layout, (*factors, core), {"b": terms, **{f"r_{m}": ranks[m] for m in layout.names}}, derived=("b",))


def count(layout: Layout, rank: Mapping[str, int], terms: int = 2) -> int:
    """Return the number of terms times Tucker's count: the sum of n_m r_m and the size of a core."""
    return terms * (sum(n * rank[m] for m, n in layout.size_of.items()) + math.prod(rank[m] for m in layout.names))


def oracle(layout: Layout, factors: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return the sum of TensorLy's Tucker reconstructions, term by term."""
    return sum(
        tensorly.tucker_to_tensor((core, [factors[m][:, b] for m in layout.names]))
        for b, core in enumerate(factors["core"])
    )


def decompose(network: Network, tensor: np.ndarray, seed: int = 0, restarts: int = 4) -> dict[str, np.ndarray]:
    """Return factors with ``oracle(layout, factors)`` near ``tensor`` (layout.shape): the best of several starts.

    Each term in turn becomes the Tucker decomposition of what the others leave. If the cores are small, alternating
    least squares continues from there and from random starts. There are local minima: terms that make up a tensor
    exactly need not be found. A zero tensor gives zero cores, and factors with orthonormal columns.
    """
    tensor, small = checked(network, tensor), network.clipped()
    size = float(np.linalg.norm(tensor))
    with tensorly_on_numpy(), np.errstate(invalid="ignore"):  # TensorLy divides by the norm of a zero tensor
        best = _relaxed(small, tensor / (size or 1))
    if size and best["core"].size <= POLISHED:
        starts = [best, *(least_squares.draw(small, seed + i) for i in range(restarts - 1))]
        fits = [least_squares.fit(small, tensor / size, start) for start in starts]
        best = min(fits, key=lambda fitted: fitted[1])[0]
    return widened(network, small, {**best, "core": best["core"] * size}, seed)


def _relaxed(network: Network, tensor: np.ndarray, sweeps: int = 30) -> dict[str, np.ndarray]:
    ranks = [network.bonds[f"r_{m}"] for m in network.layout.names]
    terms = [_tucker(np.zeros_like(tensor), ranks)] * network.bonds["b"]
    parts = [np.zeros_like(tensor)] * len(terms)
    errors = [float(np.linalg.norm(tensor))]
    for _ in range(sweeps):
        for b, part in enumerate(parts):
            left = tensor - sum(parts) + part
            term = _tucker(left, ranks)
            new = tensorly.tucker_to_tensor(term)
            if np.linalg.norm(left - new) < np.linalg.norm(left - part):
                terms[b], parts[b] = term, new
        errors.append(float(np.linalg.norm(tensor - sum(parts))))
        if errors[-2] - errors[-1] <= 1e-4 * errors[-1]:
            break
    factors = {m: np.stack([each[i] for _, each in terms], axis=1) for i, m in enumerate(network.layout.names)}
    return {**factors, "core": np.stack([core for core, _ in terms])}


def _tucker(tensor: np.ndarray, ranks: list[int]) -> Term:
    core, factors = tucker(tensor, ranks, n_iter_max=2)
    return core, factors
