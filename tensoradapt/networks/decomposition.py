"""Steps that every ``decompose`` shares: check the tensor, run TensorLy on numpy, widen bonds, take an SVD."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np

from tensoradapt.errors import TensorAdaptError
from tensoradapt.networks import least_squares
from tensoradapt.networks.network import Network

FEW = 8  # a Gram matrix is worth it where the shorter side is at least this many times the number of wanted vectors
SMALL = 0.01  # the least ratio of wanted singular values at which the Gram matrix keeps twelve digits


def checked(network: Network, tensor: np.ndarray) -> np.ndarray:
    """Return the tensor in float64. Raises TensorAdaptError for another shape and for non-finite entries."""
    layout, values = network.layout, np.asarray(tensor, dtype=np.float64)
    if values.shape != layout.shape:
        raise TensorAdaptError(f"the tensor has shape {values.shape}; layout {str(layout)!r} expects {layout.shape}")
    if not np.isfinite(values).all():
        raise TensorAdaptError(
            f"the tensor has {np.count_nonzero(~np.isfinite(values)):,} non-finite entries of {values.size:,}; "
            "only finite numbers can be decomposed: the training they come from has diverged"
        )
    return values


def widened(network: Network, clipped: Network, values: Mapping[str, np.ndarray], seed: int) -> dict[str, np.ndarray]:
    """Pad the factors ``values`` of ``clipped``, whose bonds are narrower, to those of ``network``; same tensor.

    Every entry of a bond can train in what is returned.
    """
    wide = {f.name: np.zeros(network.shape(f)) for f in network.factors}
    for factor in network.factors:
        wide[factor.name][tuple(slice(n) for n in clipped.shape(factor))] = values[factor.name]
    return least_squares.revived(network, wide, seed)


@contextmanager
def tensorly_on_numpy() -> Iterator[None]:
    """Let TensorLy compute on numpy arrays in this thread, without its warnings about ranks above a size."""
    import tensorly

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Trying to compute SVD with n_eigenvecs")
        if tensorly.get_backend() == "numpy":  # entering and leaving the context would set the global default
            yield
        else:
            with tensorly.backend_context("numpy", local_threadsafe=True):
                yield


def unit_columns(n: int, m: int, generator: np.random.Generator) -> np.ndarray:  # (n, m)
    """Draw random columns of norm 1."""
    drawn = generator.standard_normal((n, m))
    return drawn / np.linalg.norm(drawn, axis=0)


def by_position(
    network: Network,
    tensor: np.ndarray,  # the layout's shape
    rank: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # U (index, out, r), S (index, r), V^T (index, r, in)
    """Return the leading singular vectors and values of the matrix at each position of the index modes, in float64."""
    layout = network.layout
    index = tuple(m.size for m in layout.index)
    matrices = checked(network, tensor).reshape(-1, layout.out, layout.in_)
    parts = zip(*(leading(matrix, rank) for matrix in matrices), strict=True)
    u, s, vt = (np.stack(part).reshape(*index, *part[0].shape) for part in parts)
    return u, s, vt


def leading(
    matrix: np.ndarray,  # (out, in), finite
    rank: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # U (out, r), S (r,), V^T (r, in)
    """Return the leading singular vectors and values of a matrix; the largest entry of each row of V^T is positive."""
    u, s, vt = _few(matrix, rank) or np.linalg.svd(matrix, full_matrices=False)
    vt = vt[:rank]
    signs = np.sign(vt[np.arange(rank), np.abs(vt).argmax(axis=1)])  # LAPACK's are not the same everywhere
    return u[:, :rank] * signs, s[:rank], signs[:, None] * vt


def _few(matrix: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Take a few singular vectors from the Gram matrix of the shorter side, in a third to a fifth of the time.

    None where many are wanted, and where the last value is below SMALL of the first: the Gram matrix squares them.
    """
    from scipy import linalg

    tall = matrix if len(matrix) >= matrix.shape[1] else matrix.T
    n = tall.shape[1]
    with np.errstate(over="ignore", invalid="ignore"):
        gram = tall.T @ tall
    if rank * FEW > n or not np.isfinite(gram).all():
        return None
    _, v = linalg.eigh(gram, subset_by_index=(n - rank, n - 1))
    q, r = np.linalg.qr(tall @ v)
    left, s, right = np.linalg.svd(r)
    if not s[-1] > SMALL * s[0]:
        return None
    u, vt = q @ left, right @ v.T
    return (u, s, vt) if tall is matrix else (vt.T, s, u.T)
