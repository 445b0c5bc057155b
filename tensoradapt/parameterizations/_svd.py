"""The singular value decomposition of every matrix of a tensor, for parameterizations that start from base weights."""

from __future__ import annotations

import numpy as np

from tensoradapt.networks.network import Network
from tensoradapt.parameterizations._decompose import checked


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
