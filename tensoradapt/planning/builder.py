"""Builder: a parameterization with its options, which builds the network of a layout and a rank. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from reprlib import repr as short
from typing import Any

from tensoradapt.checks import is_whole
from tensoradapt.errors import TensorAdaptError
from tensoradapt.networks.layout import Layout
from tensoradapt.networks.network import Network
from tensoradapt.parameterizations import name_of
from tensoradapt.text import Rank


def free_bonds(network: Network) -> set[str]:
    """Return the names of the bonds that a rank can name: all but the derived ones, without ``r_``."""
    return {bond.removeprefix("r_") for bond in network.bonds if bond not in network.derived}


@dataclass(frozen=True)
class Builder:
    """A parameterization with its options. ``clip``: an int rank is an upper bound that each network may fall below."""

    parameterization: Any
    options: Mapping[str, Any] = field(default_factory=dict)
    clip: bool = True

    def build(self, layout: Layout, rank: Rank) -> Network:
        """Build the network over a layout; raise TensorAdaptError where ``build`` returns anything else."""
        try:
            network = self.parameterization.build(layout, rank, **self.options)
        except TensorAdaptError:
            raise
        except Exception as error:
            name, why = name_of(self.parameterization), f"{type(error).__name__}: {str(error)[:200]}"
            what = f"rank {short(rank)} does not fit parameterization {name!r}"
            if self.options:
                what = f"options {short(sorted(self.options))} do not fit parameterization {name!r}"
            raise TensorAdaptError(f"{what} over {str(layout)!r} {layout.shape}: {why}") from error
        if isinstance(network, Network) and network.layout == layout:
            if odd := [bond for bond, n in network.bonds.items() if not is_whole(n)]:
                raise TensorAdaptError(
                    f"rank {short(rank)} does not fit parameterization {name_of(self.parameterization)!r}, in which "
                    f"bond {odd[0]!r} would be {short(network.bonds[odd[0]])}; expected one whole number"
                )
            return network
        result = f"{type(network).__name__} {short(network)}"
        if isinstance(network, Network):
            result = f"a network over {str(network.layout)!r} {network.layout.shape}"
        raise TensorAdaptError(
            f"build of parameterization {name_of(self.parameterization)!r} returned {result}; expected a Network over "
            f"{str(layout)!r} {layout.shape}. Let it end in return Network(layout, factors, bonds), with the layout "
            "that it is given"
        )

    def network(self, layout: Layout, rank: Rank | None) -> Network:
        """Build the network of a rank in any form that ``plan`` takes; None is for parameterizations without a rank."""
        if rank is None:
            return self.build(layout, 1)
        if isinstance(rank, Mapping):
            keys = free_bonds(self.build(layout, 1))
            return self._explicit(layout, {k: v for k, v in rank.items() if k in keys})
        return self.clipped(layout, rank) if self.clip else self.build(layout, rank)

    def clipped(self, layout: Layout, rank: Rank) -> Network:
        """Build the network of a rank as an upper bound: no bond is larger than its factors can carry."""
        if not isinstance(rank, Mapping):
            rank = min(rank, self.largest(layout, rank))
        network = self.build(layout, rank)
        return self.build(layout, network.clipped().rank) if network.bonds else network

    def largest(self, layout: Layout, otherwise: int) -> int:
        """Return the largest useful rank where the parameterization names one, else ``otherwise``."""
        named = hasattr(self.parameterization, "largest")
        return self.parameterization.largest(layout) if named else otherwise

    def wider(self, network: Network, bond: str) -> Network:
        """Build a network with one bond raised by 1; return the old one where its factors cannot carry that."""
        bonds = {name: n for name, n in network.bonds.items() if name not in network.derived}
        wider = self.build(network.layout, {name.removeprefix("r_"): n + (name == bond) for name, n in bonds.items()})
        return wider if dict(wider.clipped().bonds) == dict(wider.bonds) else network

    def _explicit(self, layout: Layout, rank: Mapping[str, int]) -> Network:
        network = self.build(layout, rank["r"] if set(rank) == {"r"} else rank)
        for bond, size in network.clipped().bonds.items():
            if self.clip and size < network.bonds[bond]:
                raise TensorAdaptError(
                    f"rank {network.bonds[bond]} of {bond.removeprefix('r_')!r} is above the {size} that its mode or "
                    f"the other ranks can carry in layout {str(layout)!r} {layout.shape}; give {size} or less, or one "
                    "whole number to have it clipped"
                )
        return network
