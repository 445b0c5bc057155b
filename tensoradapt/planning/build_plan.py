"""plan(): from sites and an AdapterSpec to a Plan."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace
from typing import Any

from tensoradapt.errors import BudgetError, TensorAdaptError, did_you_mean, located
from tensoradapt.files import is_folder
from tensoradapt.networks import mapped
from tensoradapt.networks.layout import Layout
from tensoradapt.networks.network import Network
from tensoradapt.networks.starts import check_start, direct
from tensoradapt.networks.varied import check_names, hows, modes
from tensoradapt.planning.grouping import Tied, tied_sites
from tensoradapt.planning.plan import Group, Plan
from tensoradapt.planning.ranks import networks, with_rank_pattern, within_budget
from tensoradapt.planning.resolve import FilledSpec, Resolved, resolve
from tensoradapt.planning.spec import AdapterSpec, by_place
from tensoradapt.planning.trained_modules import count_trained, with_heads
from tensoradapt.published.registry import known
from tensoradapt.records import sugared
from tensoradapt.sites.find import config_of, find_sites
from tensoradapt.sites.site import Site, Sites, row_blocks


def build_plan(sites: Any, spec: AdapterSpec) -> Plan:
    """Plan one adapter: which tensors there are, and which slice each weight matrix reads.

    Takes an ``AdapterSpec``, or its fields as arguments; of the first two texts the one with colons is the layout.

    Args:
        sites: from ``find_sites``, or a model, its config, or its name or folder as on the command line (its attention,
            or the targets of the paper).
        {fields}

    Raises:
        TensorAdaptError: for everything that shapes and names decide.

    Returns:
        The plan, from shapes alone: no weights are read and nothing is allocated.

    >>> import tensoradapt as ta
    >>> from transformers import BertConfig
    >>> config = BertConfig(hidden_size=96, num_attention_heads=6, num_hidden_layers=4)
    >>> made = ta.plan(config, "cp", "layer proj : head dim : model", rank=8)
    >>> made.n_params, len(made.groups), str(made.groups[0].network.layout), made.groups[0].network.layout.shape
    (1008, 1, 'layer proj : head dim : model', (4, 4, 6, 16, 96))
    """
    _refuse_swapped(sites, spec.method)
    sites, resolved = config_of(sites), resolve(spec)
    targets, resolved = _sites(sites, resolved, spec)
    biases = _bias_widths(targets, resolved.row.biases if resolved.row and spec.paper else ())
    groups = _groups(resolved, targets, sum(width for _, width in biases))
    trained = with_heads(sites, resolved.spec.train, targets)
    n_trained = count_trained(sites, trained, resolved.paper)
    skipped, source = getattr(targets, "skipped", ()), getattr(targets, "source", "")
    resolved = replace(resolved, spec=_with_map(resolved, groups, sum(width for _, width in biases), targets))
    # an object stays in the spec until ``attach``, which may need it to start factors from weights
    kept = resolved.spec if isinstance(spec.method, str) else replace(resolved.spec, method=spec.method)
    planned = Plan(kept, groups, trained, n_trained, biases, skipped, source)
    _check(planned, resolved)
    return planned


plan = sugared("plan", AdapterSpec, build_plan, by_place)


def _refuse_swapped(sites: Any, method: Any) -> None:
    """Raise for a method that stands where the model belongs."""
    if isinstance(sites, str) and (hasattr(method, "named_modules") or hasattr(method, "model_type")):
        second = f" and the method a {type(method).__name__}"
    elif isinstance(sites, str) and known(sites) and not is_folder(sites):
        second = ", which is a method"
    else:
        return
    raise TensorAdaptError(
        f"the model is {sites!r}{second}; expected the model first, as in plan(model, {sites!r}, rank=8)"
    )


def _sites(sites: Any, resolved: Resolved, asked: AdapterSpec) -> tuple[Sequence[Site], Resolved]:
    """Return the sites, and what is resolved without projections where sites were given."""
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
        if asked.projections:
            raise TensorAdaptError(
                f"projections={asked.projections!r} was given with sites; give plan the model, "
                "or give find_sites the projections"
            )
        name, n = Counter(site.name for site in given).most_common(1)[0]
        if n > 1:
            raise TensorAdaptError(f"site {name} is given {n} times; expected each site once")
        return given, replace(resolved, spec=replace(resolved.spec, projections=()))
    blocks = resolved.row is not None and resolved.row.blocks
    with located(f"{resolved.spec.name} is not defined on this model") if resolved.row else nullcontext():
        return find_sites(sites, resolved.spec.projections, blocks=blocks), resolved


def _listed(sites: Iterable[Any]) -> tuple[Any, ...]:
    """Return the items of an iterable as a tuple that ends after the first item that is no site."""
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


def _groups(resolved: Resolved, sites: Sequence[Site], n_biases: int) -> tuple[Group, ...]:
    spec, one_shape = resolved.spec, resolved.row is not None and resolved.row.one_shape
    if getattr(resolved.builder.parameterization, "square", False):
        _refuse_rectangular(resolved.row.parameterization if resolved.row else spec.name, sites)
    tensors = tied_sites(sites, spec, one_shape, getattr(resolved.builder.parameterization, "near", (1, 1)))
    nets = _networks(resolved, tensors, n_biases + _n_magnitudes(spec, sites))
    _check_factors(resolved, nets)
    chosen = with_rank_pattern(resolved.builder, tensors, nets, spec.rank_pattern)
    return tuple(Group(network, members) for network, (_, members) in zip(chosen, tensors, strict=True))


def _n_magnitudes(spec: AdapterSpec, sites: Sequence[Site]) -> int:
    return sum(row_block.out for row_block in row_blocks(sites)) if spec.rule == "dora" else 0


def _with_map(resolved: Resolved, groups: Sequence[Group], n_biases: int, sites: Sequence[Site]) -> FilledSpec:
    """Return the spec with the size of its map; unchanged without one."""
    spec, nets = resolved.spec, [group.network for group in groups]
    if spec.map is None:
        return spec
    mapped.refuse_starts(spec.map, nets, spec.start)
    left = None if spec.budget is None else spec.budget - n_biases - _n_magnitudes(spec, sites)
    default = resolved.row.map if resolved.row else {}
    return replace(spec, map=mapped.sized(spec.map, default, nets, left))


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


def _networks(resolved: Resolved, tensors: Sequence[Tied], n_extra: int) -> dict[Layout, Network]:
    sites = {layout: members[0].site.name for layout, members in reversed(tensors)}
    kinds = Counter(layout for layout, _ in tensors)
    first = tensors[0][0]
    with located(f"site {sites[first]}"):
        resolved.builder.build(first, 1)  # whose error is one of the options
    if resolved.spec.budget is not None and resolved.spec.map:
        rank = mapped.RANK if resolved.spec.rank is None else resolved.spec.rank
        if not resolved.builder.clip and resolved.spec.rank is None:
            rank = min(resolved.builder.largest(layout, mapped.RANK) for layout in kinds)
        return networks(resolved.builder, kinds, rank, sites)
    if resolved.spec.budget is not None:
        return within_budget(resolved.builder, kinds, resolved.spec.budget, sites, n_extra)
    return networks(resolved.builder, kinds, resolved.spec.rank, sites)


def _check_factors(resolved: Resolved, nets: Mapping[Layout, Network]) -> None:
    """Raise for names of factors that no tensor has, in ``frozen``, ``shared`` or ``rates``."""
    spec, variant = resolved.spec, resolved.builder.parameterization
    if spec.frozen or spec.shared:
        before = replace(resolved.builder, parameterization=replace(variant, frozen={}, shared={}))
        plain = [before.build(layout, net.rank or 1) for layout, net in nets.items()]
        check_names(plain, hows(spec.frozen), modes(spec.shared))
    _check_rates(spec.rates, nets.values())


def _check_rates(rates: Mapping[str, float], nets: Iterable[Network]) -> None:
    trained = list(dict.fromkeys(f.name for network in nets for f in network.factors if f.trainable))
    if unknown := [name for name in rates if name not in trained]:
        raise TensorAdaptError(f"rates names {unknown[0]!r}, no trained factor{did_you_mean(unknown[0], trained)}")


def _refuse_shared_starts(planned: Plan, resolved: Resolved) -> None:
    """Raise for a shared factor that would start from weights or gradients, which are decomposed matrix by matrix."""
    shared = getattr(resolved.builder.parameterization, "shared", {})
    for factor in (f for group in planned.groups for f in group.network.factors if f.name in shared):
        if factor.source == "base" or planned.start == "gradient":
            what = "the base weights" if planned.begins.reads in ("", "weights") else planned.begins.origin
            raise TensorAdaptError(
                f"factor {factor.name!r} is shared over {', '.join(shared[factor.name])} and would start from {what}, "
                "which decompose takes apart without sharing; leave shared= out, or choose start='zero' of a method "
                "whose factors are drawn"
            )


def _check_starts(planned: Plan) -> None:
    """Raise for a start that has no values for a tensor, or that a rule changes."""
    for group in planned.groups:
        widths = {width for member in group.members for width in (member.site.out, member.site.in_)}
        turned = any(member.transposed for member in group.members)
        check_start(group.network, planned.start, widths, turned, group.members[0].site.name)
    if planned.begins.nearest and planned.spec.rule == "hira":
        raise TensorAdaptError(
            f"start={planned.start!r} is a step of full fine-tuning, and rule='hira' multiplies it by the weight; "
            "plan with rule='add', or with start='zero'"
        )
    if planned.spec.start_rate is not None and not planned.begins.nearest:
        raise TensorAdaptError(
            f"start_rate={planned.spec.start_rate:g} was given with start={planned.start!r}; expected start='lora-sb', "
            "or no start_rate"
        )


def _check(planned: Plan, resolved: Resolved) -> None:
    """Raise unless the start can be computed and the adapter is no larger than its matrices."""
    _refuse_shared_starts(planned, resolved)
    _check_starts(planned)
    decomposes = callable(getattr(resolved.builder.parameterization, "decompose", None))
    made = decomposes or bool(planned.begins.reads) or all(direct(group.network) for group in planned.groups)
    if planned.needs_weights and not made:
        raise TensorAdaptError(
            f"parameterization {planned.parameterization!r} takes factors from the base weights and has no decompose; "
            "add decompose(network, tensor, seed) that returns them"
        )
    ranked = any(group.rank for group in planned.groups) or not resolved.spec.split
    smaller = "lower the rank or the budget" if ranked else "split the widths into more, and more equal, parts"
    tasks = planned.spec.n_tasks
    if planned.n_params > tasks * planned.n_dense:  # as many are dense: the ceiling
        each = f" for each of {tasks} tasks" if tasks > 1 else ""
        raise (TensorAdaptError if planned.spec.budget is None else BudgetError)(
            f"the adapter would have {planned.n_params:,} parameters, and the {len(planned.sites)} matrices themselves "
            f"have only {planned.n_dense:,}{each}; {smaller}, or tie more modes"
        )
