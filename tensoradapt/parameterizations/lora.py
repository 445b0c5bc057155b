"""LoRA: ``delta = B A``, a matrix of rank r for every position of the index modes.

Hu et al., arXiv 2106.09685, equation 3. Over ``: out : in`` every matrix has a pair of its own. Choose it as the
reference: it has the most parameters per rank and is the easiest to train.
"""

import math
from collections.abc import Mapping

import numpy as np

from tensoradapt.networks import decomposition
from tensoradapt.networks.decomposition import widened
from tensoradapt.networks.layout import Layout
from tensoradapt.networks.network import Factor, Network

layouts = (": out : in",)
label = "LoRA"
look = ("#000000", "o")  # drawn in the ink of the style sheet, as all are compared with it


def build(layout: Layout, rank: int) -> Network:
    """Make A (index, r, columns) and B (index, rows, r); B starts at zero. The paper's multiplier is alpha / r."""
    index, rows, cols = (tuple(m.name for m in modes) for modes in (layout.index, layout.rows, layout.cols))
    a = Factor("A", (*index, "r", *cols), paper=("uniform", 1 / math.sqrt(layout.in_)))
    b = Factor("B", (*index, *rows, "r"), "zero")
    return Network(layout, (a, b), {"r": rank}, alpha=16, divisor=rank)


def count(layout: Layout, rank: int) -> int:
    """Return r (d_in + d_out) for every position of the index modes."""
    return math.prod(m.size for m in layout.index) * rank * (layout.in_ + layout.out)


def decompose(network: Network, tensor: np.ndarray, seed: int = 0) -> dict[str, np.ndarray]:
    """Return factors of the nearest tensor: r singular vectors of each matrix, times the roots of their values.

    This is PiSSA, Meng et al., arXiv 2404.02948.
    """
    clipped = network.clipped()
    u, s, vt = decomposition.by_position(network, tensor, clipped.bonds["r"])
    (a, b), root = (clipped.shape(factor) for factor in network.factors), np.sqrt(s)
    values = {"A": (root[..., None] * vt).reshape(a), "B": (u * root[..., None, :]).reshape(b)}
    return widened(network, clipped, values, seed)


def oracle(layout: Layout, factors: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return B @ A, matrix by matrix."""
    a, b, n = factors["A"], factors["B"], math.prod(m.size for m in layout.index)
    rank = b.shape[-1]
    pairs = zip(b.reshape(n, layout.out, rank), a.reshape(n, rank, layout.in_), strict=True)
    return np.stack([left @ right for left, right in pairs]).reshape(layout.shape)
