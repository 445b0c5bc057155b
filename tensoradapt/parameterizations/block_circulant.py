"""Block circulant: ``delta[(o1 t), (i1 s)] = K[o1, i1, (s - t) mod b] / d_in``, each b x b block from b numbers.

Chen et al., arXiv 2407.19342 (C3A), as in PEFT. It has no rank: the block size is the last part of each side. Choose it
for an update of full rank at d_out d_in / b parameters. Its pair is as large as the matrix, so it is merged to be
served.
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
label = "Block circulant"
ranked = False
LARGEST = 128  # the pattern of shifts has b^3 numbers


def build(layout: Layout, rank: Any = None) -> Network:
    """Make the kernels K (index, out1, in1, f), from zero, and the frozen pattern of their shifts (f, out2, in2).

    The paper's multiplier is 1 / d_in. Where out2 and in2 differ, f is the larger: a block is a corner of a circulant.
    """
    (out1, out2), (in1, in2) = _modes(layout)
    kernels = Factor("K", (*(m.name for m in layout.index), out1, in1, "f"), "zero")
    shifts = Factor("S", ("f", out2, in2), paper=("shift", 1.0), trainable=False, source="set")
    return Network(layout, (kernels, shifts), {"f": _size(layout)}, divisor=layout.in_, derived=("f",))


def count(layout: Layout, rank: Any = None) -> int:
    """Return n_out1 n_in1 b, which is d_out d_in / b, for every position of the index modes."""
    return math.prod(m.size for m in layout.index) * layout.rows[0].size * layout.cols[0].size * _size(layout)


def oracle(layout: Layout, factors: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return the matrices put together from rolled kernels, row by row of each block."""
    n_rows, n_cols = layout.rows[1].size, layout.cols[1].size
    kernels = factors["K"].reshape(-1, *factors["K"].shape[-3:])
    rows = np.stack([np.roll(kernels, t, axis=-1)[..., :n_cols] for t in range(n_rows)], axis=2)
    return rows.reshape(layout.shape)


def _size(layout: Layout) -> int:
    return max(layout.rows[1].size, layout.cols[1].size)


def _modes(layout: Layout) -> tuple[tuple[str, ...], ...]:
    rows, cols = (tuple(m.name for m in modes) for modes in (layout.rows, layout.cols))
    if (len(rows), len(cols)) != (2, 2):
        raise TensorAdaptError(
            f"block_circulant takes two row and two column modes, and layout {str(layout)!r} has {len(rows)} and "
            f'{len(cols)}; use ": out1 out2 : in1 in2", with split={{"out": (12, 64), "in": (12, 64)}} for blocks of '
            "64 in 768 x 768"
        )
    if (b := _size(layout)) > LARGEST:
        nearest = max(n for n in range(1, LARGEST + 1) if layout.out % n == 0 and layout.in_ % n == 0)
        split = {"out": (layout.out // nearest, nearest), "in": (layout.in_ // nearest, nearest)}
        raise TensorAdaptError(
            f"block_circulant has blocks of {b} in layout {str(layout)!r} {layout.shape}, whose pattern of shifts has "
            f"{b**3:,} numbers; expected blocks of at most {LARGEST}: use split={split}"
        )
    return rows, cols
