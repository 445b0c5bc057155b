"""A published adapter is a row of data. ``rows`` has the rows; ``published.get`` finds one by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tensoradapt.networks.mapped import Map
from tensoradapt.networks.network import Paper
from tensoradapt.networks.varied import Frozen, Shared

Splits = Mapping[int, tuple[int, ...]]  # the parts of a width


@dataclass(frozen=True)
class Published:
    """One paper's adapter, whose ranks are never clipped; docs/reference/methods.md lists all.

    Nothing is checked here: ``plan`` raises what is wrong with a row.

    Attributes:
        name: what ``method=`` takes, which is stored in lower case.
        tensors: layouts with the projections of each.
        parameterization, options: how they are factored.
        source, formula, note: the paper, its closed count of parameters, departures from it.
        alpha: the released code's default, or 1.
        scale, start, rule: as in ``plan``.
        power: p makes the multiplier alpha / r^p instead of the parameterization's.
        zero, draws, rates, base: factors: which is zero, how others are drawn, their multipliers of the learning rate,
            and which start from the base weights.
        frozen, shared: factors that are not trained, and index modes that factors leave out, as in ``plan``.
        map: what the factors are made of, and of how many numbers, as in ``plan``; fewer where a model is small.
        split: parts of a mode, by mode and width.
        blocks: whether MLP matrices are cut into square blocks.
        one_shape: whether it is defined on matrices of one shape alone.
        train, biases: modules and shared biases that are trained in addition and counted apart.
        label: the name that figures and tables show; by default the name in the letters that it was given in.
        look: its colour and marker in figures; by default each figure chooses.

    >>> import tensoradapt as ta
    >>> ta.published.Published("mine", ((": out : in", ("q", "v")),), "lora", "a paper", "2*d*r").projections
    ('q', 'v')
    """

    name: str
    tensors: tuple[tuple[str, tuple[str, ...]], ...]
    parameterization: str
    source: str
    formula: str
    alpha: float = 1
    scale: str = "paper"
    start: str = "zero"
    rule: str = "add"
    power: float | None = None
    zero: str | None = None
    draws: Mapping[str, Paper] = field(default_factory=dict, hash=False)
    rates: Mapping[str, float] = field(default_factory=dict, hash=False)
    base: tuple[str, ...] = ()
    frozen: Frozen = field(default=(), hash=False)
    shared: Shared = field(default_factory=dict, hash=False)
    map: Map = field(default_factory=dict, hash=False)
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    split: Mapping[str, Splits] = field(default_factory=dict, hash=False)  # as for plan: parts by mode and width
    blocks: bool = False
    one_shape: bool = False  # defined on matrices of one shape alone, also where these are not tied
    train: tuple[str, ...] = ()
    biases: tuple[str, ...] = ()
    note: str = ""
    label: str = ""
    look: tuple[str, str] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "label", self.label or self.name)
        object.__setattr__(self, "name", self.name.lower())

    @property
    def projections(self) -> tuple[str, ...]:
        """The projections that the paper adapts."""
        return tuple(dict.fromkeys(proj for _, projections in self.tensors for proj in projections))

    @property
    def layout(self) -> tuple[str, ...]:
        """The layouts, without their projections."""
        return tuple(text for text, _ in self.tensors)


def started(name: str, source: str, note: str, **changes: Any) -> Published:
    """Return the row of LoRA, on q and v, with a start of the same name, and what else ``changes``."""
    usual = Published(
        name, ((": out : in", ("q", "v")),), "lora", source, "M*L*r*(o + i)", start=name.lower(), power=0, note=note
    )
    return replace(usual, **changes)
