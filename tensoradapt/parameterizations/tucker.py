"""Tucker: ``delta = core x_1 F1 x_2 F2 ... x_N FN``, a core of one rank per mode and one factor per mode.

Over ``layer proj : head dim : model`` it is TensLoRA's att_qkv_depth (Marmoret et al., arXiv 2509.19391) with heads on
the right axis. Choose it when modes differ in how much they need: each has its own rank.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import tensorly

from tensoradapt.errors import TensorAdaptError, did_you_mean
from tensoradapt.modes import Layout
from tensoradapt.network import Factor, Network

label = "Tucker"


def build(layout: Layout, rank: int | Mapping[str, int], only: Sequence[str] | None = None) -> Network:
    """One (mode, r_mode) factor per mode and a core over all r_mode, which starts at zero. Paper multiplier: alpha.

    ``only``: the modes that have a factor; the core holds the others as they are (Tucker-1, Tucker-2: LoTR).
    """
    compressed = _compressed(layout, only)
    ranks = per_mode(compressed, rank, layout)
    factors = tuple(Factor(m, (m, f"r_{m}"), paper=("orthogonal", 1.0)) for m in compressed)
    core = Factor("core", tuple(f"r_{m}" if m in compressed else m for m in layout.names), "zero")
    return Network(layout, (*factors, core), {f"r_{m}": ranks[m] for m in compressed})


def count(layout: Layout, rank: Mapping[str, int], only: Sequence[str] | None = None) -> int:
    """The sum of n_m r_m over the modes with a factor, and the size of the core."""
    compressed = _compressed(layout, only)
    core = math.prod(rank[m] if m in compressed else n for m, n in layout.size_of.items())
    return sum(layout.size_of[m] * rank[m] for m in compressed) + core


def oracle(layout: Layout, factors: Mapping[str, np.ndarray]) -> np.ndarray:
    """TensorLy's Tucker reconstruction: a mode without a factor has the identity."""
    every = [factors[m] if m in factors else np.eye(n) for m, n in layout.size_of.items()]
    return tensorly.tucker_to_tensor((factors["core"], every))


def _compressed(layout: Layout, only: Sequence[str] | None) -> tuple[str, ...]:
    if unknown := [name for name in only or () if name not in layout.names]:
        raise TensorAdaptError(
            f"only= names {unknown[0]!r}, which is no mode of layout {str(layout)!r}"
            f"{did_you_mean(unknown[0], layout.names)}"
        )
    return tuple(m for m in layout.names if only is None or m in only)


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
