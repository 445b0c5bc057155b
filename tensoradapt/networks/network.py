"""Labelled networks: factors joined by bonds, over a layout. Shapes only.

The labels of a parameterization fix its dense tensor, any slice, the LoRA pair, the parameter count and the rank bound.
A label may occur in more than two factors (CP, VeRA).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any, Literal

from tensoradapt.errors import NetworkError, TensorAdaptError, did_you_mean
from tensoradapt.networks.contraction import size
from tensoradapt.networks.layout import Layout
from tensoradapt.networks.minimum_cut import sides_by_flow
from tensoradapt.text import Rank

SEARCHED = 12  # the minimum cut of up to this many factors is searched over all splits of them
# how a paper draws a factor, and its bound, standard deviation, value or gain
Fans = Literal["kaiming", "kaiming_bond", "xavier", "xavier_normal"]  # their bound depends on the factor's shape
Draws = Literal["uniform", "normal", "constant", "identity", "orthogonal", "unit", "shift", Fans]
Paper = tuple[Draws, float]
MADE = ("draw", "own", "set")  # sources whose frozen values follow from names and shapes, so that no file holds them
PATTERNS: Mapping[str, int] = {"constant": 1, "identity": 2, "shift": 3}  # what a factor can be set to; its fewest axes


@dataclass(frozen=True)
class Factor:
    """One small array whose axes are named by modes and bonds; an example is in CONTRIBUTING.md.

    Nothing is raised here: the ``Network`` that holds it checks its labels.

    Attributes:
        name: of the factor, such as that of its mode.
        labels: the name of each axis, a mode of the layout or a bond.
        init: "zero" for exactly one factor of a network, "normal" for the others.
        paper: the paper's draw, with its bound, standard deviation, value or gain, used with ``scale="paper"``. The
            factor that ``start="zero"`` zeroes has one only if the paper does not start at zero.
        trainable: whether it is trained.
        source: "draw": the entries of a frozen factor are a pure function of (seed, name, row, column), the same for
            all tensors; "own": those of a frozen factor are drawn for each tensor by itself, as trained ones are;
            "base": the start, or the parameterization's ``decompose``, makes the values from the model; "given": a
            frozen factor whose values were given and are stored; "set": a frozen factor whose values are the pattern
            that ``paper`` names, with every scale: "constant", "identity" (1 where the first and the last place are
            equal), or "shift" (1 where the first place f, the second t and the last s have f = s - t modulo the first
            size).
        rate: what multiplies the learning rate.

    >>> import tensoradapt as ta
    >>> factor = ta.Factor("dim", ("dim", "r"), init="zero")
    >>> factor.labels, factor.trainable
    (('dim', 'r'), True)
    """

    name: str
    labels: tuple[str, ...]
    init: Literal["normal", "zero"] = "normal"
    paper: Paper | None = None
    trainable: bool = True
    source: Literal["draw", "own", "base", "given", "set"] = "draw"
    rate: float = 1.0


@dataclass(frozen=True)
class Cut:
    """The factors of A, those of B, and the labels that cross, whose sizes multiply to the rank R of an export."""

    a: tuple[str, ...]
    b: tuple[str, ...]
    crossing: tuple[str, ...]
    rank: int


@dataclass(frozen=True)
class Network:
    """Factors and bonds over a layout, which ``build`` of a parameterization returns (CONTRIBUTING.md).

    Raises TensorAdaptError for two factors of one name, a mode that no factor has, a label that is neither mode nor
    bond, a bond that joins fewer than two factors, and any number but one of factors that start at zero.

    Attributes:
        layout: what ``build`` was given.
        factors: their product, summed over bonds, is the tensor.
        bonds: the size of each bond, by name: "r", or "r_" and a name where there are several.
        alpha: the paper's multiplier is alpha / divisor; this is its default.
        divisor: of the paper's multiplier.
        derived: bonds that follow from the others and the layout, so that a rank does not name them.

    >>> import tensoradapt as ta
    >>> network = ta.plan("tiny-random-bert", "cp", rank=2).groups[0].network
    >>> network.n_params, dict(network.bonds), network.equation
    (82, {'r': 2}, 'layer[layer r] proj[proj r] head[head r] dim[dim r] model[model r] -> layer proj head dim model')
    """

    layout: Layout
    factors: tuple[Factor, ...]
    bonds: Mapping[str, int] = field(hash=False)
    alpha: float = 1.0
    divisor: float = 1.0
    derived: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        names = [factor.name for factor in self.factors]
        if twice := [name for name in names if names.count(name) > 1]:
            raise NetworkError(
                f"two factors have one name, {twice[0]!r}, by which their numbers are trained and saved; give each its "
                "own. No factor can stand for two modes, as a symmetric form would need: all that a factor can be "
                f"shared over is index modes, by plan(..., shared={{{twice[0]!r}: [mode]}})"
            )
        held = [label for factor in self.factors for label in factor.labels]
        if absent := [name for name in self.layout.names if name not in held]:
            raise NetworkError(f"no factor has mode {absent[0]!r} of layout {str(self.layout)!r}; every mode needs one")
        if unknown := sorted(set(held) - set(self.layout.names) - set(self.bonds)):
            raise NetworkError(f"factor label {unknown[0]!r} is neither a mode nor a bond of the network")
        if clash := sorted(set(self.bonds) & set(self.layout.names)):
            raise NetworkError(f"bond {clash[0]!r} has the name of a mode; give it another")
        if loose := [bond for bond in self.bonds if held.count(bond) < 2]:
            raise NetworkError(
                f"bond {loose[0]!r} is held by {held.count(loose[0])} factor(s) of {self._names()}; a bond joins two "
                "or more: neighbours in a chain need one and the same bond name"
            )
        zeros = [factor.name for factor in self.factors if factor.init == "zero"]
        if len(zeros) != 1:
            raise NetworkError(
                f"factors that start at zero: {', '.join(zeros) or 'none'}; expected exactly one "
                "(two never train, none does not start at the base model)"
            )
        for factor in self.factors:
            if factor.source == "set":
                _check_set(factor)

    def _names(self) -> str:
        sizes = self.layout.size_of
        sized = {f.name: (f"{x}={sizes[x]}" if x in sizes else x for x in f.labels) for f in self.factors}
        return ", ".join(f"{name}[{' '.join(labels)}]" for name, labels in sized.items())

    @cached_property
    def sizes(self) -> Mapping[str, int]:
        return {**self.layout.size_of, **self.bonds}

    @property
    def rank(self) -> Rank:
        """The rank it was built with: an int for one bond ``r``, else bonds by name without ``r_``.

        It is what the parameterization's ``count`` takes. Derived bonds are left out.
        """
        bonds = {name: n for name, n in self.bonds.items() if name not in self.derived}
        return bonds["r"] if set(bonds) == {"r"} else {name.removeprefix("r_"): n for name, n in bonds.items()}

    @property
    def zero(self) -> Factor:
        return next(factor for factor in self.factors if factor.init == "zero")

    def shape(self, factor: Factor) -> tuple[int, ...]:
        return tuple(self.sizes[label] for label in factor.labels)

    def axes(self, factor: Factor) -> str:
        """Return a factor's shape in words: ``of shape (4, 12), r_in=4 x layer=12``."""
        names = " x ".join(f"{label}={self.sizes[label]}" for label in factor.labels)
        return f"of shape {self.shape(factor)}, {names}"

    @property
    def n_params(self) -> int:
        """The number of trainable entries."""
        return sum(math.prod(self.shape(factor)) for factor in self.factors if factor.trainable)

    @property
    def n_base(self) -> int:
        """The number of frozen entries made from the base weights or given, which a checkpoint has to store."""
        return sum(math.prod(self.shape(f)) for f in self.factors if f.source not in MADE and not f.trainable)

    @property
    def frozen_draws(self) -> tuple[Factor, ...]:
        """The frozen factors that no file holds: their entries are drawn from the seed, or set."""
        return tuple(f for f in self.factors if f.source in MADE and not f.trainable)

    @property
    def own_draws(self) -> tuple[Factor, ...]:
        """The frozen factors that each tensor draws by itself, a part of ``frozen_draws``."""
        return tuple(factor for factor in self.frozen_draws if factor.source == "own")

    def given(self, names: Iterable[str]) -> Network:
        """Return the network with those frozen factors that are named given and stored instead of drawn."""
        named = {factor.name for factor in self.frozen_draws}.intersection(names)
        factors = tuple(replace(f, source="given") if f.name in named else f for f in self.factors)
        return replace(self, factors=factors) if named else self

    @property
    def cut(self) -> Cut:
        """The minimum cut between row and column modes at a fixed position of the index modes."""
        return _cut(self)

    @property
    def equation(self) -> str:
        """The einsum in words: ``head[head r] model[model r] -> head model``."""
        left = " ".join(f"{factor.name}[{' '.join(factor.labels)}]" for factor in self.factors)
        return f"{left} -> {' '.join(self.layout.names)}"

    def with_factors(self, zero: str | None = None, **changes: Mapping[str, Any]) -> Network:
        """Return the network with another zero factor, or with fields of factors changed: ``paper={"B": ...}``."""
        names = [factor.name for factor in self.factors]
        asked = [*([zero] if zero else []), *(name for named in changes.values() for name in named)]
        if unknown := [name for name in asked if name not in names]:
            raise TensorAdaptError(f"there is no factor {unknown[0]!r}{did_you_mean(unknown[0], names)}")

        def changed(factor: Factor) -> Factor:
            fields = {key: named[factor.name] for key, named in changes.items() if factor.name in named}
            if zero:
                fields["init"] = "zero" if factor.name == zero else "normal"
            return replace(factor, **fields)

        return replace(self, factors=tuple(map(changed, self.factors)))

    def clipped(self) -> Network:
        """Return the network with each bond of two factors at most as large as what either can carry.

        What a factor can carry is the number of entries of its other labels, provided that the other factor is trained
        and can absorb the rest. A label that both have, and that only selects a matrix (an index mode, a bond of more
        factors), does not count. Bonds of more than two factors stay as they are.
        """
        bonds, before = dict(self.bonds), None
        while bonds != before:
            before = dict(bonds)
            for bond in set(bonds) - set(self.derived):
                sides = [factor for factor in self.factors if bond in factor.labels]
                if len(sides) == 2:
                    picks = {x for x in set(sides[0].labels) & set(sides[1].labels) if self._is_shared(x)}
                    sizes = {**self.layout.size_of, **bonds, **dict.fromkeys((bond, *picks), 1)}
                    pairs = ((sides[0], sides[1]), (sides[1], sides[0]))
                    limits = [size(factor.labels, sizes) for factor, other in pairs if other.trainable]
                    bonds[bond] = min([bonds[bond], *limits])
        return replace(self, bonds=bonds)

    def _is_shared(self, label: str) -> bool:
        return label in self.layout.size_of or sum(label in factor.labels for factor in self.factors) > 2


def _check_set(factor: Factor) -> None:
    fewest = PATTERNS.get(factor.paper[0]) if factor.paper else None
    if factor.trainable or fewest is None or len(factor.labels) < fewest:
        raise NetworkError(
            f"factor {factor.name!r} with source='set' has trainable={factor.trainable}, paper={factor.paper} and axes "
            f"{factor.labels}; expected a frozen one whose paper is the pattern that it is set to: "
            f"{', '.join(f'{kind!r} of {n} axes or more' for kind, n in PATTERNS.items())}"
        )


@lru_cache(maxsize=4096)
def _cut(network: Network) -> Cut:
    n = len(network.factors)
    rows, cols = ({mode.name: mode.size for mode in modes} for modes in (network.layout.rows, network.layout.cols))
    held, few = [factor.labels for factor in network.factors], n <= SEARCHED
    every = itertools.product("AB", repeat=n) if few else [sides_by_flow(held, rows, cols, network.bonds)]
    sides = min(every, key=lambda sides: size(crossing_labels(network, sides), network.sizes))  # the first of equals
    crossing = crossing_labels(network, sides)
    a, b = (tuple(f.name for f, s in zip(network.factors, sides, strict=True) if s == side) for side in "AB")
    return Cut(a, b, crossing, size(crossing, network.sizes))


def crossing_labels(network: Network, sides: tuple[str, ...]) -> tuple[str, ...]:
    """Return the bonds with factors on both sides, the row modes that A holds and the column modes that B holds."""
    held: dict[str, set[str]] = {"A": set(), "B": set()}
    for factor, side in zip(network.factors, sides, strict=True):
        held[side].update(factor.labels)
    rows, cols = ({mode.name for mode in modes} for modes in (network.layout.rows, network.layout.cols))
    bonds = held["A"] & held["B"] & set(network.bonds)
    return tuple(sorted(bonds | (held["A"] & rows) | (held["B"] & cols)))
