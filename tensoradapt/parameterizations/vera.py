"""VeRA: ``delta = diag(b) B diag(d) A`` with random frozen A and B shared by every matrix of a model.

Kopiczko et al., arXiv 2310.11454, equation 2. Only the vectors d (r) and b (rows) are trained, for every position of
the index modes. The entries of A and B are a pure function of (seed, name, row, column), so a narrow site reads a slice
of a wide one's and nothing frozen is stored. Choose it when bytes per task matter most and a large r is affordable.
"""

import math
from collections.abc import Mapping

import numpy as np

from tensoradapt.networks.layout import Layout
from tensoradapt.networks.network import Factor, Network

layouts = (": out : in",)
label = "VeRA"


def build(layout: Layout, rank: int) -> Network:
    """Train d (index, r), from 0.1, and b (index, rows), from zero, with frozen A (r, columns) and B (rows, r).

    The multiplier is alpha. The paper's code draws A and B uniformly within sqrt(6 / fan_in).
    """
    index, rows, cols = (tuple(m.name for m in modes) for modes in (layout.index, layout.rows, layout.cols))
    frozen = (
        Factor("A", ("r", *cols), paper=("uniform", math.sqrt(6 / layout.in_)), trainable=False),
        Factor("B", (*rows, "r"), paper=("uniform", math.sqrt(6 / rank)), trainable=False),
    )
    trained = (Factor("d", (*index, "r"), paper=("constant", 0.1)), Factor("b", (*index, *rows), "zero"))
    return Network(layout, (*frozen, *trained), {"r": rank})


def count(layout: Layout, rank: int) -> int:
    """Return r + d_out for every position of the index modes."""
    return math.prod(m.size for m in layout.index) * (rank + layout.out)


def oracle(layout: Layout, factors: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return diag(b) B diag(d) A, matrix by matrix."""
    rank, n = factors["A"].shape[0], math.prod(m.size for m in layout.index)
    a, b = factors["A"].reshape(rank, layout.in_), factors["B"].reshape(layout.out, rank)
    vectors = zip(factors["b"].reshape(n, layout.out), factors["d"].reshape(n, rank), strict=True)
    return np.stack([np.diag(left) @ b @ np.diag(mid) @ a for left, mid in vectors]).reshape(layout.shape)
