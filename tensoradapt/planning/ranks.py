"""Ranks: what a rank or a budget of parameters means for a family over the layouts of a plan."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from reprlib import repr as shown
from typing import Any

from tensoradapt.checks import is_whole
from tensoradapt.errors import BudgetError, TensorAdaptError, did_you_mean, located
from tensoradapt.networks.layout import Layout
from tensoradapt.networks.network import Network
from tensoradapt.parameterizations import name_of
from tensoradapt.text import Rank


def resolved(network: Network) -> Rank:
    """The rank a network was built with: an int for one bond ``r``, else bonds by name without ``r_``.

    It is what the parameterization's ``count`` takes. Derived bonds are left out.
    """
    bonds = {name: n for name, n in network.bonds.items() if name not in network.derived}
    return bonds["r"] if set(bonds) == {"r"} else {name.removeprefix("r_"): n for name, n in bonds.items()}


def built(family: Any, layout: Layout, rank: Rank, options: Mapping[str, Any]) -> Network:
    """The family's network over a layout; TensorAdaptError where its ``build`` returns anything else."""
    made = family.build(layout, rank, **options)
    if isinstance(made, Network) and made.layout == layout:
        return made
    found = f"{type(made).__name__} {shown(made)}"
    if isinstance(made, Network):
        found = f"a network over {str(made.layout)!r} {made.layout.shape}"
    raise TensorAdaptError(
        f"build of parameterization {name_of(family)!r} returned {found}; expected a Network over {str(layout)!r} "
        f"{layout.shape}. Let it end in return Network(layout, factors, bonds), with the layout that it is given"
    )


def networks(
    family: Any,
    layouts: Mapping[Layout, int],
    rank: Rank | None,
    options: Mapping[str, Any],
    clip: bool,
    sites: Mapping[Layout, str] | None = None,
) -> dict[Layout, Network]:
    """A network for each layout: an int rank is an upper bound where ``clip``, a mapping is taken as it is; None is
    for families without one. ``sites``: of each layout the site that a refusal names.
    """
    nets = {}
    for layout in layouts:
        with located(f"site {sites[layout]}") if sites else nullcontext():
            nets[layout] = _network(family, layout, rank, options, clip)
    names = {name for net in nets.values() for name in _keys(net)}
    if rank is None and names:
        raise TensorAdaptError("rank=None and budget=None were given; expected exactly one of them")
    if isinstance(rank, Mapping) and (unknown := sorted(set(rank) - names)):
        raise TensorAdaptError(
            f"rank names {unknown[0]!r}, which no tensor has{did_you_mean(unknown[0], sorted(names))}"
        )
    return nets


def _network(family: Any, layout: Layout, rank: Rank | None, options: Mapping[str, Any], clip: bool) -> Network:
    if rank is None:
        return built(family, layout, 1, options)
    if isinstance(rank, Mapping):
        keys = _keys(built(family, layout, 1, options))
        return _explicit(family, layout, {k: v for k, v in rank.items() if k in keys}, options)
    return clipped(family, layout, rank, options) if clip else built(family, layout, rank, options)


def within_budget(
    family: Any,
    layouts: Mapping[Layout, int],
    budget: int,
    options: Mapping[str, Any],
    clip: bool,
    sites: Mapping[Layout, str] | None = None,
    n_extra: int = 0,  # parameters that no rank changes: biases, DoRA's magnitudes
) -> dict[Layout, Network]:
    """The largest networks at or under ``budget`` parameters, those ``n_extra`` included.

    The largest rank for all that fits, then each bond of the families that have several is raised in turn while it
    fits.
    """
    if not is_whole(budget):
        raise TensorAdaptError(f"budget is {budget!r}; expected a whole number of parameters, 1 or more")

    def at(rank: int) -> dict[Layout, Network]:
        defined = rank if clip else min(_most(family, layout, rank) for layout in layouts)
        return networks(family, layouts, min(rank, defined), options, clip, sites)

    def count(rank: int) -> int:
        return total(at(rank), layouts) + n_extra

    top = max(_most(family, layout, 1) for layout in layouts)
    smallest = min((1, top), key=count)
    if (least := count(smallest)) > budget:
        raise BudgetError(
            f"budget {budget:,} is below the smallest possible: rank {smallest} takes {least:,} parameters"
        )
    best = _largest(count, budget) if smallest == 1 else _best(count, budget, top)
    return _raise_bonds(family, at(best), layouts, budget - n_extra, options)


def total(nets: Mapping[Layout, Network], layouts: Mapping[Layout, int]) -> int:
    """Parameters of all tensors; ``layouts`` says how many tensors each layout has."""
    return sum(nets[layout].n_params * n for layout, n in layouts.items())


def clipped(family: Any, layout: Layout, rank: Rank, options: Mapping[str, Any]) -> Network:
    """The network of a rank as an upper bound: no bond is larger than what its factors carry."""
    if not isinstance(rank, Mapping):
        rank = min(rank, _most(family, layout, rank))
    return built(family, layout, resolved(built(family, layout, rank, options).clipped()), options)


def _most(family: Any, layout: Layout, otherwise: int) -> int:
    """The largest rank that is of use, where the family names one."""
    return family.largest(layout) if hasattr(family, "largest") else otherwise


def _explicit(family: Any, layout: Layout, rank: Mapping[str, int], options: Mapping[str, Any]) -> Network:
    net = built(family, layout, rank["r"] if set(rank) == {"r"} else rank, options)
    for bond, size in net.clipped().bonds.items():
        if size < net.bonds[bond]:
            raise TensorAdaptError(
                f"rank {net.bonds[bond]} of {bond.removeprefix('r_')!r} is above the {size} that its mode or the "
                f"other ranks "
                f"can carry in layout {str(layout)!r} {layout.shape}; give {size} or less, or one whole number to "
                f"have it clipped"
            )
    return net


def _keys(network: Network) -> set[str]:
    return {bond.removeprefix("r_") for bond in network.bonds if bond not in network.derived}


def _largest(count: Callable[[int], int], budget: int) -> int:
    """The largest rank whose count is within budget; stops where a larger rank changes nothing."""
    low, high = 1, 2
    while count(high) <= budget and count(high) > count(low):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count(middle) <= budget else (low, middle)
    return low


def _best(count: Callable[[int], int], budget: int, top: int) -> int:
    """The rank with the most parameters within budget, where a higher rank may have fewer of them."""
    counts = {rank: count(rank) for rank in range(1, top + 1)}
    return max((rank for rank, n in counts.items() if n <= budget), key=lambda rank: counts[rank])


def _raise_bonds(
    family: Any, nets: dict[Layout, Network], layouts: Mapping[Layout, int], budget: int, options: Mapping[str, Any]
) -> dict[Layout, Network]:
    open_bonds = [
        (layout, bond) for layout in layouts for bond in nets[layout].bonds if bond not in ("r", *nets[layout].derived)
    ]
    while open_bonds:
        layout, bond = open_bonds.pop(0)
        wider = {**nets, layout: _wider(family, nets[layout], bond, options)}
        if total(nets, layouts) < total(wider, layouts) <= budget:
            nets = wider
            open_bonds.append((layout, bond))
    return nets


def _wider(family: Any, net: Network, bond: str, options: Mapping[str, Any]) -> Network:
    own = {name: n for name, n in net.bonds.items() if name not in net.derived}
    rank = {name.removeprefix("r_"): n + (name == bond) for name, n in own.items()}
    wider = built(family, net.layout, rank, options)
    return wider if dict(wider.clipped().bonds) == dict(wider.bonds) else net


def counted(layouts: list[Layout]) -> Counter[Layout]:
    """How many tensors each layout has."""
    return Counter(layouts)
