"""QuanTA: ``delta`` is a circuit of gates, each a full matrix over two of the axes that the width is folded into.

Chen et al., arXiv 2406.00132, as in its released code: one gate per pair of axes, in the order of
``itertools.combinations(range(-1, -N - 1, -1), 2)``. It has no rank: an update can have full rank. Choose it where
low-rank updates fall short. It needs square matrices, folded alike on both sides: ``: out1 out2 out3 : in1 in2 in3``.
"""

import itertools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from tensoradapt.errors import TensorAdaptError
from tensoradapt.networks.layout import Layout, near_equal
from tensoradapt.networks.network import Factor, Network

layouts = (": out* : in*",)
parts = (2, 3)
square = True
label = "QuanTA"
ranked = False
look = ("#CC79A7", "<")


def build(layout: Layout, rank: Any = None) -> Network:
    """Apply a gate (index, out_j, out_i, in_j, in_i) per pair i > j of axes in turn; the last gate starts at zero.

    The paper's multiplier is alpha. It starts at zero by subtracting the initial update, with every gate uniform within
    1/sqrt(n_i n_j).
    """
    _check(layout)
    index, rows, wires = (tuple(m.name for m in modes) for modes in (layout.index, layout.rows, layout.cols))
    state, gates = list(wires), []
    bonds: dict[str, int] = {}
    pairs = list(itertools.combinations(range(-1, -len(rows) - 1, -1), 2))
    for k, (i, j) in enumerate(pairs):
        later = {axis for pair in pairs[k + 1 :] for axis in pair}
        outs = {axis: f"{wires[axis]}_{k}" if axis in later else rows[axis] for axis in (j, i)}
        bonds |= {outs[axis]: layout.cols[axis].size for axis in (j, i) if axis in later}
        bound = 1 / math.sqrt(layout.cols[i].size * layout.cols[j].size)
        labels = (*index, outs[j], outs[i], state[j], state[i])
        gates.append(Factor(f"G{k + 1}", labels, "normal" if later else "zero", ("uniform", bound)))
        state[i], state[j] = outs[i], outs[j]
    return Network(layout, tuple(gates), bonds, derived=tuple(bonds))


def count(layout: Layout, rank: Any = None) -> int:
    """Return the sum over pairs of axes of (n_i n_j)^2, for every position of the index modes."""
    sizes = [m.size for m in layout.cols]
    return math.prod(m.size for m in layout.index) * sum((a * b) ** 2 for a, b in itertools.combinations(sizes, 2))


def oracle(layout: Layout, factors: Mapping[str, np.ndarray]) -> np.ndarray:
    """Apply the circuit to every unit vector, gate by gate, at every position of the index modes."""
    positions = itertools.product(*(range(m.size) for m in layout.index))
    return np.stack([_circuit(layout, [g[at] for g in factors.values()]) for at in positions]).reshape(layout.shape)


def _circuit(layout: Layout, gates: list[np.ndarray]) -> np.ndarray:  # (out, in)
    order = itertools.combinations(range(-1, -len(layout.cols) - 1, -1), 2)
    x = np.eye(layout.in_).reshape(layout.in_, *(m.size for m in layout.cols))  # one input at a time, by axis
    for gate, (i, j) in zip(gates, order, strict=True):
        moved = np.moveaxis(x, (j, i), (-2, -1))
        matrix = gate.reshape(gate.shape[0] * gate.shape[1], -1)
        moved = (moved.reshape(-1, matrix.shape[1]) @ matrix.T).reshape(moved.shape)
        x = np.moveaxis(moved, (-2, -1), (j, i))
    return x.reshape(layout.in_, layout.in_).T


def _check(layout: Layout) -> None:
    rows, cols = ([m.size for m in modes] for modes in (layout.rows, layout.cols))
    if len(cols) < 2 or rows != cols:
        alike = near_equal(layout.in_, max(len(cols), 2))
        raise TensorAdaptError(
            f"quanta takes two or more row modes and as many column modes of the same sizes, and layout "
            f"{str(layout)!r} has rows {tuple(rows)} and columns {tuple(cols)}; adapt square matrices, with e.g. "
            f"split={{'out': {alike}, 'in': {alike}}} for a width of {layout.in_}"
        )
