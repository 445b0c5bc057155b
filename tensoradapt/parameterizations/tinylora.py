"""TinyLoRA: ``delta = B (sum_i v_i P_i) A`` between frozen singular vectors of the base weight; only v is trained.

arXiv 2602.04118, as in PEFT: LoRA-XS whose middle matrix is a combination of ``rank`` random frozen ones, with the root
of the singular values on both sides. Choose it for a handful of parameters per matrix. As more than svd_rank^2 of them
would be redundant in one matrix, a whole rank is clipped there.
"""

import math
from collections.abc import Mapping

import numpy as np

from tensoradapt.checks import check_whole, flag
from tensoradapt.networks import decomposition
from tensoradapt.networks.layout import Layout
from tensoradapt.networks.network import Factor, Network

layouts = (": out : in",)
label = "TinyLoRA"


def build(layout: Layout, rank: int, svd_rank: int = 2, tied: bool = False) -> Network:
    """Train v (index, r), from zero, with frozen A (index, p, columns), B (index, rows, q) and P (r, q, p).

    A and B are from the base weights; P is random and the same for every matrix. With ``tied`` one v (r) serves all
    positions of the index modes. The paper's multiplier is alpha. p = q = svd_rank, or min(d_in, d_out) if that is
    less. PEFT draws P with variance 1/p, for each layer anew; its weight_tying=1 is ``tied`` over a layout such as
    "layer proj : out : in".
    """
    check_whole("svd_rank", svd_rank)
    flag(tied, "tied")
    index, rows, cols = (tuple(m.name for m in modes) for modes in (layout.index, layout.rows, layout.cols))
    p = min(svd_rank, layout.out, layout.in_)
    factors = (
        Factor("A", (*index, "p", *cols), trainable=False, source="base"),
        Factor("v", ("r",) if tied else (*index, "r"), "zero"),
        Factor("P", ("r", "q", "p"), paper=("normal", 1 / math.sqrt(p)), trainable=False),
        Factor("B", (*index, *rows, "q"), trainable=False, source="base"),
    )
    return Network(layout, factors, {"r": rank, "p": p, "q": p}, derived=("p", "q"))


def count(layout: Layout, rank: int, svd_rank: int = 2, tied: bool = False) -> int:
    """Return r for every position of the index modes, or once for all, whatever the widths."""
    return rank if tied else math.prod(m.size for m in layout.index) * rank


def decompose(network: Network, tensor: np.ndarray, seed: int = 0) -> dict[str, np.ndarray]:
    """Return A and B for the base weights: sqrt(S) V^T and U sqrt(S) of each matrix."""
    u, s, vt = decomposition.by_position(network, tensor, network.bonds["p"])
    a, *_, b = (network.shape(factor) for factor in network.factors)
    return {"A": (np.sqrt(s)[..., None] * vt).reshape(a), "B": (u * np.sqrt(s)[..., None, :]).reshape(b)}


def oracle(layout: Layout, factors: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return B (sum_i v_i P_i) A, matrix by matrix."""
    rank, p = factors["P"].shape[:2]
    a, b = factors["A"].reshape(-1, p, layout.in_), factors["B"].reshape(-1, layout.out, p)
    vectors = np.broadcast_to(factors["v"].reshape(-1, rank), (len(a), rank))
    middles = [sum(v[i] * factors["P"][i] for i in range(rank)) for v in vectors]
    return np.stack([np.linalg.multi_dot(three) for three in zip(b, middles, a, strict=True)]).reshape(layout.shape)
