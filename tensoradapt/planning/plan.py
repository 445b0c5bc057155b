"""Plan: sites + layout + parameterization + rank -> which tensors will exist, and which site reads which slice.

Everything that shapes decide is checked when planning, before anything is allocated or changed. No torch.
"""

from __future__ import annotations

import math
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any, NoReturn

from tensoradapt.habits import PLAN, no_attribute
from tensoradapt.networks import mapped, starts
from tensoradapt.networks.layout import Layout
from tensoradapt.networks.network import Network
from tensoradapt.networks.varied import hows, modes
from tensoradapt.planning.resolve import FilledSpec
from tensoradapt.planning.scale import is_matched
from tensoradapt.planning.site_ways import regimes
from tensoradapt.published import every
from tensoradapt.published.registry import same_as
from tensoradapt.sites.site import RowBlock, Site, folded_name, folded_reasons, ranges, row_blocks
from tensoradapt.text import Rank, align, bonds_text, count_text, cut, displayed, screen

REPEATED = frozenset(("layer", "expert"))  # whose projections are folded into one row of the printed plan
WAYS = "How a layer is computed in training (fp32), by tokens in the batch (R: rank of A and B):"
NO_LIST = "a Plan is no list; type plan.sites for its matrices, plan.groups for its tensors"
KINDS = 8  # so many kinds of groups are shown of a plan; ``print`` has all


@dataclass(frozen=True)
class Member:
    """A site and its slice of the tensor; ``transposed`` where the layout transposes its stored matrix."""

    site: Site
    at: Mapping[str, int | range]
    transposed: bool


@dataclass(frozen=True)
class Group:
    """One tensor: its network, and the sites that read slices of it."""

    network: Network
    members: tuple[Member, ...]

    @property
    def rank(self) -> Rank:
        """The rank used, after clipping; what ``count`` takes."""
        return self.network.rank

    @cached_property
    def pairs_are_small(self) -> bool:
        """Whether the pair of a site is less than half as large as its matrix."""
        out, in_ = self.network.layout.out, self.network.layout.in_
        return 2 * self.network.cut.rank * (out + in_) < out * in_

    def __repr__(self) -> str:
        layout, n_params = self.network.layout, self.network.n_params
        read = f"rank {bonds_text(self.rank)}, {count_text(len(self.members), 'site')}, {n_params:,} parameters"
        return cut(f"Group({str(layout)!r}, {_sizes_text(layout)}, {read})")


@dataclass(frozen=True)
class Plan:
    """The work for ``attach``, as ``plan`` decides it. Print it to see every matrix and its slice.

    ``n_params`` are adapter numbers; ``n_trained_base`` base numbers trained in place. Raises nothing by itself. An
    example is in docs/start/first-run.md.

    Attributes:
        spec: what was asked for, with the method's settings and the defaults filled in.
        groups: one for each tensor: its network (sizes, factors, ranks), and its sites with their slices.
        train: names of the base modules that are trained in place; "auto" where only the attached model knows.
        n_trained_base: numbers of base modules in ``train``; None where only the attached model knows.
        biases: name and size of the shared biases that a published adapter trains.
        skipped: modules that are not adapted, each with the reason; None for a plan that was saved.
        source: where the sites come from.

    >>> import tensoradapt as ta
    >>> made = ta.plan("tiny-random-bert", "cp", rank=2)
    >>> made.n_params, made.spec.layout, len(made.groups)
    (82, ('layer proj : head dim : model', 'layer proj : ff : model'), 1)
    """

    spec: FilledSpec
    groups: tuple[Group, ...]
    train: tuple[str, ...] = ()
    n_trained_base: int | None = 0  # None: known when attached
    biases: tuple[tuple[str, int], ...] = ()  # shared by all layers: projection and width
    skipped: tuple[tuple[str, str], ...] | None = field(default=(), compare=False)
    source: str = ""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # copies, pickles and notebooks look for methods that a plan lacks
            raise AttributeError(name)
        raise no_attribute("a Plan", name, PLAN, dir(self))

    def __len__(self) -> int:
        raise TypeError(NO_LIST)

    def __getitem__(self, item: Any) -> NoReturn:
        raise TypeError(NO_LIST)

    def __bool__(self) -> bool:
        return True

    @property
    def parameterization(self) -> str:
        """The name of the parameterization that the method factors its tensors by."""
        return _factored_by(self.spec.name)

    @property
    def factoring(self) -> Any:
        """The parameterization itself: the object that was given as method, until ``attach``, or else its name."""
        return self.parameterization if isinstance(self.spec.method, str) else self.spec.method

    @property
    def paper(self) -> str | None:
        """The name of the published adapter whose targets, scale and modules are those of its paper."""
        return self.spec.name if self.spec.paper else None

    @property
    def scale(self) -> str | float:
        """The scale of the tensors: the name of a rule, or a number."""
        return self.spec.scale

    def multiplier(self, network: Network, site: Site) -> float:
        """Return what a site's update is multiplied by, beside its tensor's scale.

        A matched scale is that of a matrix of the site's own width. Whatever needs this number reads it here.
        """
        return math.sqrt(network.layout.in_ / site.in_) if is_matched(self.scale) else 1.0

    @property
    def start(self) -> str:
        """How the factors start."""
        return self.spec.start

    @property
    def begins(self) -> starts.Start:
        """What the start does, and what it reads of the model."""
        return starts.get(self.start)

    @property
    def sites(self) -> tuple[Site, ...]:
        return tuple({member.site.name: member.site for group in self.groups for member in group.members}.values())

    @property
    def n_params(self) -> int:
        return self.n_factors + self.n_biases + self.n_magnitudes

    @property
    def n_factors(self) -> int:
        """The number of trained entries of factors, or of the numbers that a map makes them of; in ``n_params``."""
        networks = [group.network for group in self.groups]
        if isinstance(self.spec.map, Mapping):
            return mapped.count(self.spec.map, networks)
        return sum(network.n_params for network in networks)

    @property
    def n_biases(self) -> int:
        """The number of parameters in shared biases, a part of ``n_params``."""
        return sum(width for _, width in self.biases)

    @property
    def row_blocks(self) -> tuple[RowBlock, ...]:
        """The blocks of rows of stored matrices that DoRA scales; empty with another rule."""
        return row_blocks(self.sites) if self.spec.rule == "dora" else ()

    @property
    def n_magnitudes(self) -> int:
        """The number of DoRA's lengths of rows, a part of ``n_params``."""
        return sum(row_block.out for row_block in self.row_blocks)

    @property
    def n_base(self) -> int:
        """The number of frozen values, from the base weights or given: stored, but not in ``n_params``."""
        return sum(group.network.n_base for group in self.groups)

    @property
    def n_dense(self) -> int:
        """The number of entries in all adapted matrices."""
        return sum(site.out * site.in_ for site in self.sites)

    @property
    def needs_weights(self) -> bool:
        """Whether the start needs the base model's values: singular bases, first gradients, or inputs of layers."""
        return bool(self.begins.reads) or any(f.source == "base" for g in self.groups for f in g.network.factors)

    def __str__(self) -> str:
        return plan_text(self)

    def __repr__(self) -> str:
        return screen(plan_text(self, KINDS))

    def _repr_html_(self) -> str:
        return displayed(self)


def _factored_by(name: str) -> str:
    return next((row.parameterization for row in every() if row.name == name), name)


def _origin(plan: Plan) -> str:
    sources = {f.source for g in plan.groups for f in g.network.factors if not f.trainable}
    base = f"from {plan.begins.origin}"
    return " and ".join(text for kind, text in (("base", base), ("given", "given")) if kind in sources)


def plan_text(plan: Plan, most: int | None = None, room: int | None = None) -> str:
    """Return the plan as a text table, one line per projection (layers are folded).

    Args:
        plan: the plan.
        most: how many kinds of tensors are shown; by default all.
        room: the characters of a line; by default as many as it takes.
    """
    head = [part for line in plan_head(plan) for part in (textwrap.wrap(line, room) if room else [line])]
    sites, ways = align(site_rows(plan), room), align(_ways(plan), room)
    title = textwrap.wrap(WAYS, room) if room else [WAYS]
    tensors, skipped = tensor_table(plan.groups, most, room), _skipped(plan, room)
    return "\n".join([*head, "", *tensors, "", *sites, "", *title, *ways, *skipped])


def plan_head(plan: Plan) -> list[str]:
    share = 100 * plan.n_params / plan.n_dense
    alpha = f" (alpha {plan.spec.alpha:g})" if plan.spec.alpha is not None else ""
    head = [
        f"{plan.spec.name}{' as in its paper' if plan.paper else ''} over {len(plan.sites)} matrices "
        f"({plan.source or 'given sites'}): {plan.n_params:,} parameters, {share:.3g} % of their {plan.n_dense:,}",
        f"scale {plan.scale}{alpha}, start {plan.start}, rule {plan.spec.rule}, {needed(plan)}",
    ]
    return [*head, *_method_notes(plan), *_count_notes(plan), *_trained_notes(plan)]


def needed(plan: Plan) -> str:
    """Say what the start needs of the model."""
    batches = " and attach(..., batches=)" if plan.begins.needs_batches else ""
    return f"needs the base weights{batches}" if plan.needs_weights else "needs no base weights"


def _method_notes(plan: Plan) -> Iterator[str]:
    """Say what the method is the same as, and where rank or paper do not set what is here."""
    if not plan.paper and plan.scale != "paper" and (others := same_as(plan.spec.name)):
        yield f"with these settings the same as {', '.join(others)}; paper=True takes the settings of its paper"
    if plan.spec.rank is not None and not any(group.rank for group in plan.groups):
        yield f"no bond takes the rank {bonds_text(plan.spec.rank)}: the layout, its split and the options set the size"
    if plan.paper and (n := len({_tied(group) for group in plan.groups})) < len(plan.groups):
        yield f"split by shape: {len(plan.groups)} tensors where {plan.paper} has {n}; not the paper's count"


def _count_notes(plan: Plan) -> Iterator[str]:
    """Say what the number of parameters counts beside factors, and what is stored but not counted."""
    if (budget := plan.spec.budget) is not None:
        yield f"budget {budget:,}: reached {plan.n_params:,}, {budget - plan.n_params:,} unused"
    if plan.n_biases:
        named = ", ".join(proj for proj, _ in plan.biases)
        yield f"of these, {plan.n_biases:,} in biases of {named} that all layers share"
    if plan.n_magnitudes:
        yield f"of these, {plan.n_magnitudes:,} lengths of the weights' rows (DoRA)"
    if plan.n_base:
        yield f"frozen bases {_origin(plan)}: {plan.n_base:,} numbers, stored and not trained"
    yield from _variations(plan.spec)
    if isinstance(plan.spec.map, Mapping):
        [(kind, n)] = plan.spec.map.items()
        made = f"{sum(group.network.n_params for group in plan.groups):,} entries of factors"
        yield f"map {kind} of {n:,}: {made} are made of {plan.n_factors:,} trained numbers"
    elif plan.begins.update == "subtract":
        held = f"{plan.n_factors:,} numbers besides"
        yield f"the start is subtracted: {held}, stored and not trained"


def _variations(spec: FilledSpec) -> Iterator[str]:
    """Say which factors were frozen and shared by ``frozen`` and ``shared``."""
    if spec.frozen:
        yield f"frozen: {', '.join(f'{name} ({how})' for name, how in hows(spec.frozen).items())}"
    for name, left in modes(spec.shared).items():
        yield f"shared: {name} over {', '.join(left)}"


def _trained_notes(plan: Plan) -> Iterator[str]:
    """Say which tasks there are, and what is trained in place."""
    for mode, names in plan.spec.runtime.items():
        yield f"{mode}s: {', '.join(names)}; adapter.select({mode}=...) chooses"
    if plan.train == ("auto",):
        yield "trained in place: the head, if the model is a transformers classifier (not in the figure above)"
    elif plan.train:
        count = "counted when attached" if plan.n_trained_base is None else f"{plan.n_trained_base:,} parameters"
        yield f"trained in place: {', '.join(plan.train)} ({count}, not in the figure above)"


def _tied(group: Group) -> tuple[Any, ...]:
    """Return what the groups of one tensor that was split by shape share: their layout and free coordinates."""
    layout = group.network.layout
    index = {name for mode in layout.index for name in (mode.parts or (mode.name,))}
    return str(layout), tuple(coord for coord in group.members[0].site.coords if coord[0] not in index)


def tensor_table(groups: Iterable[Group], most: int | None = None, room: int | None = None) -> list[str]:
    """Return the lines of a table of tensors, with at most so many kinds of them."""
    rows, left = tensor_rows(groups, most)
    return [*align(rows, room), *filter(None, [left])]


def tensor_rows(groups: Iterable[Group], most: int | None) -> tuple[list[tuple[str, ...]], str]:
    """Return the rows of that table, and a text of what is left out."""
    nets = [(group.network, bonds_text(group.rank)) for group in groups]
    kinds = Counter((network.layout, rank, network.n_params, network.cut.rank) for network, rank in nets)
    rows: list[tuple[str, ...]] = [("tensors", "layout", "sizes", "rank", "R", "parameters each")]
    for (layout, rank, n_params, crossing), n in [*kinds.items()][:most]:
        rows.append((str(n), str(layout), _sizes_text(layout), rank, str(crossing), f"{n_params:,}"))
    left = kinds.total() - sum(int(n) for n, *_ in rows[1:])
    return rows, f"... and {count_text(left, 'more group')}" if left else ""


def _sizes_text(layout: Layout) -> str:
    return " x ".join(map(str, layout.shape))


def site_rows(plan: Plan) -> list[tuple[str, ...]]:
    """Return the rows of a table of the sites; layers of a projection that read alike are one row."""
    folded: dict[tuple[str, ...], list[Any]] = {}
    for number, group in enumerate(plan.groups):
        over_layers = _over_layers(group.network.layout)
        for member in group.members:
            at = " ".join(f"{k}={_slice(v)}" for k, v in member.at.items() if k not in over_layers)
            joint = {k: v for k, v in member.at.items() if k in over_layers - REPEATED}
            side = "transposed" if member.transposed else "as stored"
            size = f"{member.site.out} x {member.site.in_}"
            key = (folded_name(member.site.name), size, at, side, str(group.network.cut.rank))
            folded.setdefault(key, []).append((member.site.coord.get("layer"), number, joint))
    rows: list[tuple[str, ...]] = [("site", "out x in", "slice", "orientation", "R", "layers", "tensor")]
    for (name, size, at, *others), readers in folded.items():
        tensors = {number for _, number, _ in readers}
        tensor = "each its own" if len(tensors) == len(readers) > 1 else ranges(tensors)
        layers = {layer for layer, _, _ in readers} - {None}  # a module outside the layers has none
        slices = " ".join(filter(None, (at, *_joint([joint for _, _, joint in readers]))))
        rows.append((name, size, slices, *others, ranges(layers) or "-", tensor))
    return rows


def _ways(plan: Plan) -> list[tuple[str, ...]]:
    """Return a table of how a linear layer's products are computed in training, for each shape and rank."""
    ranks: Counter[Site] = Counter()
    for group in plan.groups:
        ranks.update({member.site: group.network.cut.rank for member in group.members})
    kinds = {(site.out, site.in_, rank) for site, rank in ranks.items()}
    rows: list[tuple[str, ...]] = [("out x in", "R", "tokens", "products")]
    for out, in_, rank in sorted(kinds):
        found = regimes(rank, (out, in_))
        ends = [f" to {after - 1:,}" if after > start + 1 else "" for (start, _), (after, _) in pairwise(found)]
        for (start, way), end in zip(found, [*ends, " or more"], strict=True):
            rows.append((f"{out} x {in_}", str(rank), f"{start:,}{end}", str(way)))
    return rows


def _over_layers(layout: Layout) -> set[str]:
    """Return the index modes of a layout that tell layers or experts apart, alone or joined with others."""
    return {mode.name for mode in layout.index if REPEATED & {mode.name, *mode.parts}}


def _joint(readers: list[dict[str, Any]]) -> list[str]:
    """Return texts of a projection's slices of joined modes over its layers: the first two and the last."""
    texts = {name: list(dict.fromkeys(_slice(at[name]) for at in readers if name in at)) for name in readers[0]}
    shorter = {name: [*each[:2], "...", each[-1]] if len(each) > 3 else each for name, each in texts.items()}
    return [f"{name}={', '.join(each)}" for name, each in shorter.items()]


def _slice(value: int | range) -> str:
    return str(value) if isinstance(value, int) else f"{value.start}:{value.stop}"


def skipped_rows(plan: Plan) -> list[tuple[str, str]]:
    """Return what was found and is not adapted, and why; names of layers are folded."""
    return folded_reasons((name, why) for name, why in plan.skipped or () if name not in plan.train)


def _skipped(plan: Plan, room: int | None = None) -> list[str]:
    rows = skipped_rows(plan)
    lines = align([("module", "why"), *rows], room and room - 2)[1:]
    return ["", "skipped:", *(f"  {line}" for line in lines)] if rows else []
