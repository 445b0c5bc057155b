"""Dense: ``delta = W``, one full tensor: an upper bound on what others can express and on what they cost.

It is full fine-tuning of the adapted matrices, with the parameter count that the others are compared with. Choose it as
their upper bound. Tied or not, it has as many parameters as the matrices; ``plan`` refuses more than that.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from tensoradapt.networks.layout import Layout
from tensoradapt.networks.network import Factor, Network

layouts = (": out : in",)
label = "Dense"
ranked = False


def build(layout: Layout, rank: Any = None) -> Network:
    """Make one factor W over all modes, which starts at zero. It has no rank. The multiplier is alpha."""
    return Network(layout, (Factor("W", layout.names, "zero"),), {})


def count(layout: Layout, rank: Any = None) -> int:
    """Return the product of the mode sizes."""
    return math.prod(layout.shape)


def oracle(layout: Layout, factors: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return W itself."""
    return factors["W"]
