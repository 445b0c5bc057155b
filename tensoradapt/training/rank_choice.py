"""Choose the smaller bonds of a reduction from a rank, a budget of parameters, or the energy to keep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from tensoradapt.adapter.adapter import Adapter
from tensoradapt.checks import check_rank, is_number, is_whole
from tensoradapt.errors import TensorAdaptError, did_you_mean
from tensoradapt.networks.network import Network
from tensoradapt.text import Rank
from tensoradapt.training import rounding


def smaller_networks(
    adapter: Adapter, values: Sequence[rounding.Values], rank: Rank | None, budget: int | None, energy: float | None
) -> list[Network]:
    """The networks to reduce an adapter's to, by exactly one of ``rank``, ``budget`` and ``energy``."""
    if sum(given is not None for given in (rank, budget, energy)) != 1:
        raise TensorAdaptError(
            f"rank={rank!r}, budget={budget!r} and energy={energy!r} were given; expected exactly one of them"
        )
    networks = [tensor.network for tensor in adapter.factored]
    if rank is not None:
        return to_rank(networks, rank)
    if budget is not None:
        return to_budget(networks, values, budget, adapter.plan.n_biases)
    return to_energy(networks, values, energy, next(adapter.parameters()).dtype)


def to_rank(networks: Sequence[Network], rank: Rank) -> list[Network]:
    """Cap every bond at a rank, or bonds by name."""
    check_rank(rank)
    largest: dict[str, int] = {}
    for name, n in [(_plain(bond), n) for network in networks for bond, n in network.bonds.items()]:
        largest[name] = max(n, largest.get(name, 1))
    asked = rank if isinstance(rank, Mapping) else {max(largest, key=largest.__getitem__): rank}
    for name, n in asked.items():
        if name not in largest:
            raise TensorAdaptError(f"rank names {name!r}, which no tensor has{did_you_mean(name, sorted(largest))}")
        if n > largest[name]:
            raise TensorAdaptError(
                f"rank {n} is above {largest[name]}, the largest {name!r} has; reducing takes {largest[name]} or less"
            )

    def at(bond: str, n: int) -> int:
        return min(n, rank.get(_plain(bond), n) if isinstance(rank, Mapping) else rank)

    return [_with(net, {bond: at(bond, n) for bond, n in net.bonds.items()}) for net in networks]


def to_budget(networks: Sequence[Network], values: Sequence[rounding.Values], budget: int, fixed: int) -> list[Network]:
    """Drop the bond direction with the least share of its tensor's squared norm until the budget is reached."""
    left = fixed + sum(network.n_params for network in networks)
    least = fixed + sum(_with(net, dict.fromkeys(net.bonds, 1)).n_params for net in networks)
    if not is_whole(budget, least, left):
        raise TensorAdaptError(
            f"budget is {budget!r}; expected a whole number of parameters from {least} (rank 1) to the {left} there are"
        )
    drops = [(e, i, bond, k) for i in range(len(networks)) for e, bond, k in _drops(networks[i], values[i], i)]
    smaller = list(networks)
    bonds = [dict(network.bonds) for network in networks]
    for _, i, bond, k in sorted(drops, key=lambda drop: drop[0]):  # stable: of equals in one bond the last goes first
        if left <= budget:
            break
        bonds[i][bond] = k
        new = _with(networks[i], bonds[i])
        left, smaller[i] = left - smaller[i].n_params + new.n_params, new
    return smaller


def to_energy(
    networks: Sequence[Network], values: Sequence[rounding.Values], energy: Any, dtype: torch.dtype
) -> list[Network]:
    """Drop the directions with the least shares of each tensor's squared norm while the energy kept is enough."""
    if not is_number(energy, above=0, most=1):
        raise TensorAdaptError(f"energy is {energy!r}; expected a share above 0 and up to 1, such as 0.99")
    smaller = []
    for i, network in enumerate(networks):
        bonds, left = dict(network.bonds), 1 - energy + (10 * torch.finfo(dtype).eps) ** 2
        for share, bond, k in sorted(_drops(network, values[i], i), key=lambda drop: drop[0]):
            if share > left:
                break
            left, bonds[bond] = left - share, k
        smaller.append(_with(network, bonds))
    return smaller


def _drops(network: Network, values: rounding.Values, i: int) -> list[tuple[float, str, int]]:
    """For each direction but the first of every bond, last first: share of the squared norm, bond, size left."""
    norm = rounding.inner((network, values), (network, values))
    if not norm > 0:
        raise TensorAdaptError(
            f"tensor {i} is zero, so no direction of it counts less than another; train first, or give rank="
        )
    spectra = {bond: (errors / norm).tolist() for bond, errors in rounding.spectra(network, values).items()}
    return [(errors[k], bond, k) for bond, errors in spectra.items() for k in range(len(errors) - 1, 0, -1)]


def _with(network: Network, bonds: Mapping[str, int]) -> Network:
    """The network with these bonds, each clipped to what its neighbours can carry."""
    return replace(network, bonds=bonds).clipped()


def _plain(bond: str) -> str:
    return bond.removeprefix("r_")
