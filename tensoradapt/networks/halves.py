"""The halves of a matrix that starts take from its weight, its gradient or its inputs. Float64 numpy, no torch.

Each function takes the weight (out, in), what was measured, and a rank; it returns left (out, r) and right (r, in).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from tensoradapt.errors import TensorAdaptError
from tensoradapt.networks import decomposition

Array = np.ndarray
Halves = tuple[Array | None, Array | None]
DAMPING = 0.01  # CorDA's code adds this share of the mean variance of inputs to each, so that they can be inverted
FLAT = 1e-10  # a variance below this share of the largest is none


def pissa(weight: Array, _: Array | None, rank: int) -> Halves:
    """Return the first singular directions, the root of their values on both sides (Meng et al., arXiv 2404.02948)."""
    return _rooted(*decomposition.leading(weight, rank))


def milora(weight: Array, _: Array | None, rank: int) -> Halves:
    """Return the last singular directions, the root of their values on both sides (Wang et al., arXiv 2406.09044)."""
    return _rooted(*_last(weight, rank))


def mica(weight: Array, _: Array | None, rank: int) -> Halves:
    """Return the last left singular vectors (arXiv 2604.01694)."""
    return _last(weight, rank)[0], None


def olora(weight: Array, _: Array | None, rank: int) -> Halves:
    """Return the first columns of Q and rows of R of the weight's QR (Büyükakyüz, arXiv 2406.01775)."""
    q, r = np.linalg.qr(weight)
    return q[:, :rank], r[:rank]


def corda_ipm(weight: Array, moments: Array | None, rank: int) -> Halves:
    """Return the first singular directions of W C, right ones times 1/C (Yang et al., arXiv 2406.05223)."""
    return _in_context(weight, moments, rank, decomposition.leading)


def corda_kpm(weight: Array, moments: Array | None, rank: int) -> Halves:
    """Return the last singular directions of W C, right ones times 1/C (the same paper)."""
    return _in_context(weight, moments, rank, _last)


def eva(_: Array, moments: Array | None, rank: int) -> Halves:
    """Return the directions in which inputs vary most (Paischer et al., arXiv 2410.07170), centred as in its code.

    ``moments`` are those of inputs with a one behind each, (in + 1, in + 1). Raises TensorAdaptError where inputs vary
    in fewer directions.
    """
    given = _measured(moments)
    mean = given[:-1, -1:] / given[-1, -1]
    variances, directions = np.linalg.eigh(given[:-1, :-1] / given[-1, -1] - mean @ mean.T)
    if (n := int((variances > FLAT * variances[-1]).sum())) < rank:
        raise TensorAdaptError(
            f"the inputs vary in {n} directions, fewer than rank {rank}; give more batches or lower the rank"
        )
    right = directions[:, ::-1][:, :rank].T
    return None, right * np.sign(right[np.arange(rank), np.abs(right).argmax(axis=1)])[:, None]


def lora_sb(_: Array, gradient: Array | None, rank: int) -> Halves:
    """Return the singular vectors of the step of Adam from zero (Ponkshe et al., arXiv 2411.19557)."""
    left, _values, right = decomposition.leading(-np.sign(_measured(gradient)), rank)
    return left, right


HALVES: Mapping[str, Callable[[Array, Array | None, int], Halves]] = {
    **{"pissa": pissa, "milora": milora, "mica": mica, "olora": olora, "eva": eva, "lora-sb": lora_sb},
    **{"corda-ipm": corda_ipm, "corda-kpm": corda_kpm},
}


def _rooted(left: Array, values: Array, right: Array) -> Halves:
    root = np.sqrt(values)
    return left * root, root[:, None] * right


def _last(matrix: Array, rank: int) -> tuple[Array, Array, Array]:
    """Return the last singular vectors and values, signed as the leading ones are."""
    left, values, right = decomposition.leading(matrix, min(matrix.shape))
    return left[:, -rank:], values[-rank:], right[-rank:]


def _in_context(
    weight: Array, moments: Array | None, rank: int, some: Callable[[Array, int], tuple[Array, Array, Array]]
) -> Halves:
    """Take singular directions of W C and divide the right ones by C, the moments of inputs, damped as in the code."""
    given = _measured(moments)
    context = given + DAMPING * np.trace(given) / len(given) * np.eye(len(given))
    left, values, right = some(weight @ context, rank)
    return _rooted(left, values, np.linalg.solve(context, right.T).T)


def _measured(given: Array | None) -> Array:
    """Return what was measured; raise TensorAdaptError for numbers that are zero or not finite."""
    if given is None or not np.isfinite(given).all() or not given.any():
        what = "missing" if given is None else "zero" if np.isfinite(given).all() else "not finite"
        raise TensorAdaptError(f"what the start measures in the batches is {what}; give other batches, or start='zero'")
    return np.asarray(given, dtype=np.float64)
