"""Khatri-Rao: ``delta[(o1 o2), i] = V[i, o1] U[i, o2]``, of full rank from two factors; mirrored where d_out <= d_in.

Albert et al., arXiv 2508.00230 (KRAdapter), as in its released code. The larger side has two parts, and each of its
slices along the smaller one is the outer product of two vectors. It has no rank. Choose it where an update of full
effective rank matters more than its fit to single directions.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from tensoradapt.errors import TensorAdaptError
from tensoradapt.networks.layout import Layout, Mode
from tensoradapt.networks.network import Factor, Network

layouts = (": out* : in*",)
parts = (2,)
label = "Khatri-Rao"
ranked = False


def build(layout: Layout, rank: Any = None) -> Network:
    """Make V (index, other side, part 1) and U (index, other side, part 2), which starts at zero.

    The parts are those of the larger side, if both have two; a square matrix has those of its columns. The paper's
    multiplier is 2; its code has parts near the root of the larger side and crops what they multiply to.
    """
    parted, other = _sides(layout)
    index, one = tuple(m.name for m in layout.index), tuple(m.name for m in other)
    first, second = (m.name for m in parted)
    bound = math.sqrt(3 / 13 / layout.size_of[first])  # as torch's kaiming_uniform_ with a=5
    v = Factor("V", (*index, *one, first), paper=("uniform", bound))
    return Network(layout, (v, Factor("U", (*index, *one, second), "zero")), {}, alpha=2)


def count(layout: Layout, rank: Any = None) -> int:
    """Return m (a + b), a and b the parts of one side, m the other side, for every position of the index modes."""
    parted, other = _sides(layout)
    sizes = [math.prod(m.size for m in layout.index), *(m.size for m in other)]
    return math.prod(sizes) * sum(m.size for m in parted)


def oracle(layout: Layout, factors: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return the Khatri-Rao products, matrix by matrix: a Kronecker product for each place on the other side."""
    other = layout.in_ if _sides(layout)[0] == layout.rows else layout.out
    v, u = (factors[name].reshape(-1, other, factors[name].shape[-1]) for name in ("V", "U"))
    matrices = [np.stack([np.kron(*pair) for pair in zip(*both, strict=True)]) for both in zip(v, u, strict=True)]
    turned = _sides(layout)[0] == layout.rows
    return np.stack([m.T if turned else m for m in matrices]).reshape(layout.shape)


def _sides(layout: Layout) -> tuple[tuple[Mode, ...], tuple[Mode, ...]]:
    """Return the two modes of a side, the larger one if both have two, and the modes of the other side."""
    sides = (layout.rows, layout.cols) if layout.out > layout.in_ else (layout.cols, layout.rows)
    if len(sides[0]) != 2:
        sides = sides[::-1]
    if len(sides[0]) != 2:
        raise TensorAdaptError(
            f"khatri_rao takes two parts of a side, and layout {str(layout)!r} {layout.shape} has {len(layout.rows)} "
            f'row and {len(layout.cols)} column modes; use ": out* : in*", with e.g. '
            'split={"out": (32, 24), "in": (32, 24)} for 768 x 768'
        )
    return sides
