"""Dense: ``delta = W``, one full tensor. The ceiling of what any other can reach, and of what it can cost.

Full fine-tuning of the adapted matrices, with the number of parameters that every other is compared to. ``plan``
refuses what has more parameters than the matrices themselves, which dense over tied positions just has not.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from tensoradapt.networks.layout import Layout
from tensoradapt.networks.network import Factor, Network

layouts = (": out : in",)
label = "Dense"


def build(layout: Layout, rank: Any = None) -> Network:
    """One factor W with every mode, which starts at zero; it has no rank. Multiplier: alpha."""
    return Network(layout, (Factor("W", layout.names, "zero"),), {})


def count(layout: Layout, rank: Any = None) -> int:
    """The product of the mode sizes."""
    return math.prod(layout.shape)


def oracle(layout: Layout, factors: Mapping[str, np.ndarray]) -> np.ndarray:
    """W itself."""
    return factors["W"]
