"""Block low-rank: ``delta[(o1 o2), (i1 i2)] = sum_s B[o1, i1, s, o2] A[i1, i2, o1, s]``, low-rank in each block.

Jung et al., arXiv 2505.20355 (GraLoRA), as in PEFT. The same network is localized LoRA (arXiv 2506.00236) and, with
interleaved rows, MoRe's Monarch matrix (Tan et al., arXiv 2408.17383). Choose it for updates of a higher rank than LoRA
has at the same budget, which differ from block to block.
"""

import math
from collections.abc import Mapping

import numpy as np

from tensoradapt.errors import TensorAdaptError
from tensoradapt.networks.layout import Layout, stem
from tensoradapt.networks.network import Factor, Network

layouts = (": out* : in*",)
parts = (2,)
near = (2, 1)
label = "Block low-rank"


def build(layout: Layout, rank: int) -> Network:
    """Make A (index, in1, in2, out1, r) and B (index, out1, in1, r, out2), which starts at zero.

    There are out1 x in1 blocks, each of rank r; GraLoRA's own rank is r n_in1, and its multiplier alpha over that.
    Rows ``out2 out1`` are interleaved, as in MoRe: neighbours are of different blocks.
    """
    index, (out1, out2), (in1, in2) = _modes(layout)
    a = Factor("A", (*index, in1, in2, out1, "r"), paper=("uniform", 1 / math.sqrt(layout.size_of[in2])))
    b = Factor("B", (*index, out1, in1, "r", out2), "zero")
    return Network(layout, (a, b), {"r": rank}, alpha=64, divisor=rank * layout.size_of[in1])


def largest(layout: Layout) -> int:
    """Return the largest rank at which two factors of a block have no more numbers than the block, or 1."""
    _, (_, out2), (_, in2) = _modes(layout)
    out, in_ = layout.size_of[out2], layout.size_of[in2]
    return max(1, out * in_ // (out + in_))


def count(layout: Layout, rank: int) -> int:
    """Return r (n_in1 d_out + n_out1 d_in), with n_out1 x n_in1 blocks, for every position of the index modes."""
    rows = layout.rows[::-1] if _interleaved(layout) else layout.rows
    per_matrix = rank * (layout.cols[0].size * layout.out + rows[0].size * layout.in_)
    return math.prod(m.size for m in layout.index) * per_matrix


def oracle(layout: Layout, factors: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return the matrices, each put together from the products of its blocks."""
    a, b = (factors[name].reshape(-1, *factors[name].shape[-4:]) for name in ("A", "B"))
    matrices = []
    for down, up in zip(a, b, strict=True):
        blocks = [[(down[j, :, i] @ up[i, j]).T for j in range(len(down))] for i in range(len(up))]
        rows = [np.hstack(row) for row in blocks]
        matrices.append(np.stack(rows, axis=1) if _interleaved(layout) else np.stack(rows))
    return np.stack(matrices).reshape(layout.shape)


def _interleaved(layout: Layout) -> bool:
    first, second = (mode.name for mode in layout.rows)
    return stem(first) == stem(second) and first > second


def _modes(layout: Layout) -> tuple[tuple[str, ...], ...]:
    index, rows, cols = (tuple(m.name for m in modes) for modes in (layout.index, layout.rows, layout.cols))
    if (len(rows), len(cols)) != (2, 2):
        raise TensorAdaptError(
            f"block_low_rank takes two row and two column modes, and layout {str(layout)!r} has {len(rows)} and "
            f'{len(cols)}; use ": out1 out2 : in1 in2", with split={{"out": (2, 384), "in": (2, 384)}} for 2 x 2 '
            "blocks of 768 x 768"
        )
    return index, rows[::-1] if _interleaved(layout) else rows, cols
