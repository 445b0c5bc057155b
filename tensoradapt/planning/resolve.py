"""resolve(): what an AdapterSpec means. Each default of a field is taken here and nowhere else. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from tensoradapt import parameterizations, published
from tensoradapt.errors import TensorAdaptError, few
from tensoradapt.networks import starts
from tensoradapt.networks.varied import hows, modes
from tensoradapt.planning.builder import Builder
from tensoradapt.planning.spec import AdapterSpec
from tensoradapt.planning.variant import Variant, variant_of
from tensoradapt.published import registry
from tensoradapt.published.row import Published
from tensoradapt.text import Rank

TARGETS = ("attention",)  # the projections where neither a caller nor a paper names them

if TYPE_CHECKING:

    class FilledSpec(AdapterSpec):
        """An AdapterSpec that was resolved: these fields are not None, so that nobody asks for a default again."""

        layout: tuple[Any, ...]
        projections: str | Sequence[str]  # () where the sites were given
        scale: str | float
        start: str
        options: Mapping[str, Any]
        split: Any
        on_mismatch: str
        rates: Mapping[str, float]
        rank_pattern: Mapping[str, Rank]

else:
    FilledSpec = AdapterSpec


@dataclass(frozen=True)
class Resolved:
    """What an AdapterSpec means, before it meets a model.

    Attributes:
        spec: the spec with its method's name and, where a field was None, with the method's value or the default. None
            is left where a size, a map, an alpha, or frozen and shared factors were neither given nor the method's.
        row: the method's published adapter; None for a parameterization.
        builder: builds its networks, which are not clipped for a published adapter.
    """

    spec: FilledSpec
    row: Published | None
    builder: Builder

    @property
    def paper(self) -> str | None:
        """The name of the published adapter whose paper's settings are taken; None where no paper's are."""
        return self.spec.name if self.spec.paper else None

    @property
    def begins(self) -> starts.Start:
        """What the start does, and what it reads of the model."""
        return starts.get(self.spec.start)

    @property
    def layouts(self) -> tuple[str, ...]:
        """The texts of the layouts, of which a matrix takes the first that fits."""
        return tuple(one if isinstance(one, str) else one[0] for one in self.spec.layout)


def resolve(spec: AdapterSpec) -> Resolved:
    """Return what a spec means.

    Raises TensorAdaptError for a method that is missing or unknown, and for ``paper`` where no paper is.

    >>> found = resolve(AdapterSpec("lotr", rank=2))
    >>> found.row.name, found.spec.scale, found.spec.start, found.spec.projections, found.layouts
    ('lotr', 'matched', 'zero', ('attention',), ('(layer proj) : out : in',))
    """
    found = registry.find(_method_of(spec), spec.paper)
    name, row = found.name, found.row
    factoring = parameterizations.get(row.parameterization if row else spec.method)
    defaults = {**_of_method(name, row, factoring), **(_of_paper(row) if row and spec.paper else {})}
    if row is not None and (spec.scale or defaults["scale"]) == "paper":
        defaults["alpha"] = row.alpha
    absent = {key: default for key, default in defaults.items() if getattr(spec, key) is None}
    train = tuple(dict.fromkeys((*spec.train, *(row.train if row and spec.paper else ()))))
    filled = cast(FilledSpec, replace(spec, **{**absent, "method": name, "rule": _rule(spec, row), "train": train}))
    return Resolved(filled, row, _builder(factoring, filled, row))


def resolve_known(spec: AdapterSpec) -> Resolved | None:
    """Return what a spec means; None where its method is missing, or unknown in this process."""
    with suppress(TensorAdaptError):
        return resolve(spec)
    return None


def _method_of(spec: AdapterSpec) -> Any:
    if spec.method is not None:
        return spec.method
    if named := [text for text in spec.layout or () if text in registry.names()]:
        raise TensorAdaptError(f"a list of methods was given, {few(named)}; expected one, as in method={named[0]!r}")
    raise TensorAdaptError(
        "no method was given; expected a parameterization or a published adapter, as in method='cp' or 'lotr'. "
        f"Valid: {few(registry.names())}"
    )


def _of_method(name: str, row: Published | None, factoring: Any) -> dict[str, Any]:
    """Return the fields of a method on equal footing: what defines it is its own, the rest that of all methods."""
    shared = row or published.named(name)  # a parameterization of the same name takes the row's parts of widths
    return {
        "layout": _layouts(row) if row else parameterizations.layouts_of(factoring),
        "projections": TARGETS,
        "scale": "matched",
        "start": row.start if row else "zero",
        "options": row.options if row else {},
        "map": next(iter(row.map), None) if row else None,  # its size is decided with the networks
        "split": shared.split if shared else {},
        "on_mismatch": "split",
        "rates": {},
        "rank_pattern": {},
    }


def _of_paper(row: Published) -> dict[str, Any]:
    return {"scale": row.scale, "projections": row.projections, "on_mismatch": "error"}


def _layouts(row: Published) -> Sequence[Any]:
    """Return a row's layouts: a single one takes whatever sites are given, several are each for their projections."""
    return row.layout if len(row.tensors) == 1 else row.tensors


def _rule(spec: AdapterSpec, row: Published | None) -> str:
    if row is None or row.rule == "add":
        return spec.rule
    if spec.rule not in ("add", row.rule):
        raise TensorAdaptError(f"{row.name} has the rule {row.rule!r}, and rule={spec.rule!r} was given; leave it out")
    return row.rule


def _builder(factoring: Any, spec: FilledSpec, row: Published | None) -> Builder:
    if row is not None:
        variant: Any = variant_of(row, spec.rates, spec.frozen, spec.shared, spec.start)
    else:
        rates, frozen, shared = spec.rates, hows(spec.frozen), modes(spec.shared)
        varies = rates or frozen or shared or starts.get(spec.start).halves
        variant = (
            Variant(factoring, rates=rates, frozen=frozen, shared=shared, start=spec.start) if varies else factoring
        )
    return Builder(variant, dict(spec.options), clip=row is None)
