"""LoRA-XS: ``delta = B R A`` between frozen singular vectors of the base weight; only R (r, r) is trained.

Balazy et al., arXiv 2405.17604, as in its released code: A holds the first r right singular vectors of the stored
(out, in) weight times their singular values, B the left ones. Choose it for a parameter count that does not depend on
the width. Unlike VeRA's, its bases come from the weights and have to be stored.
"""

import math
from collections.abc import Mapping

import numpy as np

from tensoradapt.errors import TensorAdaptError
from tensoradapt.networks import decomposition
from tensoradapt.networks.layout import Layout
from tensoradapt.networks.network import Factor, Network

layouts = (": out : in",)
label = "LoRA-XS"
look = ("#0072B2", "P")


def build(layout: Layout, rank: int) -> Network:
    """Train R (index, r2, r) between A (index, r, columns) and B (index, rows, r2), frozen, from the base weights.

    The paper's multiplier is alpha / r. It does not start at zero: R is normal with standard deviation 1e-5.
    """
    if rank > (most := largest(layout)):
        raise TensorAdaptError(
            f"rank {rank} is above the {most} singular values of a {layout.out} x {layout.in_} matrix of layout "
            f"{str(layout)!r}; lora_xs takes its bases from these: give {most} or less"
        )
    index, rows, cols = (tuple(m.name for m in modes) for modes in (layout.index, layout.rows, layout.cols))
    factors = (
        Factor("A", (*index, "r", *cols), trainable=False, source="base"),
        Factor("R", (*index, "r2", "r"), "zero", paper=("normal", 1e-5)),
        Factor("B", (*index, *rows, "r2"), trainable=False, source="base"),
    )
    return Network(layout, factors, {"r": rank, "r2": rank}, alpha=16, divisor=rank, derived=("r2",))


def largest(layout: Layout) -> int:
    """Return the largest possible rank: min(d_in, d_out)."""
    return min(layout.in_, layout.out)


def count(layout: Layout, rank: int) -> int:
    """Return r^2 for every position of the index modes."""
    return math.prod(m.size for m in layout.index) * rank**2


def decompose(network: Network, tensor: np.ndarray, seed: int = 0) -> dict[str, np.ndarray]:
    """Return A and B for the base weights: S V^T and U of each matrix."""
    u, s, vt = decomposition.by_position(network, tensor, network.bonds["r"])
    a, _, b = (network.shape(factor) for factor in network.factors)
    return {"A": (s[..., None] * vt).reshape(a), "B": u.reshape(b)}


def oracle(layout: Layout, factors: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return B R A, matrix by matrix."""
    rank = factors["R"].shape[-1]
    a, b = factors["A"].reshape(-1, rank, layout.in_), factors["B"].reshape(-1, layout.out, rank)
    middles = factors["R"].reshape(-1, rank, rank)
    return np.stack([np.linalg.multi_dot(three) for three in zip(b, middles, a, strict=True)]).reshape(layout.shape)
