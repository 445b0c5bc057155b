"""plan(): from sites, a layout and a parameterization to a Plan."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext, suppress
from typing import Any

from tensoradapt.errors import BudgetError, TensorAdaptError, did_you_mean, located
from tensoradapt.networks.layout import Layout
from tensoradapt.networks.network import Network
from tensoradapt.parameterizations import name_of
from tensoradapt.planning.arguments import Request, resolve
from tensoradapt.planning.grouping import Tied, tied_sites
from tensoradapt.planning.plan import Group, Plan
from tensoradapt.planning.ranks import networks, with_rank_pattern, within_budget
from tensoradapt.planning.splits import Split
from tensoradapt.planning.trained_modules import AUTO, count_trained, with_heads
from tensoradapt.sites.find import find_sites
from tensoradapt.sites.site import Site, Sites, row_blocks
from tensoradapt.text import Rank


def plan(
    sites: Any,
    layout: str | Sequence[str] | None = None,
    parameterization: str | Any = None,
    rank: Rank | None = None,
    *,
    projections: str | Sequence[str] | None = None,
    published: str | None = None,
    budget: int | None = None,
    options: Mapping[str, Any] | None = None,
    split: Split | None = None,
    on_mismatch: str | None = None,
    scale: str | float | None = None,
    alpha: float | None = None,
    start: str | None = None,
    rule: str = "add",
    train: str | Sequence[str] = AUTO,
    tasks: Sequence[str] = (),
    rates: Mapping[str, float] | None = None,
    rank_pattern: Mapping[str, Rank] | None = None,
) -> Plan:
    """Plan one adapter: which tensors there are, and which slice each weight matrix reads.

    Args:
        sites: from ``find_sites``, or a model or config (its attention, or the targets of ``published``).
        layout: one or several; by default the parameterization's usual ones, or those of ``published``.
        parameterization: name, or object with ``build``, ``count`` and ``oracle``; needed without ``published``.
        rank: an upper bound, clipped to what each mode and bond can carry except with ``published``; or one for each
            bond. Exactly one of ``rank`` and ``budget``, or neither for dense and quanta, which have no rank.
        projections: of a model or config, as ``find_sites`` takes them, such as ("q", "v") or "all".
        published: name of a published row, whose settings are the defaults.
        budget: most trainable parameters.
        options: the parameterization's own.
        split: sizes of the parts of a mode, or of each width it can have; ``out*`` in a layout names all its parts.
        on_mismatch: where matrices of several shapes are tied: "split" (default: a tensor for each shape), "crop" (the
            smaller read the first entries of the larger) or "error" (default with ``published``: no source defines it).
        scale: a rule of ``planning.scale``, as "matched" (default: the first step of LoRA r=8, alpha=16) or "paper"
            (default with ``published``), or a number that multiplies the tensor.
        alpha: of the scale; by default 16 where matched, else the paper's.
        start: "zero" (default: one factor is zero), "subtract" (the drawn value is held and subtracted), "paper" (as
            the source draws; it may not be zero), "gradient" (non-zero factors from the gradients of the batches given
            to ``attach``).
        rule: "add", or "dora" (arXiv 2402.09353: updates turn each row, whose length is trained apart).
        train: base modules to train in place, by name or pattern, besides those of a published row; "auto" (default)
            is the head of a classifier of transformers, such as ``BertForSequenceClassification``, and () nothing.
        tasks: names of the values of a ``task`` mode.
        rates: learning-rate multipliers by factor name.
        rank_pattern: ranks by site name pattern, for tensors whose sites all match; they replace ``rank``.

    Raises:
        TensorAdaptError: for everything that shapes and names decide.

    Returns:
        The plan, from shapes alone: no weights are read and nothing is allocated.

    >>> from transformers import BertConfig
    >>> config = BertConfig(hidden_size=96, num_attention_heads=6, num_hidden_layers=4)
    >>> made = plan(config, layout="layer proj : head dim : model", parameterization="cp", rank=8)
    >>> made.n_params, len(made.groups), str(made.groups[0].network.layout), made.groups[0].network.layout.shape
    (1008, 1, 'layer proj : head dim : model', (4, 4, 6, 16, 96))
    """
    request = resolve(
        Request(
            *(layout, parameterization, rank, published, budget, options, split, on_mismatch, scale, alpha, start),
            *(rule, train, tasks, {} if rates is None else rates, {} if rank_pattern is None else rank_pattern),
            *(projections,),
        )
    )
    targets = _sites(sites, request)
    biases = _bias_widths(targets, request.biases)
    groups = _groups(request, targets, sum(width for _, width in biases))
    trained = with_heads(sites, (*request.train, *request.row_train), targets)
    planned = Plan(
        *(name_of(request.parameterization), groups, request.scale, request.alpha, request.start, rule, trained),
        *(
            count_trained(sites, trained, request.published),
            request.budget,
            request.published,
            tuple(request.tasks),
            biases,
        ),
        *(getattr(targets, "skipped", ()), getattr(targets, "source", ""), request.parameterization),
    )
    _check(planned, request)
    return planned


def _sites(sites: Any, request: Request) -> Sequence[Site]:
    if isinstance(sites, Site):
        sites = [sites]
    # containers of modules and transformers' configs iterate too
    is_source = hasattr(sites, "named_modules") or hasattr(sites, "model_type")
    if isinstance(sites, Iterable) and not is_source:
        given: Any = sites if isinstance(sites, Sites) else _listed(sites)
        if len(given) == 0 or not all(isinstance(site, Site) for site in given):
            raise TensorAdaptError(
                "the sites are empty or hold something else; expected what find_sites(model) returns, or a model"
            )
        if request.projections is not None:
            raise TensorAdaptError(
                f"projections={request.projections!r} was given with sites; give plan the model, "
                "or give find_sites the projections"
            )
        name, n = Counter(site.name for site in given).most_common(1)[0]
        if n > 1:
            raise TensorAdaptError(f"site {name} is given {n} times; expected each site once")
        return given
    row = request.published
    with located(f"published={row!r} is not defined on this model") if row else nullcontext():
        return find_sites(sites, **request.targets)


def _listed(sites: Iterable[Any]) -> tuple[Any, ...]:
    """The items of an iterable, up to the first that is no site."""
    found = []
    with suppress(TypeError):  # arrays without axes
        for item in sites:
            found.append(item)
            if not isinstance(item, Site):
                break
    return tuple(found)


def _bias_widths(sites: Iterable[Site], projections: Sequence[str]) -> tuple[tuple[str, int], ...]:
    """Return the width of each projection's shared bias."""
    widths: dict[str, int] = {}
    for site in sites:
        proj = str(site.coord.get("proj"))
        if proj in projections:
            widths[proj] = max(widths.get(proj, 0), site.rows[1] if site.rows else site.out)
    return tuple(widths.items())


def _groups(request: Request, sites: Sequence[Site], n_biases: int) -> tuple[Group, ...]:
    layouts: list[Any] = [request.layouts] if isinstance(request.layouts, str) else list(request.layouts)
    if getattr(request.builder.parameterization, "square", False):
        _refuse_rectangular(name_of(request.parameterization), sites)
    asked = request.split, request.on_mismatch, request.tasks, request.published, request.one_shape
    tensors = tied_sites(sites, layouts, *asked)
    n_magnitudes = sum(row_block.out for row_block in row_blocks(sites)) if request.rule == "dora" else 0
    nets = _networks(request, tensors, n_biases + n_magnitudes)
    _check_rates(request.rates, nets.values())
    chosen = with_rank_pattern(request.builder, tensors, nets, request.rank_pattern)
    return tuple(Group(network, members) for network, (_, members) in zip(chosen, tensors, strict=True))


def _refuse_rectangular(name: str, sites: Sequence[Site]) -> None:
    """Raise for matrices that no split can fold alike on both sides."""
    odd = {site.coord.get("proj"): site for site in reversed(sites) if site.out != site.in_}
    if odd:
        site = [*odd.values()][-1]
        even = tuple(dict.fromkeys(str(s.coord["proj"]) for s in sites if s.coord.get("proj") not in (None, *odd)))
        advice = f"Adapt projections={even}, or take" if even else "Take"
        raise TensorAdaptError(
            f"site {site.name} is {site.out} x {site.in_}, and {name} takes square matrices alone. {advice} another "
            'parameterization, such as "tt_matrix", which folds sides of different widths'
        )


def _networks(request: Request, tensors: Sequence[Tied], n_extra: int) -> dict[Layout, Network]:
    sites = {layout: members[0].site.name for layout, members in reversed(tensors)}
    kinds = Counter(layout for layout, _ in tensors)
    first = tensors[0][0]
    with located(f"site {sites[first]}"):
        request.builder.build(first, 1)  # whose error is one of the options
    if request.budget is not None:
        return within_budget(request.builder, kinds, request.budget, sites, n_extra)
    return networks(request.builder, kinds, request.rank, sites)


def _check_rates(rates: Mapping[str, float], nets: Iterable[Network]) -> None:
    trained = list(dict.fromkeys(f.name for network in nets for f in network.factors if f.trainable))
    if unknown := [name for name in rates if name not in trained]:
        raise TensorAdaptError(f"rates names {unknown[0]!r}, no trained factor{did_you_mean(unknown[0], trained)}")


def _check(planned: Plan, request: Request) -> None:
    """Raise unless the start can be computed and the adapter is no larger than its matrices."""
    decomposes = callable(getattr(request.builder.parameterization, "decompose", None))
    if planned.needs_weights and planned.start != "gradient" and not decomposes:
        raise TensorAdaptError(
            f"parameterization {planned.parameterization!r} takes factors from the base weights and has no decompose; "
            "add decompose(network, tensor, seed) that returns them"
        )
    ranked = any(group.rank for group in planned.groups) or not request.split
    smaller = "lower the rank or the budget" if ranked else "split the widths into more, and more equal, parts"
    if planned.n_params > planned.n_dense:  # as many are dense: the ceiling
        raise (TensorAdaptError if planned.budget is None else BudgetError)(
            f"the adapter would have {planned.n_params:,} parameters, and the {len(planned.sites)} matrices themselves "
            f"have only {planned.n_dense:,}; {smaller}, or tie more modes"
        )
