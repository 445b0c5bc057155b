"""MiCA freezes B at the weight's last left singular vectors (arXiv 2604.01694)."""

from __future__ import annotations

from tensoradapt.networks.halves import Array, Halves, last
from tensoradapt.networks.starts import Start
from tensoradapt.published.row import started


def halves(weight: Array, _: Array | None, rank: int) -> Halves:
    """Return the last left singular vectors."""
    return last(weight, rank)[0], None


STARTS = {"mica": Start("zero", "weights", ("left",), halves)}
ROWS = {
    "mica": started(
        "MiCA",
        "arXiv 2604.01694; as in PEFT",
        "B is frozen: the weight's last r left singular vectors; A starts at zero",
        formula="M*L*r*i",
        alpha=16,
        power=None,
        zero="A",
        frozen=("B",),
    ),
}
