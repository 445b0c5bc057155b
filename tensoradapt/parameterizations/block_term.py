"""Block-term: a sum of Tucker terms, ``delta = sum_b core_b x_1 F1_b x_2 F2_b ... x_N FN_b``.

De Lathauwer, SIAM J. Matrix Anal. Appl. 30 (2008), definition of the decomposition in rank-(L, M, N) terms. With one
term it is Tucker, with all ranks 1 it is CP. Choose it between the two: several small cores cost less than one of
their summed ranks, and each has its own factors.
"""

import math
from collections.abc import Mapping

import numpy as np
import tensorly

from tensoradapt.errors import TensorAdaptError
from tensoradapt.modes import Layout
from tensoradapt.network import Factor, Network
from tensoradapt.parameterizations.tucker import per_mode

label = "Block-term"


def build(layout: Layout, rank: int | Mapping[str, int], terms: int = 2) -> Network:
    """One (mode, b, r_mode) factor per mode, and a core (b, r_mode, ...) that starts at zero; b counts the terms.
    Multiplier: alpha.

    Drawn as Tucker is: the columns of each factor are orthonormal.
    """
    if isinstance(terms, bool) or not isinstance(terms, int) or terms < 1:
        raise TensorAdaptError(f"terms is {terms!r}; expected a whole number of 1 or more")
    ranks = per_mode(layout.names, rank, layout)
    factors = tuple(Factor(m, (m, "b", f"r_{m}"), paper=("orthogonal", 1.0)) for m in layout.names)
    core = Factor("core", ("b", *(f"r_{m}" for m in layout.names)), "zero")
    return Network(layout, (*factors, core), {"b": terms, **{f"r_{m}": ranks[m] for m in layout.names}}, derived=("b",))


def count(layout: Layout, rank: Mapping[str, int], terms: int = 2) -> int:
    """The terms' number times Tucker's count: the sum of n_m r_m and the size of a core."""
    return terms * (sum(n * rank[m] for m, n in layout.size_of.items()) + math.prod(rank[m] for m in layout.names))


def oracle(layout: Layout, factors: Mapping[str, np.ndarray]) -> np.ndarray:
    """The sum of TensorLy's Tucker reconstructions, term by term."""
    return sum(
        tensorly.tucker_to_tensor((core, [factors[m][:, b] for m in layout.names]))
        for b, core in enumerate(factors["core"])
    )
