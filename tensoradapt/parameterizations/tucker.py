"""Tucker: ``delta = core x_1 F1 x_2 F2 ... x_N FN``, a core of one rank per mode and one factor per mode.

Over ``layer proj : head dim : model`` it is TensLoRA's att_qkv_depth (Marmoret et al., arXiv 2509.19391) with heads on
the right axis. Choose it when modes differ in how much they need: each has its own rank.
"""

import math
from collections.abc import Mapping

import numpy as np
import tensorly

from tensoradapt.errors import TensorAdaptError
from tensoradapt.modes import Layout
from tensoradapt.network import Factor, Network

label = "Tucker"


def build(layout: Layout, rank: int | Mapping[str, int]) -> Network:
    """One (mode, r_mode) factor per mode and a core over all r_mode, which starts at zero. Paper multiplier: alpha."""
    ranks = per_mode(layout.names, rank, layout)
    factors = tuple(Factor(m, (m, f"r_{m}"), paper=("orthogonal", 1.0)) for m in layout.names)
    core = Factor("core", tuple(f"r_{m}" for m in layout.names), "zero")
    return Network(layout, (*factors, core), {f"r_{m}": ranks[m] for m in layout.names})


def count(layout: Layout, rank: Mapping[str, int]) -> int:
    """The sum of n_m r_m, and the product of the r_m."""
    return sum(n * rank[m] for m, n in layout.size_of.items()) + math.prod(rank[m] for m in layout.names)


def oracle(layout: Layout, factors: Mapping[str, np.ndarray]) -> np.ndarray:
    """TensorLy's Tucker reconstruction."""
    return tensorly.tucker_to_tensor((factors["core"], [factors[m] for m in layout.names]))


def per_mode(modes: tuple[str, ...], rank: int | Mapping[str, int], layout: Layout) -> dict[str, int]:
    """A rank for each of ``modes``: one for all, or a mapping that names exactly these."""
    if not isinstance(rank, Mapping):
        return dict.fromkeys(modes, rank)
    if set(rank) != set(modes):
        raise TensorAdaptError(
            f"rank names {', '.join(sorted(rank)) or 'nothing'}; layout {str(layout)!r} expects one for each of "
            f"{', '.join(modes)} (or one whole number as an upper bound for all)"
        )
    return dict(rank)
