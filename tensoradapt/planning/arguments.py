"""Arguments of a plan: one frozen request in which the published row and the defaults are filled in. No torch."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from tensoradapt import parameterizations
from tensoradapt import published as papers
from tensoradapt.checks import (
    Check,
    anything,
    check_number,
    check_rank,
    named,
    number,
    optional,
    shown,
    strings,
    text,
    whole,
)
from tensoradapt.errors import TensorAdaptError, did_you_mean
from tensoradapt.networks.layout import Layout
from tensoradapt.networks.network import Network, Paper
from tensoradapt.planning.plan import RULES, STARTS
from tensoradapt.planning.ranks import Builder
from tensoradapt.planning.scale import SCALES
from tensoradapt.planning.trained_modules import patterns
from tensoradapt.published.row import Published
from tensoradapt.text import Rank

MISMATCH = ("split", "crop", "error")


def _layouts_given(value: Any, where: str) -> Any:
    if isinstance(value, str) or (isinstance(value, list | tuple) and value):
        return value
    raise TensorAdaptError(f"{where} is {shown(value)}; expected a text such as ': out : in', or a list of texts")


def _rank(value: Any, where: str) -> Rank:
    check_rank(value, where)
    if not isinstance(value, Mapping):
        return int(value)
    if odd := [key for key in value if not isinstance(key, str)]:
        raise TensorAdaptError(f"{where} has the key {shown(odd[0])}; expected names of modes or bonds")
    return {name: whole(n, f"{where} of {name!r}") for name, n in value.items()}


NAMES = {"layouts": "layout"}
# what arguments may be that are not checked further on, where names and numbers meet the model
CHECKS: Mapping[str, Check] = {
    "layouts": optional(_layouts_given),
    "rank": optional(_rank),
    "published": optional(text),
    "options": optional(partial(named, anything)),
    "on_mismatch": optional(text),
    "start": optional(text),
    "rule": text,
    "train": lambda value, where: patterns(value),
    "scale": optional(lambda value, where: value if isinstance(value, str) else number(value, where) and value),
    "rates": lambda value, where: {k: number(v, f"rate of {k!r}") for k, v in named(anything, value, where).items()},
    "projections": optional(strings),
}


@dataclass(frozen=True)
class Request:
    """The arguments of ``plan``, by their names there. ``resolve`` fills in those that are None and the last four."""

    layouts: Any  # each a text, or a text and the projections that it is for
    parameterization: Any  # a name or an object
    rank: Rank | None
    published: str | None
    budget: int | None
    options: Any
    split: Any
    on_mismatch: Any
    scale: Any
    alpha: float | None
    start: Any
    rule: str
    train: Any
    tasks: Sequence[str]
    rates: Mapping[str, float]
    rank_pattern: Mapping[str, Rank]
    projections: Any = None
    builder: Builder = field(default_factory=lambda: Builder(None))
    targets: Mapping[str, Any] = field(default_factory=dict)  # arguments of find_sites for a model
    biases: tuple[str, ...] = ()  # projections that have a shared bias
    one_shape: bool = False  # of a published row
    row_train: tuple[str, ...] = ()  # what a published row trains in place


def resolve(given: Request) -> Request:
    """Fill in the published row and the defaults; raise TensorAdaptError for unknown or conflicting arguments."""
    given = replace(
        given, **{field: check(getattr(given, field), NAMES.get(field, field)) for field, check in CHECKS.items()}
    )
    row = papers.get(given.published) if given.published else None
    name = _parameterization(given.parameterization, row)
    variant = _variant(parameterizations.get(name), row, given.rates)
    scale = given.scale if given.scale is not None else row.scale if row else "matched"
    request = replace(
        given,
        parameterization=name,
        published=row.name if row else None,
        layouts=given.layouts or (_layouts(row) if row else parameterizations.layouts_of(name)),
        scale=scale,
        alpha=row.alpha if given.alpha is None and row and scale == "paper" else given.alpha,
        start=given.start or (row.start if row else "zero"),
        on_mismatch=given.on_mismatch or ("error" if row else "split"),
        split=given.split if given.split is not None else row.split if row else {},
        builder=Builder(variant, dict(given.options or (row.options if row else {})), clip=row is None),
    )
    _check(request)
    targets = {"projections": row.projections, "blocks": row.blocks} if row else {}
    targets |= {} if given.projections is None else {"projections": given.projections}
    if row is None:
        return replace(request, targets=targets)
    return replace(request, targets=targets, biases=row.biases, one_shape=row.one_shape, row_train=row.train)


def _parameterization(given: Any, row: Published | None) -> Any:
    if row is not None:
        if given is None or parameterizations.get(given) is parameterizations.get(row.parameterization):
            return row.parameterization
        layout = row.layout if len(row.layout) > 1 else row.layout[0]
        raise TensorAdaptError(
            f"published={row.name!r} is a {row.parameterization}, and parameterization="
            f"{parameterizations.name_of(given)!r} was given too; another one is not that paper's. Leave "
            f"published= out and give its layout={layout!r} with that parameterization, or leave parameterization= out"
        )
    if isinstance(given, str):
        return _spelled(given)
    if given is not None:
        return given
    valid = ", ".join(parameterizations.names())
    raise TensorAdaptError(f"no parameterization was given: pass parameterization= (one of {valid}) or published=")


def _spelled(given: str) -> str:
    name = parameterizations.name_of(given)
    if name not in parameterizations.names() and (row := papers.named(given)):
        raise TensorAdaptError(
            f"unknown parameterization {given!r}. It is a published adapter: give it as published={row.name!r}, or its "
            f"parameterization {row.parameterization!r} with a layout of your own"
        )
    return name


def _layouts(row: Published) -> Sequence[Any]:
    """Return a row's layouts: a single one takes whatever sites are given, several are each for their projections."""
    return row.layout if len(row.tensors) == 1 else row.tensors


def _check(request: Request) -> None:
    for what, valid in (("start", STARTS), ("rule", RULES), ("on_mismatch", MISMATCH)):
        if (value := getattr(request, what)) not in valid:
            raise TensorAdaptError(f"{what} is {value!r}{did_you_mean(value, valid)}")
    _check_scale(request.scale, request.alpha)
    rank, budget = request.rank, request.budget
    if rank is not None and budget is not None:
        raise TensorAdaptError(
            f"rank={shown(rank)} and budget={shown(budget)} were given; expected exactly one of them"
        )
    if request.rule == "dora" and request.tasks:
        raise TensorAdaptError(
            f"rule='dora' and tasks={tuple(request.tasks)} were given; a row has one length, and each task would need "
            "its own. Plan one adapter for each task, or with rule='add'"
        )
    if rank is not None:
        check_rank(rank)
    _check_patterns(request.rank_pattern, rank, budget)


def _check_scale(scale: Any, alpha: Any) -> None:
    if isinstance(scale, str):
        if scale not in SCALES:
            raise TensorAdaptError(f"scale is {scale!r}{did_you_mean(scale, SCALES)}, or a number")
    else:
        check_number("scale", scale, above=0)
        if alpha is not None:
            raise TensorAdaptError(
                f"both scale={shown(scale)} and alpha={shown(alpha)} were given; a number as scale is the whole "
                "multiplier"
            )
    if alpha is not None:
        check_number("alpha", alpha, above=0)


def _check_patterns(patterns: Any, rank: Any, budget: Any) -> None:
    if not isinstance(patterns, Mapping) or not all(isinstance(pattern, str) for pattern in patterns):
        raise TensorAdaptError(
            f"rank_pattern is {shown(patterns)}; expected a mapping of site name patterns to ranks, as in "
            '{"*.layers.0.*": 2}'
        )
    if patterns and rank is None:
        given = f"budget={shown(budget)}" if budget is not None else "no rank"
        raise TensorAdaptError(f"rank_pattern was given with {given}; expected rank=, the rank of all other tensors")


@dataclass(frozen=True)
class Variant:
    """A parameterization whose networks are changed after ``build``; everything else is the original's."""

    original: Any
    zero: str | None = None  # the factor that starts at zero
    draws: Mapping[str, Paper] = field(default_factory=dict)  # by factor name; those a network lacks are ignored
    rates: Mapping[str, float] = field(default_factory=dict)  # the same
    base: tuple[str, ...] = ()  # patterns of the factors that start from the base weights
    power: float | None = None  # the p of the multiplier alpha / rank^p

    def build(self, layout: Layout, rank: Any, **options: Any) -> Network:
        """Build the parameterization's network, and change it."""
        network = Builder(self.original, options).build(layout, rank)
        names = [factor.name for factor in network.factors]
        draws, rates = ({k: v for k, v in given.items() if k in names} for given in (self.draws, self.rates))
        based = {name: "base" for name in names if any(fnmatch.fnmatchcase(name, pattern) for pattern in self.base)}
        network = network.with_factors(self.zero, paper=draws, rate=rates, source=based)
        if self.power is None:
            return network
        largest = max((n for name, n in network.bonds.items() if name not in network.derived), default=1)
        return replace(network, divisor=float(largest) ** self.power)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # copying and pickling ask for these before the fields are there
            raise AttributeError(name)
        return getattr(self.original, name)


def _variant(original: Any, row: Published | None, rates: Mapping[str, float]) -> Any:
    for factor, rate in rates.items():
        check_number(f"rate of {factor!r}", rate, above=0)
    if row is not None:
        return variant_of(row, rates)
    return Variant(original, rates=rates) if rates else original


def variant_of(row: Published, rates: Mapping[str, float] | None = None) -> Variant:
    """Return a published row's variant of its parameterization, with these learning-rate multipliers over its own."""
    original = parameterizations.get(row.parameterization)
    return Variant(original, row.zero, row.draws, {**row.rates, **(rates or {})}, row.base, row.power)
