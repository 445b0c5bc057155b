"""CorDA starts at singular directions of the weight in the context of its inputs (Yang et al., arXiv 2406.05223)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from tensoradapt.networks.decomposition import leading
from tensoradapt.networks.halves import Array, Halves, last, measured, rooted
from tensoradapt.networks.starts import BOTH, Start
from tensoradapt.published.row import started

DAMPING = 0.01  # the code adds this share of the mean variance of inputs to each, so that they can be inverted
SOURCE = "Yang et al., arXiv 2406.05223; as in PEFT"


def halves(some: Callable[[Array, int], Any], weight: Array, moments: Array | None, rank: int) -> Halves:
    """Take singular directions of W C and divide the right ones by C, the moments of inputs, damped as in the code."""
    given = measured(moments)
    context = given + DAMPING * np.trace(given) / len(given) * np.eye(len(given))
    left, values, right = some(weight @ context, rank)
    return rooted(left, values, np.linalg.solve(context, right.T).T)


def of_largest(x: Any) -> Any:  # (n, in), a tensor of torch
    """Divide the inputs of a batch by their largest entry, as the code does."""
    return x / x.max().abs()


STARTS = {
    "corda-ipm": Start("subtract", "inputs", BOTH, partial(halves, leading), of_largest),
    "corda-kpm": Start("subtract", "inputs", BOTH, partial(halves, last), of_largest),
}
NOTE = "A and B start as the {} r singular directions of W C, C the second moments of inputs, times 1/C; needs batches"
ROWS = {
    f"corda-{which.lower()}": started(f"CorDA-{which}", SOURCE, NOTE.format(part), tensors=((": out : in", ("all",)),))
    for which, part in (("IPM", "first"), ("KPM", "last"))
}
