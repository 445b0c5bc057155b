"""RandLoRA: ``delta = sum_j B_j diag(L_j) A diag(G_j)`` with random frozen bases shared by every matrix of a model.

Albert et al., arXiv 2502.00987, as in PEFT. With n = ceil(min(out, in) / r) terms an update can have full
rank; only the diagonals L (n, r) and G (n, the smaller side) are trained. A is on the smaller side of a matrix, B on
the larger. Choose it where rank matters more than the number of trained parameters.
"""

import math
from collections.abc import Mapping

import numpy as np

from tensoradapt.networks.layout import Layout
from tensoradapt.networks.network import Factor, Network

layouts = (": out : in",)
label = "RandLoRA"
look = ("#E69F00", "p")


def build(layout: Layout, rank: int) -> Network:
    """Train L (index, n, r) and G (index, n, smaller side) with frozen B (n, larger side, r) and A (r, smaller side).

    L starts at zero. The paper's multiplier is alpha / r. Narrow matrices read a slice of the bases of wide ones,
    which have unit variance as in PEFT. PEFT starts G at 1 / max(n, smaller side).
    """
    wide = layout.in_ > layout.out
    big, small = (tuple(m.name for m in modes) for modes in ((layout.rows, layout.cols)[:: -1 if wide else 1]))
    index, n = tuple(m.name for m in layout.index), _terms(layout, rank)
    factors = (
        Factor("B", ("n", *big, "r"), trainable=False),
        Factor("A", ("r", *small), trainable=False),
        Factor("L", (*index, "n", "r"), "zero"),
        Factor("G", (*index, "n", *small), paper=("constant", 1 / max(n, min(layout.out, layout.in_)))),
    )
    return Network(layout, factors, {"r": rank, "n": n}, alpha=640, divisor=rank, derived=("n",))


def largest(layout: Layout) -> int:
    """Return min(d_in, d_out), where one term has full rank. Lower ranks have more terms and more parameters."""
    return min(layout.in_, layout.out)


def count(layout: Layout, rank: int) -> int:
    """Return n (r + min(d_in, d_out)) with n = ceil(min(d_in, d_out) / r), for every position of the index modes."""
    smaller = min(layout.in_, layout.out)
    return math.prod(m.size for m in layout.index) * math.ceil(smaller / rank) * (rank + smaller)


def oracle(layout: Layout, factors: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return the sum of B_j diag(L_j) A diag(G_j), matrix by matrix; its transpose where a matrix is wide."""
    n, small = factors["B"].shape[0], min(layout.in_, layout.out)
    b, a = factors["B"].reshape(n, -1, factors["B"].shape[-1]), factors["A"].reshape(-1, small)
    trained = zip(factors["L"].reshape(-1, n, a.shape[0]), factors["G"].reshape(-1, n, small), strict=True)
    matrices = [sum(b[j] @ np.diag(left[j]) @ a @ np.diag(right[j]) for j in range(n)) for left, right in trained]
    return np.stack([m.T if layout.in_ > layout.out else m for m in matrices]).reshape(layout.shape)


def _terms(layout: Layout, rank: int) -> int:
    return math.ceil(min(layout.in_, layout.out) / rank)
