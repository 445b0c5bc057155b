"""Ranks: which networks a rank, a budget of parameters or ranks by site name give over the layouts of a plan."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext

from tensoradapt.checks import check_rank, is_whole
from tensoradapt.errors import BudgetError, TensorAdaptError, did_you_mean, located
from tensoradapt.networks.layout import Layout
from tensoradapt.networks.modes import LETTERS
from tensoradapt.networks.network import Network
from tensoradapt.planning.builder import Builder, free_bonds
from tensoradapt.planning.grouping import Tied
from tensoradapt.sites.site import matches
from tensoradapt.text import Rank


def networks(
    builder: Builder, layouts: Mapping[Layout, int], rank: Rank | None, sites: Mapping[Layout, str] | None = None
) -> dict[Layout, Network]:
    """Build a network for each layout. ``sites``: the site of each layout that an error names."""
    if isinstance(rank, Mapping):
        rank = _by_mode(rank, {name for layout in layouts for name in free_bonds(builder.build(layout, 1))})
    nets = {}
    for layout in layouts:
        with located(f"site {sites[layout]}") if sites else nullcontext():
            nets[layout] = builder.network(layout, rank)
    if rank is None and any(free_bonds(net) for net in nets.values()):
        raise TensorAdaptError("rank=None and budget=None were given; expected exactly one of them")
    return nets


def _by_mode(rank: Mapping[str, int], names: Collection[str]) -> dict[str, int]:
    """Return ranks under the names of a network's bonds; a rank may name its mode by a paper's letter for it."""
    meant = {name: name if name in names else LETTERS.get(name, name) for name in rank}
    if unknown := sorted(name for name, mode in meant.items() if mode not in names):
        raise TensorAdaptError(
            f"rank names {unknown[0]!r}, which no tensor has{did_you_mean(unknown[0], sorted(names))}"
        )
    if len(set(meant.values())) < len(meant):
        raise TensorAdaptError(f"rank names one mode twice: {', '.join(f'{k} is {v}' for k, v in meant.items())}")
    return {meant[name]: n for name, n in rank.items()}


def within_budget(
    builder: Builder,
    layouts: Mapping[Layout, int],  # how many tensors each has
    budget: int,
    sites: Mapping[Layout, str] | None = None,
    n_extra: int = 0,  # parameters that no rank changes: biases, DoRA's magnitudes
) -> dict[Layout, Network]:
    """Build the largest networks at or under ``budget`` parameters, those ``n_extra`` included.

    The largest rank for all that fits; then the bonds of networks with several are raised in turn while they fit.
    """
    if not is_whole(budget):
        raise TensorAdaptError(f"budget is {budget!r}; expected a whole number of parameters, 1 or more")

    def at(rank: int) -> dict[Layout, Network]:
        defined = rank if builder.clip else min(builder.largest(layout, rank) for layout in layouts)
        return networks(builder, layouts, min(rank, defined), sites)

    def count(rank: int) -> int:
        return total(at(rank), layouts) + n_extra

    top = max(builder.largest(layout, 1) for layout in layouts)
    smallest = min((1, top), key=count)
    if (least := count(smallest)) > budget:
        raise BudgetError(
            f"budget {budget:,} is below the smallest possible: rank {smallest} takes {least:,} parameters"
        )
    best = _largest(count, budget) if smallest == 1 else _best(count, budget, top)
    return _raise_bonds(builder, at(best), layouts, budget - n_extra)


def total(nets: Mapping[Layout, Network], layouts: Mapping[Layout, int]) -> int:
    """Count the parameters of all tensors; ``layouts`` says how many tensors each layout has."""
    return sum(nets[layout].n_params * n for layout, n in layouts.items())


def _largest(count: Callable[[int], int], budget: int) -> int:
    """Return the largest rank within a budget; the search stops where a larger rank changes nothing."""
    low, high = 1, 2
    while count(high) <= budget and count(high) > count(low):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count(middle) <= budget else (low, middle)
    return low


def _best(count: Callable[[int], int], budget: int, top: int) -> int:
    """Return the rank with the most parameters within budget, where a higher rank may have fewer of them."""
    counts = {rank: count(rank) for rank in range(1, top + 1)}
    return max((rank for rank, n in counts.items() if n <= budget), key=lambda rank: counts[rank])


def _raise_bonds(
    builder: Builder, nets: dict[Layout, Network], layouts: Mapping[Layout, int], budget: int
) -> dict[Layout, Network]:
    open_bonds = [
        (layout, bond) for layout in layouts for bond in nets[layout].bonds if bond not in ("r", *nets[layout].derived)
    ]
    while open_bonds:
        layout, bond = open_bonds.pop(0)
        wider = {**nets, layout: builder.wider(nets[layout], bond)}
        if total(nets, layouts) < total(wider, layouts) <= budget:
            nets = wider
            open_bonds.append((layout, bond))
    return nets


def with_rank_pattern(
    builder: Builder, tensors: Sequence[Tied], nets: Mapping[Layout, Network], patterns: Mapping[str, Rank]
) -> list[Network]:
    """Return the network of each tensor: its layout's, or one with the rank of the pattern that all its sites match.

    Raises TensorAdaptError for a pattern that matches no site, or only some of a tensor's, and for two patterns with
    different ranks.
    """
    for pattern, rank in patterns.items():
        check_rank(rank, f"rank_pattern of {pattern!r}")
        names = [member.site.name for _, members in tensors for member in members]
        if not any(matches(name, pattern) for name in names):
            raise TensorAdaptError(f"rank_pattern {pattern!r} matches no site{did_you_mean(pattern, names[:12])}")
    chosen = []
    for tied in tensors:
        layout, own_rank = tied[0], _rank(tied, patterns)
        chosen.append(nets[layout] if own_rank is None else networks(builder, {layout: 1}, own_rank)[layout])
    return chosen


def _rank(tied: Tied, patterns: Mapping[str, Rank]) -> Rank | None:
    matching = [pattern for pattern in patterns if _matches(tied, pattern)]
    if len({str(patterns[pattern]) for pattern in matching}) > 1:
        raise TensorAdaptError(
            f"rank_pattern {' and '.join(map(repr, matching))} both match {tied[1][0].site.name}, with "
            "different ranks; give each tensor one"
        )
    return patterns[matching[0]] if matching else None


def _matches(tied: Tied, pattern: str) -> bool:
    """Return whether a pattern matches all sites of a tensor; raise TensorAdaptError where it matches some."""
    layout, members = tied
    names = [member.site.name for member in members]
    hit = [name for name in names if matches(name, pattern)]
    if hit and len(hit) < len(names):
        other = next(name for name in names if name not in hit)
        raise TensorAdaptError(
            f"rank_pattern {pattern!r} matches {hit[0]} and not {other}, which share a tensor over "
            f"{str(layout)!r}, and a tensor has one rank. Match all {len(names)} of its sites, or leave the "
            "coordinate that tells them apart out of the layout, so that each has a tensor of its own"
        )
    return bool(hit)
