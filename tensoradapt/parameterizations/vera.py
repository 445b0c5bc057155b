"""VeRA: ``delta = diag(b) B diag(d) A`` with random frozen A and B shared by every matrix of a model.

Kopiczko et al., arXiv 2310.11454, equation 2. Only the vectors d (r) and b (rows) are trained, for every position of
the index modes. The entries of A and B are a pure function of (seed, name, row, column), so a narrow site reads a slice
of a wide one's and nothing frozen is stored. Choose it when bytes per task matter most and a large r is affordable.
"""

import math
from collections.abc import Mapping

import numpy as np

from tensoradapt.checks import flag
from tensoradapt.networks.layout import Layout
from tensoradapt.networks.network import Factor, Network

layouts = (": out : in",)
label = "VeRA"
look = ("#E69F00", "v")


def build(layout: Layout, rank: int, trained: bool = False) -> Network:
    """Train d (index, r), from 0.1, and b (index, rows), from zero, with frozen A (r, columns) and B (rows, r).

    The multiplier is alpha. The paper's code draws A and B uniformly within sqrt(6 / fan_in). With ``trained`` A and B
    are trained and have the index modes too: ``shared`` says over which they are tied (Tied-LoRA).
    """
    flag(trained, "trained")
    index, rows, cols = (tuple(m.name for m in modes) for modes in (layout.index, layout.rows, layout.cols))
    own = index if trained else ()
    bases = (
        Factor("A", (*own, "r", *cols), paper=("uniform", math.sqrt(6 / layout.in_)), trainable=trained),
        Factor("B", (*own, *rows, "r"), paper=("uniform", math.sqrt(6 / rank)), trainable=trained),
    )
    vectors = (Factor("d", (*index, "r"), paper=("constant", 0.1)), Factor("b", (*index, *rows), "zero"))
    return Network(layout, (*bases, *vectors), {"r": rank})


def count(layout: Layout, rank: int, trained: bool = False) -> int:
    """Return r + d_out for every position of the index modes; r (d_in + d_out) more with trained bases."""
    bases = rank * (layout.in_ + layout.out) if trained else 0
    return math.prod(m.size for m in layout.index) * (rank + layout.out + bases)


def oracle(layout: Layout, factors: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return diag(b) B diag(d) A, matrix by matrix."""
    rank, n = factors["d"].shape[-1], math.prod(m.size for m in layout.index)
    a, b = factors["A"].reshape(-1, rank, layout.in_), factors["B"].reshape(-1, layout.out, rank)
    bases = (np.broadcast_to(one, (n, *one.shape[1:])) for one in (b, a))
    parts = zip(factors["b"].reshape(n, layout.out), factors["d"].reshape(n, rank), *bases, strict=True)
    return np.stack([np.diag(left) @ b @ np.diag(mid) @ a for left, mid, b, a in parts]).reshape(layout.shape)
