"""Plans of every parameterization over the sites it takes: split where its layouts are, square where it needs that."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import tensoradapt as ta
from tensoradapt.published.registry import find
from tensoradapt.sites.site import Site

PLANNED = tuple(
    name for name in ta.parameterizations.names() if name != "dense"
)  # plan refuses as many as the matrices
FIRST = ("lora", "cp", "tucker", "tensor_train", "vera")  # tried on every model; the others on some
SHOWN = {*FIRST, "hira", "lora-sb", "lorta", "lotr", "metatt-4d", "sharelora-a", "tenslora-att", "unilora"}
METHODS = {*PLANNED, *ta.published.names()}
MANY = 12  # names of methods: a test of so many is one of them all
PARTS = {"quanta": 3}  # two axes are one gate, which is the whole matrix
SPLIT = tuple(  # whose layouts need a split
    name
    for name in ta.parameterizations.names()
    if any("*" in text or "1" in text for text in ta.parameterizations.layouts_of(name))
)
RANKLESS = tuple(name for name in ta.parameterizations.names() if not find(name).ranked)


def few(names: Collection[str]) -> set[str]:
    """What a test that is given these names is run for in the fast tier: all but most methods, if it has most of them.

    >>> few({"loha", "quanta"}) == {"loha", "quanta"}, few(PLANNED) == set(FIRST)
    (True, True)
    """
    methods = METHODS & set(names)
    return set(names) - (methods - SHOWN if len(methods) > MANY else set())


def parts(width: int, n: int) -> tuple[int, ...]:
    """``n`` factors of a width, as near to each other as they can be.

    >>> parts(30, 2), parts(24, 3)
    ((5, 6), (3, 2, 4))
    """
    if n == 1:
        return (width,)
    first = min((k for k in range(1, width + 1) if width % k == 0), key=lambda k: abs(k - width ** (1 / n)))
    return (first, *parts(width // first, n - 1))


def taken(sites: Iterable[Site], parameterization: str) -> tuple[Site, ...]:
    """The sites whose matrices the parameterization takes."""
    square = getattr(ta.parameterizations.get(parameterization), "square", False)
    return tuple(site for site in sites if site.out == site.in_ or not square)


def planned(sites: Iterable[Site], parameterization: str, **changes: Any) -> ta.Plan:
    """The plan over those sites in the parameterization's usual layouts."""
    found = taken(sites, parameterization)
    if parameterization in SPLIT:
        widths = {width for site in found for width in (site.out, site.in_)}
        split = {width: parts(width, PARTS.get(parameterization, 2)) for width in widths}
        if parameterization == "block_circulant":  # the last part is the size of blocks, which is bounded
            split = {width: tuple(sorted(own, reverse=True)) for width, own in split.items()}
        changes = {"split": {"out": split, "in": split}, **changes}
    return ta.plan(found, method=parameterization, **changes)
