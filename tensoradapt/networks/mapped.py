"""Map: all trained factors of an adapter are a fixed function of fewer trained numbers. Its kinds and counts; no torch.

A map changes no network, so every parameterization takes it. ``adapter/factor_map`` computes the factors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tensoradapt import checks
from tensoradapt.errors import BudgetError, TensorAdaptError
from tensoradapt.networks.network import Network

UNILORA, NOLA = "unilora", "nola"
KINDS = (UNILORA, NOLA)
RANK = 8  # where a budget is given and no rank: the count is that of the map at every rank
Map = Mapping[str, int]  # the kind, and how many numbers: of the adapter (unilora) or of each factor (nola)


def checked(given: Any, where: str) -> str | dict[str, int]:
    """Return a kind whose size a budget decides, or a kind and its size; raise TensorAdaptError for anything else.

    >>> checked({"unilora": 256}, "map"), checked("nola", "map")
    ({'unilora': 256}, 'nola')
    """
    if not isinstance(given, Mapping):
        return checks.one_of(KINDS, given, where)
    if len(given) != 1:
        raise TensorAdaptError(f'{where} names {len(given)} kinds; expected one and its size, as in {{"unilora": 256}}')
    [(kind, n)] = given.items()
    return {checks.one_of(KINDS, kind, where): checks.whole(n, f"{where} of {kind!r}")}


def entries(network: Network) -> dict[str, int]:
    """Return how many entries each trained factor of a network has."""
    return {factor.name: math.prod(network.shape(factor)) for factor in network.factors if factor.trainable}


def lengths(map: Map, networks: Sequence[Network]) -> dict[str, int]:
    """Return the vectors of trained numbers by name: "theta", or one for each tensor's number and factor.

    A factor with fewer entries than a map asks numbers for has one for each entry.

    >>> import tensoradapt as ta
    >>> network = ta.plan("tiny-random-bert", "lora", rank=2).groups[0].network
    >>> lengths({"nola": 5}, [network, network]), lengths({"unilora": 5}, [network, network])
    ({'0_A': 5, '0_B': 5, '1_A': 5, '1_B': 5}, {'theta': 5})
    """
    [(kind, n)] = map.items()
    if kind == UNILORA:
        return {"theta": n}
    return {f"{i}_{name}": min(n, m) for i, network in enumerate(networks) for name, m in entries(network).items()}


def count(map: Map, networks: Sequence[Network]) -> int:
    """Return how many numbers are trained."""
    return sum(lengths(map, networks).values())


def most(kind: str, networks: Sequence[Network]) -> int:
    """Return the largest size of a kind of map: all trained entries, or those of the largest factor."""
    every = [m for network in networks for m in entries(network).values()]
    return sum(every) if kind == UNILORA else max(every)


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
        whose = "the trained factors have" if kind == UNILORA else "the largest trained factor has"
        raise TensorAdaptError(
            f"map {kind!r} is {n:,}, and {whose} only {limit:,} entries; expected at most {limit:,}, or leave map= out"
        )


def refuse_starts(map: str | Map, networks: Sequence[Network], start: str) -> None:
    """Raise TensorAdaptError for factors that a map cannot make: those that start from weights, or train at own rates.

    They are drawn from the seed, so that no file holds them.
    """
    trained = [factor for network in networks for factor in network.factors if factor.trainable]
    based = [factor.name for factor in trained if factor.source == "base"]
    if based or start == "gradient":
        what = f"factor {based[0]!r} starts from the base weights" if based else "the start is from gradients"
        raise TensorAdaptError(
            f"map was given and {what}, which no map makes; leave map= out, or choose start='zero' of a method whose "
            "trained factors are drawn"
        )
    if UNILORA in map and (own := [factor.name for factor in trained if factor.rate != 1]):
        raise TensorAdaptError(
            f"factor {own[0]!r} has a learning rate of its own, and map 'unilora' makes all factors of one vector; "
            "leave the rates out, or choose map='nola', whose factors have numbers of their own"
        )
