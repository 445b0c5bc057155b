"""A stack of low-rank updates is held as a small core and orthonormal bases, without the dense stack.

Where all rows (or all columns) of a layout are one mode, the stack's rows live in the span of the pairs' B (its columns
in that of their A): ``stack = core x_rows U x_cols V``, exactly. Decomposing the core and multiplying the factor of
that mode by the basis decomposes the stack. A side is kept whole if it has several modes (head, dim), whose factors no
basis of the side respects, or if the pairs' ranks sum to its width. With both sides whole the core is the dense stack.

The updates of a library's adapters are read one adapter at a time. Of a side their core keeps the leading directions,
about twice as many as the network's bonds ask for; what lies outside of them is counted in the error.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tensoradapt.compression.sources import Update, norm_of
from tensoradapt.errors import TensorAdaptError
from tensoradapt.lora.pair import LoraPair, triangular
from tensoradapt.networks.layout import Layout, Mode
from tensoradapt.networks.modes import TASK
from tensoradapt.networks.network import Network
from tensoradapt.planning.plan import Group

LIBRARY = 2**29  # bytes of the core of several adapters, at most

Updates = Mapping[str, Mapping[str, Update]]  # by the adapter's name and the site's


@dataclass(frozen=True)
class Core:
    """A stack of updates as ``values`` over a layout whose modes in ``bases`` are cut to the stack's rank."""

    layout: Layout
    values: np.ndarray
    bases: Mapping[str, np.ndarray]  # mode -> (n, m), orthonormal columns
    outside: float = 0.0  # the squared norm of what the bases leave out

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
        return Core(resized(self.layout, sizes), values, bases, self.outside)

    def lowered(self, network: Network, factors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Turn factors over the stack into factors over the core."""
        small = dict(factors)
        for factor in network.factors:
            for axis in (i for i, label in enumerate(factor.labels) if label in self.bases):
                basis = self.bases[factor.labels[axis]]
                small[factor.name] = np.moveaxis(np.tensordot(basis.T, small[factor.name], (1, axis)), 0, axis)
        return small

    def lifted(self, network: Network, factors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Turn factors over the core into factors over the stack."""
        whole = dict(factors)
        for factor in network.factors:
            for axis in (i for i, label in enumerate(factor.labels) if label in self.bases):
                basis = self.bases[factor.labels[axis]]
                whole[factor.name] = np.moveaxis(np.tensordot(basis, whole[factor.name], (1, axis)), 0, axis)
        return whole


def core_of(group: Group, updates: Updates) -> Core:
    """Return the core of a group's updates; the dense stack itself where no side can be cut.

    Raises TensorAdaptError where the core of several adapters would be too large.
    """
    layout = group.network.layout
    most = _most(group.network, len(updates))
    bases = {}
    for side, across in ((layout.rows, False), (layout.cols, True)):
        if can_be_cut(group.network, side):
            mode, halves = side[0], (_side(group, own, across) for own in updates.values())
            if (basis := _basis(mode.size, halves, most.get(mode.name))) is not None:
                bases[mode.name] = basis
    return within(group, updates, bases, exact=all(q.shape[1] != most.get(mode) for mode, q in bases.items()))


def within(group: Group, updates: Updates, bases: Mapping[str, np.ndarray], exact: bool = False) -> Core:
    """Return the core of a group's updates within given bases; ``exact``: nothing of them is outside."""
    layout = group.network.layout
    u, v = (bases.get(modes[0].name) for modes in (layout.rows, layout.cols))
    small = resized(layout, {mode: q.shape[1] for mode, q in bases.items()})
    values, squared = np.zeros(small.shape), 0.0
    for number, own in enumerate(updates.values()):
        for member in group.members:
            update = own[member.site.name]
            at = {**member.at, TASK: number}
            position = tuple(at[mode.name] for mode in layout.index)  # no ranges there
            projected = _projected(update.T if member.transposed else update, u, v)
            values[position] = projected.reshape(small.shape[len(layout.index) :])
            squared += norm_of(update) ** 2
    outside = 0.0 if exact else max(0.0, squared - float(np.linalg.norm(values)) ** 2)
    return Core(small, values, bases, outside)


def _most(network: Network, n: int) -> Mapping[str, int]:
    """Return how many directions of a mode the core of n adapters keeps; nothing for one, of which all are kept.

    They are twice as many as the factor's bonds ask for, and some more, or as many as there is memory for.
    """
    if n < 2:
        return {}
    layout, bonds = network.layout, network.bonds
    cut = [side[0] for side in (layout.rows, layout.cols) if can_be_cut(network, side)]
    held = {mode.name: next(f for f in network.factors if mode.name in f.labels) for mode in cut}
    widest = {mode: max((bonds[x] for x in f.labels if x in bonds), default=0) for mode, f in held.items()}
    wanted = {mode.name: min(mode.size, 2 * (widest[mode.name] or mode.size) + 16) for mode in cut}
    entries = math.prod(wanted.get(mode.name, mode.size) for mode in layout.modes)
    if (room := LIBRARY / 8 / entries) < 1:
        wanted = {mode: int(k * room ** (1 / len(cut))) for mode, k in wanted.items()}
        if not all(wanted.values()) or not wanted:
            raise TensorAdaptError(
                f"the stack of {n} adapters over layout {str(layout)!r} has {8 * entries / 2**30:.3g} GiB, and "
                f"{LIBRARY / 2**30:.3g} GiB are used at most; give whole outputs and inputs, as in "
                "'task layer proj : out : in', or fewer adapters at a time"
            )
    return wanted


def _side(group: Group, updates: Mapping[str, Update], across: bool = False) -> np.ndarray:  # (n, R)
    """Return columns that span those of an adapter's matrices in a group, or their rows: ``_half`` side by side."""
    turned = (updates[m.site.name].T if m.transposed != across else updates[m.site.name] for m in group.members)
    return np.concatenate([_half(update) for update in turned], axis=1)


def _basis(width: int, halves: Iterable[np.ndarray], most: int | None) -> np.ndarray | None:
    """Return the leading left singular vectors of all halves side by side, or None where the side is kept whole.

    The halves of one adapter, (width, R), are in memory at a time, beside a triangular factor.
    """
    seen, triangle = 0, np.asarray(np.zeros((0, width)))
    for half in halves:
        seen += half.shape[1]
        if seen >= width and (most is None or most >= width):
            return None
        triangle = np.asarray(np.linalg.qr(np.concatenate([triangle, half.T]), mode="r"))
    u, s, _ = np.linalg.svd(triangle.T, full_matrices=False)
    rank = int(np.count_nonzero(s > s[0] * np.finfo(float).eps * max(width, seen)))
    return u[:, : max(min(rank, most or rank), 1)]


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


def resized(layout: Layout, sizes: Mapping[str, int]) -> Layout:
    """Return a layout with other sizes for some of its modes."""

    def of(modes: tuple[Mode, ...]) -> tuple[Mode, ...]:
        return tuple(replace(mode, size=sizes.get(mode.name, mode.size)) for mode in modes)

    return Layout(of(layout.index), of(layout.rows), of(layout.cols))
