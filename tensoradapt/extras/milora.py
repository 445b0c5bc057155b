"""MiLoRA starts at the weight's last singular directions (Wang et al., arXiv 2406.09044)."""

from __future__ import annotations

from tensoradapt.networks.halves import Array, Halves, last, rooted
from tensoradapt.networks.starts import BOTH, Start
from tensoradapt.published.row import started


def halves(weight: Array, _: Array | None, rank: int) -> Halves:
    """Return the last singular directions, the root of their values on both sides."""
    return rooted(*last(weight, rank))


STARTS = {"milora": Start("subtract", "weights", BOTH, halves)}
ROWS = {
    "milora": started(
        "MiLoRA",
        "Wang et al., arXiv 2406.09044; released code",
        "A and B start as the weight's last r singular directions",
        tensors=((": out : in", ("q", "k", "v", "up", "down")),),
    ),
}
