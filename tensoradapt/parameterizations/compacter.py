"""Compacter: ``delta = sum_k R_k (x) (S_k T_k)``, Kronecker products of a rule that matrices share and low-rank ones.

Karimi Mahabadi et al., arXiv 2106.04647, as the weight of a matrix instead of an adapter layer's. The rule R belongs to
all positions of the index modes. Choose it for many matrices at less than LoRA's cost per rank. An update's rank is up
to the square of the number of terms times its rank.
"""

import math
from collections.abc import Mapping

import numpy as np

from tensoradapt.checks import check_whole
from tensoradapt.errors import TensorAdaptError
from tensoradapt.networks.layout import Layout
from tensoradapt.networks.network import Factor, Network

layouts = ("layer proj : out* : in*",)
parts = (2,)
label = "Compacter"


def build(layout: Layout, rank: int, terms: int | None = None) -> Network:
    """Make the rule R (k, out1, in1), T (index, k, r, in2), and S (index, k, out2, r), which starts at zero.

    ``terms`` is the number of k, by default the larger of out1 and in1; these three are the paper's n. Its multiplier
    is 1; its code draws R with deviation 0.01, and T as torch's xavier_uniform_.
    """
    index, (out1, out2), (in1, in2) = _modes(layout)
    n = _terms(layout, terms)
    factors = (
        Factor("R", ("k", out1, in1), paper=("normal", 0.01)),
        Factor("T", (*index, "k", "r", in2), paper=("uniform", math.sqrt(6 / (layout.size_of[in2] + rank)))),
        Factor("S", (*index, "k", out2, "r"), "zero"),
    )
    return Network(layout, factors, {"r": rank, "k": n}, derived=("k",))


def count(layout: Layout, rank: int, terms: int | None = None) -> int:
    """Return r n (n_out2 + n_in2) for every position of the index modes, and n n_out1 n_in1 once."""
    n, (out1, out2), (in1, in2) = _terms(layout, terms), *([m.size for m in s] for s in (layout.rows, layout.cols))
    return math.prod(m.size for m in layout.index) * rank * n * (out2 + in2) + n * out1 * in1


def oracle(layout: Layout, factors: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return the sum of numpy's Kronecker products, matrix by matrix."""
    rule = factors["R"]
    s, t = (factors[name].reshape(-1, *factors[name].shape[-3:]) for name in ("S", "T"))
    terms = range(len(rule))
    matrices = [sum(np.kron(rule[k], up[k] @ down[k]) for k in terms) for up, down in zip(s, t, strict=True)]
    return np.stack(matrices).reshape(layout.shape)


def _terms(layout: Layout, terms: int | None) -> int:
    if terms is None:
        return max(layout.rows[0].size, layout.cols[0].size)
    check_whole("terms", terms)
    return terms


def _modes(layout: Layout) -> tuple[tuple[str, ...], ...]:
    index, rows, cols = (tuple(m.name for m in modes) for modes in (layout.index, layout.rows, layout.cols))
    if (len(rows), len(cols)) != (2, 2):
        raise TensorAdaptError(
            f"compacter takes two row and two column modes, and layout {str(layout)!r} has {len(rows)} and "
            f'{len(cols)}; use "layer proj : out1 out2 : in1 in2", with split={{"out": (4, 192), "in": (4, 192)}} for '
            "n = 4 at 768"
        )
    return index, rows, cols
