"""Published adapters as rows of data: a paper's name -> layout, parameterization, targets, start, scale and source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tensoradapt.errors import TensorAdaptError, did_you_mean


@dataclass(frozen=True)
class Published:
    """One paper's adapter. Ranks are never clipped; ``alpha`` is the released code's default."""

    name: str
    layout: tuple[str, ...]
    parameterization: str
    projections: tuple[str, ...]
    source: str
    alpha: float
    scale: str = "paper"
    start: str = "zero"
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)


ROWS: tuple[Published, ...] = (
    Published("lora", (": out : in",), "lora", ("q", "v"), "Hu et al., arXiv 2106.09685", alpha=16),
    Published(
        "lorta",
        ("layer proj : head dim : model",),
        "cp",
        ("q", "k", "v", "o"),
        "Hounie et al., arXiv 2410.04060; factors and draws as in the authors' code",
        alpha=16,
    ),
    Published("vera", (": out : in",), "vera", ("q", "v"), "Kopiczko et al., arXiv 2310.11454, equation 2", alpha=1),
)


def names() -> tuple[str, ...]:
    """Names of all rows."""
    return tuple(row.name for row in ROWS)


def get(name: str) -> Published:
    """The row of that name."""
    rows = {row.name: row for row in ROWS}
    if name not in rows:
        raise TensorAdaptError(f"unknown published adapter {name!r}{did_you_mean(name, rows)}")
    return rows[name]
