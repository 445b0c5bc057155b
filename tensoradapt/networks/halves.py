"""The halves of a matrix that starts take from its weight, its gradient or its inputs. Float64 numpy, no torch.

A function of the type ``ToHalves`` takes the weight (out, in), what was measured, and a rank; it returns left (out, r)
and right (r, in).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tensoradapt.errors import TensorAdaptError
from tensoradapt.networks import decomposition

Array = np.ndarray
Halves = tuple[Array | None, Array | None]
ToHalves = Callable[[Array, Array | None, int], Halves]


def pissa(weight: Array, _: Array | None, rank: int) -> Halves:
    """Return the first singular directions, the root of their values on both sides (Meng et al., arXiv 2404.02948)."""
    return rooted(*decomposition.leading(weight, rank))


def rooted(left: Array, values: Array, right: Array) -> Halves:
    """Return left and right singular vectors, each times the root of the values."""
    root = np.sqrt(values)
    return left * root, root[:, None] * right


def last(matrix: Array, rank: int) -> tuple[Array, Array, Array]:
    """Return the last singular vectors and values, signed as the leading ones are."""
    left, values, right = decomposition.leading(matrix, min(matrix.shape))
    return left[:, -rank:], values[-rank:], right[-rank:]


def measured(given: Array | None) -> Array:
    """Return what was measured; raise TensorAdaptError for numbers that are zero or not finite."""
    if given is None or not np.isfinite(given).all() or not given.any():
        what = "missing" if given is None else "zero" if np.isfinite(given).all() else "not finite"
        raise TensorAdaptError(f"what the start measures in the batches is {what}; give other batches, or start='zero'")
    return np.asarray(given, dtype=np.float64)
