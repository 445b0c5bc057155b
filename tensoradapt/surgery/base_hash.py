"""Hash the base weights that an adapter is attached to, so that load can compare them."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from tensoradapt.layers.stored_matrix import Matrices
from tensoradapt.surgery.checks import check_loaded
from tensoradapt.surgery.registry import Adapters

SAMPLE = 1024  # so many first entries of each weight are hashed in their order


def base_hash(matrices: Matrices) -> str:
    """Return a hash of every adapted weight, by value: equal in all dtypes that hold the values.

    It covers the first entries of each in their order, and all entries by the sum of their bits, which is exact and
    costs one pass.
    """
    digest = hashlib.sha256()
    for name, matrix in matrices.items():
        check_loaded(matrix)
        weight = (matrix.read() if matrix.quantisation else matrix.weight).detach()
        digest.update(name.encode() + weight.flatten()[:SAMPLE].double().cpu().numpy().tobytes())
        digest.update(str(_sum_of_bits(weight)).encode())
    return digest.hexdigest()


def hash_when_saved(registry: Adapters, matrices: Matrices, first: str) -> str:
    """Hash the base at the time of a save: it may have been cast since it was attached to.

    While weights are merged or sharded, the hash is ``first``, that of the time of ``attach``.
    """
    sharded = any(hasattr(matrix.parameter, "full_tensor") for matrix in matrices.values())
    return first if registry.merged or sharded else base_hash(matrices)


def _sum_of_bits(weight: Tensor) -> int:
    """Sum the bits of all entries as whole numbers, those of float32 where this holds the values; it may wrap."""
    values = weight.float()
    if weight.dtype is torch.float64 and not torch.equal(values.double(), weight):
        values = weight
    values = values.contiguous().flatten()
    values = values.clone() if values.storage_offset() % 2 else values  # pairs begin at even addresses
    bits = values.view(torch.int32 if values.dtype is torch.float32 else torch.int64)
    pairs = bits[: len(bits) // 2 * 2].view(torch.int64)  # summed two at a time, which takes half as long
    return int(pairs.sum()) + int(bits[2 * len(pairs) :].sum()) if bits.dtype is torch.int32 else int(bits.sum())
