"""plan(): from sites, a layout and a parameterization to a Plan."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tensoradapt import parameterizations
from tensoradapt import published as papers
from tensoradapt.checks import check_number
from tensoradapt.errors import BudgetError, TensorAdaptError, located
from tensoradapt.networks.layout import Layout
from tensoradapt.networks.network import Network
from tensoradapt.planning.arguments import check_arguments
from tensoradapt.planning.grouping import Bundle, bundles
from tensoradapt.planning.plan import Group, Plan
from tensoradapt.planning.rank_patterns import check_patterns, own_networks
from tensoradapt.planning.ranks import built, counted, networks, within_budget
from tensoradapt.planning.splits import Split
from tensoradapt.planning.trained_modules import count_trained, patterns
from tensoradapt.planning.variant import Variant, check_rates
from tensoradapt.sites.find import find_sites
from tensoradapt.sites.site import Site, Sites, row_blocks
from tensoradapt.text import Rank


def plan(
    sites: Any,
    layout: str | Sequence[str] | None = None,
    parameterization: str | Any = None,
    rank: Rank | None = None,
    *,
    published: str | None = None,
    budget: int | None = None,
    options: Mapping[str, Any] | None = None,
    split: Split | None = None,
    on_mismatch: str | None = None,
    scale: str | float | None = None,
    alpha: float | None = None,
    start: str | None = None,
    rule: str = "add",
    train: str | Sequence[str] = (),
    tasks: Sequence[str] = (),
    rates: Mapping[str, float] | None = None,
    rank_pattern: Mapping[str, Rank] | None = None,
) -> Plan:
    """The plan of one adapter. ``sites``: from ``find_sites``, or a model or config (its attention, a paper's targets).

    Exactly one of ``rank`` and ``budget``, or neither for dense and quanta, which have no rank; an int rank is an upper
    bound, clipped to what each mode and bond can carry, except with ``published``. ``scale``: "matched" (default: the
    first step of LoRA r=8, alpha=16), "paper" (default of published rows), or a number that multiplies the tensor.
    ``start``: "zero" (one factor is), "subtract" (the drawn value is held and subtracted), "paper" (as the source
    draws; it may not be zero), "gradient" (the non-zero factors from the first batches' gradients, given to
    ``attach``). ``rule``: "add", or "dora" (arXiv 2402.09353: updates turn each row, whose length is trained apart).
    ``split``: parts of modes, or of each width a mode can have; ``out*`` in a layout names them all.
    ``on_mismatch``, where matrices of several shapes are tied: "split" (a tensor for each shape; the default but for
    ``published``), "crop" (the smaller read the first entries of the larger) or "error" (default of published rows: no
    source defines it). ``train``: base modules to train in place, by name or pattern, one or several, besides those of
    a published row. ``tasks``: values of a ``task`` mode. ``rates``: learning-rate multipliers by factor name.
    ``rank_pattern``: ranks of the tensors whose sites' names all match a pattern, in the place of ``rank``.

    Raises TensorAdaptError for everything that shapes and names decide.
    """
    row = papers.get(published) if published else None
    name = _family_name(parameterization, row)
    family = _variant(name, row, rates or {})
    scale = scale if scale is not None else row.scale if row else "matched"
    alpha = alpha if alpha is not None else row.alpha if row and scale == "paper" else None
    start = start or (row.start if row else "zero")
    on_mismatch = on_mismatch or ("error" if row else "split")
    check_arguments(scale, alpha, start, rule, on_mismatch, rank, budget, tasks)
    check_patterns(rank_pattern or {}, rank, budget)
    found = _sites(sites, row)
    layouts: list[Any] = [layout] if isinstance(layout, str) else list(layout or _usual_layouts(family, row))
    tensors = bundles(found, layouts, split or (row.split if row else {}), on_mismatch, tasks, published)
    opts = dict(options or (row.options if row else {}))
    biases = _bias_widths(found, row.biases if row else ())
    n_extra = sum(width for _, width in biases) + sum(
        row_block.out for row_block in row_blocks(found) if rule == "dora"
    )
    nets = _networks(family, name, tensors, rank, budget, opts, row is None, n_extra)
    check_rates(rates or {}, list(nets.values()))
    own = own_networks(family, tensors, nets, rank_pattern or {}, opts, clip=row is None)
    groups = tuple(Group(net, bundle.members) for net, bundle in zip(own, tensors, strict=True))
    skipped, source = getattr(found, "skipped", ()), getattr(found, "source", "")
    train = (*patterns(train), *(row.train if row else ()))
    n_trained, shown = count_trained(sites, train, published), parameterizations.name_of(name)
    made = Plan(
        *(shown, groups, scale, alpha, start, rule, train, n_trained, budget, published, tuple(tasks), biases),
        *(skipped, source, name),
    )
    _check_start(made, family)
    return _refuse_dense(made)


def _family_name(parameterization: Any, row: papers.Published | None) -> Any:
    if row is not None:
        if parameterization is None or parameterizations.get(parameterization) is parameterizations.get(
            row.parameterization
        ):
            return row.parameterization
        layout = row.layout if len(row.layout) > 1 else row.layout[0]
        raise TensorAdaptError(
            f"published={row.name!r} is a {row.parameterization}, and parameterization="
            f"{parameterizations.name_of(parameterization)!r} was given too; another one is not that paper's. Leave "
            f"published= out and give its layout={layout!r} with that parameterization, or leave parameterization= out"
        )
    if parameterization is not None:
        return parameterization
    valid = ", ".join(parameterizations.names())
    raise TensorAdaptError(f"no parameterization was given: pass parameterization= (one of {valid}) or published=")


def _variant(name: Any, row: papers.Published | None, rates: Mapping[str, float]) -> Any:
    family = parameterizations.get(name)
    for factor, rate in rates.items():
        check_number(f"rate of {factor!r}", rate, above=0)
    if row is None:
        return Variant(family, rates=rates) if rates else family
    return Variant(family, row.zero, row.draws, {**row.rates, **rates}, row.base, row.power)


def _usual_layouts(family: Any, row: papers.Published | None) -> Sequence[Any]:
    """A row with one layout takes whatever sites are given; with several, each is for its own projections."""
    if row is None:
        return parameterizations.layouts_of(family)
    return row.layout if len(row.tensors) == 1 else row.tensors


def _bias_widths(sites: Iterable[Site], projections: Sequence[str]) -> tuple[tuple[str, int], ...]:
    """The width of each projection's shared bias."""
    found: dict[str, int] = {}
    for site in sites:
        proj = str(site.coord.get("proj"))
        if proj in projections:
            found[proj] = max(found.get(proj, 0), site.rows[1] if site.rows else site.out)
    return tuple(found.items())


def _check_start(made: Plan, family: Any) -> None:
    """Bases come from the parameterization's own decomposition of the weights."""
    if made.needs_weights and made.start != "gradient" and not callable(getattr(family, "decompose", None)):
        raise TensorAdaptError(
            f"parameterization {made.parameterization!r} takes factors from the base weights and has no decompose; "
            "add decompose(network, tensor, seed) that returns them"
        )


def _networks(
    family: Any,
    name: Any,
    tensors: Sequence[Bundle],
    rank: Rank | None,
    budget: int | None,
    opts: Mapping[str, Any],
    clip: bool,
    n_extra: int,
) -> dict[Layout, Network]:
    sites = {bundle.layout: bundle.members[0].site.name for bundle in reversed(tensors)}
    kinds = counted([bundle.layout for bundle in tensors])
    with located(f"site {sites[tensors[0].layout]}"):
        _check_options(family, name, opts, tensors[0].layout)
    if budget is not None:
        return within_budget(family, kinds, budget, opts, clip, sites, n_extra)
    return networks(family, kinds, rank, opts, clip, sites)


def _sites(sites: Any, row: papers.Published | None) -> Sequence[Site]:
    if isinstance(sites, Site):
        sites = [sites]
    # containers of modules and transformers' configs iterate too
    is_source = hasattr(sites, "named_modules") or hasattr(sites, "model_type")
    if isinstance(sites, Iterable) and not is_source:
        found: Any = sites if isinstance(sites, Sites) else tuple(sites)
        if len(found) == 0 or not all(isinstance(site, Site) for site in found):
            raise TensorAdaptError(
                "the sites are empty or hold something else; expected what find_sites(model) returns, or a model"
            )
        return found
    if row is None:
        return find_sites(sites)
    with located(f"published={row.name!r} is not defined on this model"):
        return find_sites(sites, row.projections, blocks=row.blocks)


def _check_options(family: Any, name: Any, options: Mapping[str, Any], layout: Any) -> None:
    try:
        built(family, layout, 1, options)
    except TypeError as error:
        raise TensorAdaptError(f"options {sorted(options)} do not fit parameterization {name!r}: {error}") from None


def _refuse_dense(made: Plan) -> Plan:
    if made.n_params > made.n_dense:  # as many are dense: the ceiling
        raise (TensorAdaptError if made.budget is None else BudgetError)(
            f"the adapter would have {made.n_params:,} parameters, and the {len(made.sites)} matrices themselves "
            f"have only {made.n_dense:,}; lower the rank or the budget, or tie more modes"
        )
    return made
