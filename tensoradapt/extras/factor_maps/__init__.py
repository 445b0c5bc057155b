"""Factor maps: Uni-LoRA and NOLA, whose trained numbers make all trained factors. ``factors`` computes them."""

from __future__ import annotations

from collections.abc import Sequence

from tensoradapt.networks.mapped import Kind, entries
from tensoradapt.networks.network import Network
from tensoradapt.published.row import Published

LAYOUT = ((": out : in", ("q", "v")),)


def theta(n: int, networks: Sequence[Network]) -> dict[str, int]:
    """Return the one vector that all factors are made of.

    >>> theta(5, [])
    {'theta': 5}
    """
    return {"theta": n}


def coefficients(n: int, networks: Sequence[Network]) -> dict[str, int]:
    """Return a vector for each tensor's number and factor; one with fewer than n entries has as many numbers.

    >>> import tensoradapt as ta
    >>> coefficients(5, [ta.plan("tiny-random-bert", "lora", rank=2).groups[0].network])
    {'0_A': 5, '0_B': 5}
    """
    return {f"{i}_{name}": min(n, m) for i, network in enumerate(networks) for name, m in entries(network).items()}


def _every(networks: Sequence[Network]) -> list[int]:
    return [n for network in networks for n in entries(network).values()]


MAPS = {
    "unilora": Kind(theta, lambda networks: sum(_every(networks)), "the trained factors have", one_vector=True),
    "nola": Kind(coefficients, lambda networks: max(_every(networks)), "the largest trained factor has"),
}
FACTORS = dict.fromkeys(MAPS, "factors.FactorMap")
ROWS = {
    "unilora": Published(
        "UniLoRA",
        LAYOUT,
        "lora",
        "Li et al., arXiv 2506.00799; as in PEFT",
        "min(256, M*L*r*(o + i))",
        start="paper",
        power=0,
        map={"unilora": 256},
        note="theta starts uniform within 0.02, so the update does not start at zero",
    ),
    "nola": Published(
        "NOLA",
        LAYOUT,
        "lora",
        "Koohpayegani et al., arXiv 2310.02556; the released code",
        "M*L*(min(512, r*o) + min(512, r*i))",
        map={"nola": 512},
        note="all matrices have the same bases, where the released code draws them for each",
    ),
}
