"""Map: all trained factors of an adapter are a fixed function of fewer trained numbers. Its kinds and counts; no torch.

A map changes no network, so every parameterization takes it. Kinds of maps are extras, which compute the factors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tensoradapt import checks, doors
from tensoradapt.errors import BudgetError, TensorAdaptError
from tensoradapt.networks.network import Network

RANK = 8  # where a budget is given and no rank: the count is that of the map at every rank
Map = Mapping[str, int]  # the kind, and how many numbers: of the adapter or of each factor, as the kind has them


@dataclass(frozen=True)
class Kind:
    """A kind of map, from numbers to the trained factors of some networks.

    Attributes:
        lengths: the vectors of trained numbers by name, of a map of n.
        most: the largest n.
        limit: whose entries ``most`` counts, in words.
        one_vector: whether all factors are made of the same numbers.
    """

    lengths: Callable[[int, Sequence[Network]], dict[str, int]]
    most: Callable[[Sequence[Network]], int]
    limit: str
    one_vector: bool = False


def kind_of(map: str | Map) -> Kind:
    """Return the kind of a map; raise TensorAdaptError where its room is missing."""
    found: Kind = doors.get("maps", map if isinstance(map, str) else next(iter(map)))
    return found


def checked(given: Any, where: str) -> str | dict[str, int]:
    """Return a kind whose size a budget decides, or a kind and its size; raise TensorAdaptError for anything else."""
    if not isinstance(given, Mapping):
        return checks.one_entering("maps", (), given, where)
    if len(given) != 1:
        raise TensorAdaptError(f'{where} names {len(given)} kinds; expected one and its size, as in {{"unilora": 256}}')
    [(kind, n)] = given.items()
    return {checks.one_entering("maps", (), kind, where): checks.whole(n, f"{where} of {kind!r}")}


def entries(network: Network) -> dict[str, int]:
    """Return how many entries each trained factor of a network has."""
    return {factor.name: math.prod(network.shape(factor)) for factor in network.factors if factor.trainable}


def lengths(map: Map, networks: Sequence[Network]) -> dict[str, int]:
    """Return the vectors of trained numbers by name."""
    return kind_of(map).lengths(next(iter(map.values())), networks)


def count(map: Map, networks: Sequence[Network]) -> int:
    """Return how many numbers are trained."""
    return sum(lengths(map, networks).values())


def most(kind: str, networks: Sequence[Network]) -> int:
    """Return the largest size of a kind of map."""
    return kind_of(kind).most(networks)


def within(kind: str, networks: Sequence[Network], budget: int) -> Map:
    """Return the largest map of a kind with at most ``budget`` numbers; raise BudgetError where none has so few."""
    if (least := count({kind: 1}, networks)) > budget:
        raise BudgetError(f"budget {budget:,} is below the smallest possible: map {kind!r} of 1 takes {least:,}")
    low, high = 1, most(kind, networks) + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count({kind: middle}, networks) <= budget else (low, middle)
    return {kind: low}


def sized(asked: str | Map, default: Map, networks: Sequence[Network], budget: int | None) -> Map:
    """Return a map with its size: as it was asked for, else as ``budget`` allows, else a method's own up to ``most``.

    Raises TensorAdaptError for a size above ``most``, a kind alone without a budget, and a size above the budget.
    """
    if isinstance(asked, Mapping):
        check_size(asked, networks)
        if budget is not None and (n := count(asked, networks)) > budget:
            raise BudgetError(f"map {dict(asked)} takes {n:,} numbers, above the budget of {budget:,}; lower its size")
        return asked
    if budget is not None:
        return within(asked, networks, budget)
    if asked not in default:
        raise TensorAdaptError(f'map is {asked!r} and no size was given; expected {{"{asked}": 256}}, or budget=')
    return {asked: min(default[asked], most(asked, networks))}


def check_size(map: Map, networks: Sequence[Network]) -> None:
    """Raise TensorAdaptError for more numbers than there are entries to make of them."""
    [(kind, n)] = map.items()
    if n > (limit := most(kind, networks)):
        raise TensorAdaptError(
            f"map {kind!r} is {n:,}, and {kind_of(kind).limit} only {limit:,} entries; expected at most {limit:,}, or "
            "leave map= out"
        )


def refuse_starts(map: str | Map, networks: Sequence[Network], start: str) -> None:
    """Raise TensorAdaptError for factors that a map cannot make: those that start from weights, or train at own rates.

    They are drawn from the seed, so that no file holds them.
    """
    kind = map if isinstance(map, str) else next(iter(map))
    trained = [factor for network in networks for factor in network.factors if factor.trainable]
    based = [factor.name for factor in trained if factor.source == "base"]
    if based or start == "gradient":
        what = f"factor {based[0]!r} starts from the base weights" if based else "the start is from gradients"
        raise TensorAdaptError(
            f"map was given and {what}, which no map makes; leave map= out, or choose start='zero' of a method whose "
            "trained factors are drawn"
        )
    if kind_of(map).one_vector and (own := [factor.name for factor in trained if factor.rate != 1]):
        raise TensorAdaptError(
            f"factor {own[0]!r} has a learning rate of its own, and map {kind!r} makes all factors of one vector; "
            "leave the rates out, or choose a map whose factors have numbers of their own"
        )
