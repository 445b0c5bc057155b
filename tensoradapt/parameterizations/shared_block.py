"""Shared block: ``delta[(o1 o2), (i1 i2)] = D[o2, i2]``, one block that is repeated over the matrix.

Kang and Yin, arXiv 2409.15371 (MiSS, once Bone), as in PEFT: its usual form repeats over the input alone, "mini" over
both sides. It has no rank: the block is the last part of each side. Choose it for the fewest products a step: the input
is summed over its parts before the only one.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from tensoradapt.errors import TensorAdaptError
from tensoradapt.networks.layout import Layout
from tensoradapt.networks.network import Factor, Network

layouts = (": out* : in*",)
parts = (2,)
label = "Shared block"
ranked = False


def build(layout: Layout, rank: Any = None) -> Network:
    """Make D (index, out2, in2), which starts at zero, and frozen ones (out1) and (in1) that repeat it.

    The paper's multiplier is 1. Its r is n_in2; mini_r is n_out2, and without "mini" n_out1 is 1.
    """
    (out1, out2), (in1, in2) = _modes(layout)
    ones = [
        Factor(f"ones_{name}", (name,), paper=("constant", 1.0), trainable=False, source="set") for name in (out1, in1)
    ]
    block = Factor("D", (*(m.name for m in layout.index), out2, in2), "zero")
    return Network(layout, (block, *ones), {})


def count(layout: Layout, rank: Any = None) -> int:
    """Return n_out2 n_in2 for every position of the index modes."""
    return math.prod(m.size for m in layout.index) * layout.rows[1].size * layout.cols[1].size


def oracle(layout: Layout, factors: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return numpy's tiling of the block, matrix by matrix."""
    blocks = factors["D"].reshape(-1, layout.rows[1].size, layout.cols[1].size)
    repeats = layout.out // blocks.shape[1], layout.in_ // blocks.shape[2]
    return np.stack([np.tile(block, repeats) for block in blocks]).reshape(layout.shape)


def _modes(layout: Layout) -> tuple[tuple[str, ...], ...]:
    rows, cols = (tuple(m.name for m in modes) for modes in (layout.rows, layout.cols))
    if (len(rows), len(cols)) != (2, 2):
        raise TensorAdaptError(
            f"shared_block takes two row and two column modes, and layout {str(layout)!r} has {len(rows)} and "
            f'{len(cols)}; use ": out1 out2 : in1 in2", with split={{"out": (1, 768), "in": (12, 64)}} for r = 64'
        )
    return rows, cols
