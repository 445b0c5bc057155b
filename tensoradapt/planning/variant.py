"""Variant: a parameterization whose networks a published row, or rates of the caller, change after ``build``."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tensoradapt import parameterizations
from tensoradapt.networks.layout import Layout
from tensoradapt.networks.network import Network, Paper
from tensoradapt.networks.starts import taken
from tensoradapt.networks.varied import Frozen, Shared, hows, modes, varied
from tensoradapt.planning.builder import Builder
from tensoradapt.published.row import Published


@dataclass(frozen=True)
class Variant:
    """A parameterization whose networks are changed after ``build``; everything else is the original's."""

    original: Any
    zero: str | None = None  # the factor that starts at zero
    draws: Mapping[str, Paper] = field(default_factory=dict)  # by factor name; those a network lacks are ignored
    rates: Mapping[str, float] = field(default_factory=dict)  # the same
    base: tuple[str, ...] = ()  # patterns of the factors that start from the base weights
    power: float | None = None  # the p of the multiplier alpha / rank^p
    frozen: Mapping[str, str] = field(default_factory=dict)  # how each is frozen; the same
    shared: Shared = field(default_factory=dict)  # the index modes that each leaves out; the same
    start: str = "zero"  # one that reads the model takes the factors that it gives values from the base

    def build(self, layout: Layout, rank: Any, **options: Any) -> Network:
        """Build the parameterization's network and change it as the variant says."""
        network = Builder(self.original, options).build(layout, rank)
        names = [factor.name for factor in network.factors]
        draws, rates = ({k: v for k, v in given.items() if k in names} for given in (self.draws, self.rates))
        based = {name: "base" for name in names if any(fnmatch.fnmatchcase(name, pattern) for pattern in self.base)}
        network = network.with_factors(self.zero, paper=draws, rate=rates, source=based)
        network = network.with_factors(source=dict.fromkeys(taken(network, self.start), "base"))
        network = varied(network, self.frozen, self.shared)
        if self.power is None:
            return network
        largest = max((n for name, n in network.bonds.items() if name not in network.derived), default=1)
        return replace(network, divisor=float(largest) ** self.power)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # copying and pickling ask for these before the fields are there
            raise AttributeError(name)
        return getattr(self.original, name)


def variant_of(
    row: Published,
    rates: Mapping[str, float] | None = None,
    frozen: Frozen | None = None,
    shared: Mapping[str, str | Sequence[str]] | None = None,
    start: str = "zero",
) -> Variant:
    """Return a published row's variant of its parameterization, with these changes of factors besides its own."""
    original = parameterizations.get(row.parameterization)
    own = row.zero, row.draws, {**row.rates, **(rates or {})}, row.base, row.power
    return Variant(original, *own, {**hows(row.frozen), **hows(frozen)}, modes(row.shared, modes(shared)), start)
