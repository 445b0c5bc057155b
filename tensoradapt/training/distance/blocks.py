"""The parts of a tensor that an adapter's sites read: which entries of its modes, and how often each counts."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tensoradapt.networks.modes import RUNTIME
from tensoradapt.networks.network import Network
from tensoradapt.planning.plan import Group, Member, Plan

Ranges = tuple[tuple[str, int], ...]  # a mode and how many of its first entries


@dataclass(frozen=True)
class Block:
    """The slices of a tensor that its sites read: ranges of modes, and the squared multiplier at each index position.

    ``mask`` has the multipliers; it is None where all are ``weight``.
    """

    ranges: Ranges
    weight: float
    mask: tuple[float, ...] | None = None


def squares_of(plan: Plan, group: Group) -> list[float]:
    """Return the squared multiplier of each member of a group, beside the tensor's scale."""
    return [plan.multiplier(group.network, member.site) ** 2 for member in group.members]


def ranges_of(member: Member) -> Ranges:
    """Return the modes of which a member reads the first entries only."""
    return tuple((name, len(value)) for name, value in member.at.items() if isinstance(value, range))


def index_modes(network: Network) -> tuple[str, ...]:
    """Return the index modes that tell sites apart, without those that a batch chooses."""
    return tuple(mode.name for mode in network.layout.index if mode.name not in RUNTIME)


def blocks_of(network: Network, members: Sequence[Member], squares: Sequence[float]) -> list[Block]:
    """Return the blocks of a tensor; ``squares`` are the squared multipliers of its members."""
    index = [mode for mode in network.layout.index if mode.name not in RUNTIME]
    grids: dict[Ranges, dict[tuple[Any, ...], float]] = {}
    for member, square in zip(members, squares, strict=True):
        grid = grids.setdefault(ranges_of(member), {})
        at = tuple(member.at[mode.name] for mode in index)
        grid[at] = grid.get(at, 0.0) + square
    blocks = []
    for ranges, grid in grids.items():
        values = tuple(grid.get(at, 0.0) for at in itertools.product(*(range(mode.size) for mode in index)))
        blocks.append(Block(ranges, values[0]) if len(set(values)) == 1 else Block(ranges, 1.0, values))
    return blocks
