"""EVA starts A at the directions in which inputs vary most (Paischer et al., arXiv 2410.07170)."""

from __future__ import annotations

from typing import Any

import numpy as np

from tensoradapt.errors import TensorAdaptError
from tensoradapt.networks.halves import Array, Halves, measured
from tensoradapt.networks.starts import Start
from tensoradapt.published.row import started

FLAT = 1e-10  # a variance below this share of the largest is none


def halves(_: Array, moments: Array | None, rank: int) -> Halves:
    """Return the directions in which inputs vary most, centred as in its code.

    ``moments`` are those of inputs with a one behind each, (in + 1, in + 1). Raises TensorAdaptError where inputs vary
    in fewer directions.
    """
    given = measured(moments)
    mean = given[:-1, -1:] / given[-1, -1]
    variances, directions = np.linalg.eigh(given[:-1, :-1] / given[-1, -1] - mean @ mean.T)
    if (n := int((variances > FLAT * variances[-1]).sum())) < rank:
        raise TensorAdaptError(
            f"the inputs vary in {n} directions, fewer than rank {rank}; give more batches or lower the rank"
        )
    right = directions[:, ::-1][:, :rank].T
    return None, right * np.sign(right[np.arange(rank), np.abs(right).argmax(axis=1)])[:, None]


def with_one(x: Any) -> Any:  # (n, in) -> (n, in + 1), tensors of torch
    """Put a one behind each input, so that moments hold their number and their mean."""
    return x.new_ones(len(x), x.shape[1] + 1).index_copy_(1, x.new_tensor(range(x.shape[1])).long(), x)


STARTS = {"eva": Start("zero", "inputs", ("right",), halves, with_one)}
ROWS = {
    "eva": started(
        "EVA",
        "Paischer et al., arXiv 2410.07170; as in PEFT",
        "A starts as the r directions in which inputs vary most; needs batches; targets as in the authors' code, which "
        "adapts the head besides; not expressible: ranks that are redistributed among layers (rho), all have r",
        tensors=((": out : in", ("all",)),),
        power=None,
    ),
}
