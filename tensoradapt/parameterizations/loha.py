"""LoHa: ``delta = (B1 A1) o (B2 A2)``, the entry-wise product of two low-rank matrices.

Hyeon-Woo et al., arXiv 2108.06098 (FedPara), proposition 1, as LyCORIS and PEFT apply it to weight updates. Its rank
reaches r^2 with twice LoRA's parameters. Choose it for an update of a higher rank than LoRA has at the same budget.
"""

import math
from collections.abc import Mapping

import numpy as np

from tensoradapt.checks import check_whole
from tensoradapt.networks.layout import Layout
from tensoradapt.networks.network import Factor, Network

layouts = (": out : in",)
label = "LoHa"
look = ("#882255", "h")


def build(layout: Layout, rank: int, second: int | None = None) -> Network:
    """Make A1, A2 (index, r, columns) and B1, B2 (index, rows, r); A2 starts at zero.

    ``second`` is the rank of the second pair, by default the same. The paper's multiplier is alpha / r. A2 is PEFT's
    ``hada_w2_b``; PEFT draws the others uniformly within 1/sqrt(fan_in).
    """
    if second is not None:
        check_whole("second", second)
    index, rows, cols = (tuple(m.name for m in modes) for modes in (layout.index, layout.rows, layout.cols))
    wide, narrow = ("uniform", 1 / math.sqrt(layout.in_)), ("uniform", 1 / math.sqrt(rank))
    factors = (
        Factor("A1", (*index, "r", *cols), paper=wide),  # type: ignore[arg-type]
        Factor("B1", (*index, *rows, "r"), paper=narrow),  # type: ignore[arg-type]
        Factor("A2", (*index, "r2", *cols), "zero"),
        Factor("B2", (*index, *rows, "r2"), paper=narrow),  # type: ignore[arg-type]
    )
    return Network(layout, factors, {"r": rank, "r2": second or rank}, alpha=8, divisor=rank, derived=("r2",))


def count(layout: Layout, rank: int, second: int | None = None) -> int:
    """Return (r + r2) (d_in + d_out) for every position of the index modes."""
    return math.prod(m.size for m in layout.index) * (rank + (second or rank)) * (layout.in_ + layout.out)


def oracle(layout: Layout, factors: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return (B1 A1) o (B2 A2), matrix by matrix."""
    n = math.prod(m.size for m in layout.index)
    a1, a2 = (factors[name].reshape(n, -1, layout.in_) for name in ("A1", "A2"))
    b1, b2 = (factors[name].reshape(n, layout.out, -1) for name in ("B1", "B2"))
    return np.stack([np.multiply(b1[i] @ a1[i], b2[i] @ a2[i]) for i in range(n)]).reshape(layout.shape)
