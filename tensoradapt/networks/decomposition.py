"""What every ``decompose`` needs: the tensor checked, TensorLy on numpy whatever the caller's backend is, fillings."""

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
    """The tensor in float64; TensorAdaptError for another shape and for non-finite entries."""
    layout, made = network.layout, np.asarray(tensor, dtype=np.float64)
    if made.shape != layout.shape:
        raise TensorAdaptError(f"the tensor has shape {made.shape}; layout {str(layout)!r} expects {layout.shape}")
    if not np.isfinite(made).all():
        raise TensorAdaptError(
            f"the tensor has {np.count_nonzero(~np.isfinite(made)):,} non-finite entries of {made.size:,}; "
            "only finite numbers can be decomposed: the training they come from has diverged"
        )
    return made


def widened(network: Network, clipped: Network, values: Mapping[str, np.ndarray], seed: int) -> dict[str, np.ndarray]:
    """The factors of the clipped network with its wider bonds: the same tensor, and every entry of a bond can train."""
    made = {f.name: np.zeros(network.shape(f)) for f in network.factors}
    for factor in network.factors:
        made[factor.name][tuple(slice(n) for n in clipped.shape(factor))] = values[factor.name]
    return least_squares.revived(network, made, seed)


@contextmanager
def tensorly_on_numpy() -> Iterator[None]:
    """Within it TensorLy computes on numpy arrays in this thread, and its warnings about ranks above a size are off."""
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
    """The first ``rank`` singular vectors and values at every position of the index modes, in float64."""
    layout = network.layout
    index = tuple(m.size for m in layout.index)
    u, s, vt = np.linalg.svd(checked(network, tensor).reshape(*index, layout.out, layout.in_), full_matrices=False)
    return u[..., :rank], s[..., :rank], vt[..., :rank, :]
