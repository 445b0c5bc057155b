"""A stack of low-rank updates is held as a small core and orthonormal bases, without the dense stack.

Where all rows (or all columns) of a layout are one mode, the stack's rows live in the span of the pairs' B (its columns
in that of their A): ``stack = core x_rows U x_cols V``, exactly. Decomposing the core and multiplying the factor of
that mode by the basis decomposes the stack. A side is kept whole if it has several modes (head, dim), whose factors no
basis of the side respects, or if the pairs' ranks sum to its width. With both sides whole the core is the dense stack.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tensoradapt.compression.sources import Update
from tensoradapt.lora.pair import LoraPair, triangular
from tensoradapt.networks.layout import Layout, Mode
from tensoradapt.networks.network import Network
from tensoradapt.planning.plan import Group


@dataclass(frozen=True)
class Core:
    """A stack of updates as ``values`` over a layout whose modes in ``bases`` are cut to the stack's rank."""

    layout: Layout
    values: np.ndarray
    bases: Mapping[str, np.ndarray]  # mode -> (n, m), orthonormal columns

    def over(self, network: Network) -> Core:
        """Widen each basis to the widest bond of the factor that has its mode.

        The network over the core is then clipped no further than the one over the stack.
        """
        bases, values, sizes = dict(self.bases), self.values, {}
        held = Counter(label for factor in network.factors for label in factor.labels)
        joining = {bond: n for bond, n in network.bonds.items() if held[bond] == 2}
        for mode, basis in self.bases.items():
            factor = next(f for f in network.factors if mode in f.labels)
            bases[mode] = _extended(basis, max((n for bond, n in joining.items() if bond in factor.labels), default=1))
            sizes[mode] = bases[mode].shape[1]
            more = [(0, sizes[mode] - basis.shape[1] if name == mode else 0) for name in self.layout.names]
            values = np.pad(values, more)
        return Core(_resized(self.layout, sizes), values, bases)

    def lifted(self, network: Network, factors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Turn factors over the core into factors over the stack."""
        whole = dict(factors)
        for factor in network.factors:
            for axis in (i for i, label in enumerate(factor.labels) if label in self.bases):
                basis = self.bases[factor.labels[axis]]
                whole[factor.name] = np.moveaxis(np.tensordot(basis, whole[factor.name], (1, axis)), 0, axis)
        return whole


def core_of(group: Group, updates: Mapping[str, Update]) -> Core:
    """Return the core of a group's updates (by site name); the dense stack itself where no side can be cut."""
    layout, members = group.network.layout, group.members
    matrices = [updates[m.site.name].T if m.transposed else updates[m.site.name] for m in members]
    u = _basis(group.network, layout.rows, matrices)
    v = _basis(group.network, layout.cols, [matrix.T for matrix in matrices])
    bases = {modes[0].name: q for modes, q in ((layout.rows, u), (layout.cols, v)) if q is not None}
    small = _resized(layout, {mode: q.shape[1] for mode, q in bases.items()})
    values = np.zeros(small.shape)
    for member, matrix in zip(members, matrices, strict=True):
        position = tuple(member.at[mode.name] for mode in layout.index)  # no ranges there
        values[position] = _projected(matrix, u, v).reshape(small.shape[len(layout.index) :])
    return Core(small, values, bases)


def _basis(network: Network, modes: Sequence[Mode], updates: Sequence[Update]) -> np.ndarray | None:
    """Return left singular vectors of the updates side by side; None where the side of these modes is kept whole."""
    ranks = (update.rank if isinstance(update, LoraPair) else min(update.shape) for update in updates)
    if not can_be_cut(network, modes) or sum(ranks) >= modes[0].size:
        return None
    q, r = np.linalg.qr(np.concatenate([_half(update) for update in updates], axis=1))
    u, s, _ = np.linalg.svd(r)
    rank = int(np.count_nonzero(s > s[0] * np.finfo(float).eps * max(q.shape)))
    return q @ u[:, : max(rank, 1)]


def can_be_cut(network: Network, modes: Sequence[Mode]) -> bool:
    """Say whether a basis can stand for a side of these modes: one mode, in one factor."""
    return len(modes) == 1 and sum(modes[0].name in factor.labels for factor in network.factors) == 1


def _half(update: Update) -> np.ndarray:  # (out, R)
    """Return B times the triangular factor of A, whose columns span the matrix's and carry its singular values."""
    return update.b @ triangular(update.a.T).T if isinstance(update, LoraPair) else update


def _projected(update: Update, u: np.ndarray | None, v: np.ndarray | None) -> np.ndarray:
    """Return ``U^T B A V``."""
    if not isinstance(update, LoraPair):
        left = update if u is None else u.T @ update
        return left if v is None else left @ v
    b = update.b if u is None else u.T @ update.b
    return b @ (update.a if v is None else update.a @ v)


def _extended(basis: np.ndarray, wanted: int) -> np.ndarray:
    n, m = basis.shape
    if (wanted := min(wanted, n)) <= m:
        return basis
    more = np.random.default_rng(0).standard_normal((n, wanted - m))
    more -= basis @ (basis.T @ more)
    return np.concatenate([basis, np.linalg.qr(more - basis @ (basis.T @ more))[0]], axis=1)


def _resized(layout: Layout, sizes: Mapping[str, int]) -> Layout:
    def of(modes: tuple[Mode, ...]) -> tuple[Mode, ...]:
        return tuple(replace(mode, size=sizes.get(mode.name, mode.size)) for mode in modes)

    return Layout(of(layout.index), of(layout.rows), of(layout.cols))
