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
from tensoradapt.networks.layout import Layout
from tensoradapt.networks.network import Factor, Network

layouts = (": out* : in*",)
parts = (2,)
label = "Khatri-Rao"


def build(layout: Layout, rank: Any = None) -> Network:
    """Make V (index, smaller side, part 1) and U (index, smaller side, part 2), which starts at zero.

    A square matrix has the parts of its columns. The paper's multiplier is 2; its code has parts near the root of the
    larger side and crops what they multiply to, here they multiply to the side.
    """
    larger, smaller = _sides(layout)
    index, one = tuple(m.name for m in layout.index), tuple(m.name for m in smaller)
    first, second = (m.name for m in larger)
    bound = math.sqrt(3 / 13 / layout.size_of[first])  # of torch's kaiming_uniform_ with a=5
    factors = (Factor("V", (*index, *one, first), paper=("uniform", bound)), Factor("U", (*index, *one, second), "zero"))
    return Network(layout, factors, {}, alpha=2)


def count(layout: Layout, rank: Any = None) -> int:
    """Return m (a + b), a and b the parts of the larger side, m the smaller, for every position of the index modes."""
    smaller = min(layout.out, layout.in_)
    return math.prod(m.size for m in layout.index) * smaller * sum(m.size for m in _sides(layout)[0])


def oracle(layout: Layout, factors: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return the Khatri-Rao products, matrix by matrix: a Kronecker product for each place on the smaller side."""
    smaller = min(layout.out, layout.in_)
    v, u = (factors[name].reshape(-1, smaller, factors[name].shape[-1]) for name in ("V", "U"))
    matrices = [np.stack([np.kron(*pair) for pair in zip(*both, strict=True)]) for both in zip(v, u, strict=True)]
    return np.stack([m.T if layout.out > layout.in_ else m for m in matrices]).reshape(layout.shape)


def _sides(layout: Layout) -> tuple[Any, Any]:
    """Return the modes of the larger side, of which there are two, and of the smaller one."""
    name, larger, smaller = ("out", layout.rows, layout.cols)
    if layout.out <= layout.in_:
        name, larger, smaller = ("in", layout.cols, layout.rows)
    if len(larger) != 2:
        raise TensorAdaptError(
            f"khatri_rao takes two parts of the larger side, and layout {str(layout)!r} {layout.shape} has "
            f'{len(larger)} there; use ": out* : in*", with e.g. split={{{name!r}: (24, 32)}} for a width of 768'
        )
    return larger, smaller
