"""Shared steps of every ``decompose``: check the tensor, run TensorLy on numpy, widen bonds, take an SVD."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import tensorly

from tensoradapt.errors import TensorAdaptError
from tensoradapt.networks import least_squares
from tensoradapt.networks.network import Network


def checked(network: Network, tensor: np.ndarray) -> np.ndarray:
    """The tensor in float64. Raises TensorAdaptError for another shape and for non-finite entries."""
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
    """Factors of ``network`` for the same tensor as ``values`` of ``clipped``, whose bonds are narrower.

    Every entry of a bond can train.
    """
    wide = {f.name: np.zeros(network.shape(f)) for f in network.factors}
    for factor in network.factors:
        wide[factor.name][tuple(slice(n) for n in clipped.shape(factor))] = values[factor.name]
    return least_squares.revived(network, wide, seed)


@contextmanager
def tensorly_on_numpy() -> Iterator[None]:
    """Let TensorLy compute on numpy arrays in this thread, without its warnings about ranks above a size."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Trying to compute SVD with n_eigenvecs")
        if tensorly.get_backend() == "numpy":  # entering and leaving the context would set the global default
            yield
        else:
            with tensorly.backend_context("numpy", local_threadsafe=True):
                yield


def unit_columns(n: int, m: int, generator: np.random.Generator) -> np.ndarray:  # (n, m)
    """Random columns of norm 1."""
    drawn = generator.standard_normal((n, m))
    return drawn / np.linalg.norm(drawn, axis=0)


def by_position(
    network: Network,
    tensor: np.ndarray,  # the layout's shape
    rank: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # U (index, out, r), S (index, r), V^T (index, r, in)
    """Leading singular vectors and values of the matrix at every position of the index modes, in float64."""
    layout = network.layout
    index = tuple(m.size for m in layout.index)
    u, s, vt = np.linalg.svd(checked(network, tensor).reshape(*index, layout.out, layout.in_), full_matrices=False)
    return u[..., :rank], s[..., :rank], vt[..., :rank, :]
