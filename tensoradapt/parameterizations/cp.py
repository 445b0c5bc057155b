"""CP: ``delta[m1, ..., mN] = sum_k F1[m1, k] ... FN[mN, k]``, one factor per mode (LoRTA).

Hounie et al., arXiv 2410.04060: over ``layer proj : head dim : model`` r (d + d/H + H + L + 4) parameters adapt every
attention matrix of a model. Choose it for the fewest parameters; every mode shares the same r components.
"""

import math
from collections.abc import Mapping

import numpy as np
import tensorly

from tensoradapt.modes import Layout
from tensoradapt.network import Factor, Network

label = "CP (LoRTA)"


def build(layout: Layout, rank: int, weights: bool = False) -> Network:
    """One (mode, r) factor per mode; the last row mode's starts at zero. ``weights``: a weight for each component too
    (CaRA). Paper multiplier: alpha / r.

    The paper's code draws the input factor uniformly within 1/sqrt(r) and the others within sqrt(6/r).
    """
    zero, wide = layout.rows[-1].name, {m.name for m in layout.cols}

    def factor(mode: str) -> Factor:
        bound = math.sqrt(1 / rank) if mode in wide else math.sqrt(6 / rank)
        return Factor(
            mode, (mode, "r"), "zero" if mode == zero else "normal", None if mode == zero else ("uniform", bound)
        )

    own = (Factor("weights", ("r",), paper=("constant", 1.0)),) if weights else ()
    return Network(layout, (*map(factor, layout.names), *own), {"r": rank}, alpha=16, divisor=rank)


def count(layout: Layout, rank: int, weights: bool = False) -> int:
    """r times the sum of the mode sizes; r more with weights."""
    return rank * (sum(layout.shape) + weights)


def oracle(layout: Layout, factors: Mapping[str, np.ndarray]) -> np.ndarray:
    """TensorLy's CP reconstruction."""
    return tensorly.cp_to_tensor((factors.get("weights"), [factors[m] for m in layout.names]))
