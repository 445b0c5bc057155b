"""OLoRA starts at the QR decomposition of the weight (Büyükakyüz, arXiv 2406.01775)."""

from __future__ import annotations

import numpy as np

from tensoradapt.networks.halves import Array, Halves
from tensoradapt.networks.starts import BOTH, Start
from tensoradapt.published.row import started


def halves(weight: Array, _: Array | None, rank: int) -> Halves:
    """Return the first columns of Q and rows of R of the weight's QR."""
    q, r = np.linalg.qr(weight)
    return q[:, :rank], r[:rank]


STARTS = {"olora": Start("subtract", "weights", BOTH, halves)}
ROWS = {
    "olora": started("OLoRA", "Büyükakyüz, arXiv 2406.01775; as in PEFT", "A and B start as the weight's QR, cut to r"),
}
