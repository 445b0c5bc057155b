"""One published adapter as a row of data. ``rows`` has the rows; ``published.get`` finds one by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tensoradapt.networks.network import Paper

Splits = Mapping[int, tuple[int, ...]]  # the parts of a width


@dataclass(frozen=True)
class Published:
    """One paper's adapter. Its ranks are never clipped.

    ``tensors`` are layouts with the projections of each. ``alpha`` is the released code's default, or 1. ``zero``,
    ``draws``, ``rates`` and ``base`` (factors that start from the base weights) name factors. ``power`` p makes the
    multiplier alpha / r^p instead of the parameterization's. ``train`` and ``biases`` are trained in addition and
    counted apart.
    """

    name: str
    tensors: tuple[tuple[str, tuple[str, ...]], ...]
    parameterization: str
    source: str
    formula: str
    alpha: float = 1
    scale: str = "paper"
    start: str = "zero"
    power: float | None = None
    zero: str | None = None
    draws: Mapping[str, Paper] = field(default_factory=dict, hash=False)
    rates: Mapping[str, float] = field(default_factory=dict, hash=False)
    base: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    split: Mapping[str, Splits] = field(default_factory=dict, hash=False)  # as for plan: parts by mode and width
    blocks: bool = False
    one_shape: bool = False  # defined on matrices of one shape alone, also where these are not tied
    train: tuple[str, ...] = ()
    biases: tuple[str, ...] = ()
    note: str = ""

    @property
    def projections(self) -> tuple[str, ...]:
        """The projections that the paper adapts."""
        return tuple(dict.fromkeys(proj for _, projections in self.tensors for proj in projections))

    @property
    def layout(self) -> tuple[str, ...]:
        """The layouts, without their projections."""
        return tuple(text for text, _ in self.tensors)
