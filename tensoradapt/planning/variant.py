"""Variants: a parameterization with another zero factor, other draws, rates, bases or multiplier than its own.

Published rows are variants, and ``plan(..., rates=...)`` makes one. No torch.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tensoradapt.errors import TensorAdaptError, did_you_mean
from tensoradapt.networks.layout import Layout
from tensoradapt.networks.network import Network, Paper
from tensoradapt.planning.ranks import built


@dataclass(frozen=True)
class Variant:
    """A parameterization whose networks are changed after ``build``; everything else is the parameterization's.

    ``zero``: the factor that starts at zero. ``draws``, ``rates``: by factor name, those a network lacks are passed
    over. ``base``: patterns over the factors that start from the base weights. ``power`` p: the multiplier is
    alpha / rank^p.
    """

    family: Any
    zero: str | None = None
    draws: Mapping[str, Paper] = field(default_factory=dict)
    rates: Mapping[str, float] = field(default_factory=dict)
    base: tuple[str, ...] = ()
    power: float | None = None

    def build(self, layout: Layout, rank: Any, **options: Any) -> Network:
        """The family's network, changed."""
        net = built(self.family, layout, rank, options)
        names = [factor.name for factor in net.factors]

        def own(given: Mapping[str, Any]) -> dict[str, Any]:
            return {name: value for name, value in given.items() if name in names}

        based = {name: "base" for name in names if any(fnmatch.fnmatchcase(name, pattern) for pattern in self.base)}
        net = net.with_factors(self.zero, paper=own(self.draws), rate=own(self.rates), source=based)
        if self.power is None:
            return net
        largest = max((n for name, n in net.bonds.items() if name not in net.derived), default=1)
        return replace(net, divisor=float(largest) ** self.power)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # copying and pickling ask for these before the fields are there
            raise AttributeError(name)
        return getattr(self.family, name)


def check_rates(rates: Mapping[str, float], networks: list[Network]) -> None:
    """Refuses a learning-rate multiplier of a factor that no tensor has, or that is not trained."""
    trained = list(dict.fromkeys(f.name for network in networks for f in network.factors if f.trainable))
    if unknown := [name for name in rates if name not in trained]:
        raise TensorAdaptError(f"rates names {unknown[0]!r}, no trained factor{did_you_mean(unknown[0], trained)}")
