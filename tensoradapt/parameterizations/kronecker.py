"""LoKr: ``delta = C (x) (B A)``, a Kronecker product of a small full matrix and a low-rank (or full) one.

Edalati et al., arXiv 2212.10650 (KronA), with the low-rank factor of LyCORIS (arXiv 2309.14859) and PEFT. Of the row
modes ``out1 out2`` and the column modes ``in1 in2``, C has the first of each, B A the second. Choose it for an update
whose rank is the product of its factors' ranks, and so can be full at a small cost.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from tensoradapt.errors import TensorAdaptError
from tensoradapt.networks.layout import Layout
from tensoradapt.networks.network import Factor, Network

layouts = (": out1 out2 : in1 in2",)
parts = (2,)
label = "Kronecker"
look = ("#E69F00", ">")


def build(layout: Layout, rank: Any, full: bool = False) -> Network:
    """Multiply C (index, out1, in1), which starts at zero, with B (index, out2, r) and A (index, r, in2).

    The paper's multiplier is alpha / r. ``full`` replaces B and A by D (index, out2, in2), which has no rank: one
    that is given divides alpha alone, as in PEFT, and without one the multiplier is alpha. C is PEFT's ``lokr_w1``;
    PEFT draws the others uniformly within 1/sqrt(fan_in).
    """
    index, (out1, out2), (in1, in2) = _modes(layout)
    c, bound = Factor("C", (*index, out1, in1), "zero"), 1 / math.sqrt(layout.size_of[in2])
    if full:
        return Network(
            layout, (c, Factor("D", (*index, out2, in2), paper=("uniform", bound))), {}, alpha=8, divisor=rank or 1
        )
    b = Factor("B", (*index, out2, "r"), paper=("uniform", 1 / math.sqrt(rank)))
    a = Factor("A", (*index, "r", in2), paper=("uniform", bound))
    return Network(layout, (c, b, a), {"r": rank}, alpha=8, divisor=rank)


def count(layout: Layout, rank: Any, full: bool = False) -> int:
    """Return n_out1 n_in1 + r (n_out2 + n_in2), or + n_out2 n_in2 if ``full``, for each position of the index modes."""
    (out1, out2), (in1, in2) = ([m.size for m in modes] for modes in (layout.rows, layout.cols))
    second = out2 * in2 if full else rank * (out2 + in2)
    return math.prod(m.size for m in layout.index) * (out1 * in1 + second)


def oracle(layout: Layout, factors: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return numpy's Kronecker product, matrix by matrix."""
    each = list(np.ndindex(*(m.size for m in layout.index)))
    seconds = [factors["D"][i] if "D" in factors else factors["B"][i] @ factors["A"][i] for i in each]
    return np.stack([np.kron(factors["C"][i], d) for i, d in zip(each, seconds, strict=True)]).reshape(layout.shape)


def _modes(layout: Layout) -> tuple[tuple[str, ...], ...]:
    index, rows, cols = (tuple(m.name for m in modes) for modes in (layout.index, layout.rows, layout.cols))
    if (len(rows), len(cols)) != (2, 2):
        raise TensorAdaptError(
            f"kronecker takes two row and two column modes, and layout {str(layout)!r} has {len(rows)} and "
            f'{len(cols)}; use ": out1 out2 : in1 in2", with split={{"out": (24, 32), "in": (24, 32)}} for 768 x 768'
        )
    return index, rows, cols
