"""Networks whose bonds join two factors each without a cycle: Tucker, tensor-trains, LoRA."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from tensoradapt.networks.network import Factor, Network


@lru_cache(maxsize=4096)
def is_tree(network: Network) -> bool:
    """Say whether every bond joins two factors without a cycle, and the factors of each mode are neighbours."""
    pairs = [ends(network, bond) for bond in network.bonds]
    if any(len(pair) != 2 for pair in pairs) or len(pairs) != len(network.factors) - 1:
        return False
    reached = {network.factors[0]}
    for _ in pairs:
        reached |= {factor for pair in pairs if reached & set(pair) for factor in pair}
    holders = {mode: sum(mode in factor.labels for factor in network.factors) for mode in network.layout.names}
    joined = {mode: sum(all(mode in f.labels for f in pair) for pair in pairs) for mode in holders}
    return len(reached) == len(network.factors) and all(joined[mode] == n - 1 for mode, n in holders.items())


@lru_cache(maxsize=4096)
def bonds_to_zero(network: Network) -> Mapping[Factor, tuple[str, Factor]]:
    """Return for each factor of a tree its bond on the way to the factor that starts at zero, and the next factor.

    The order is by distance. The zero factor has none.
    """
    reached, found = [network.zero], dict[Factor, tuple[str, Factor]]()
    for parent in reached:  # grows on the way
        for bond in (label for label in parent.labels if label in network.bonds):
            for factor in (f for f in network.factors if bond in f.labels and f not in reached):
                found[factor] = bond, parent
                reached.append(factor)
    return found


def ends(network: Network, bond: str) -> tuple[Factor, ...]:
    """Return the factors that hold a bond."""
    return tuple(factor for factor in network.factors if bond in factor.labels)
