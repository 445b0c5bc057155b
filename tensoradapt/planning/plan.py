"""Plan: sites + layout + parameterization + rank -> which tensors will exist, and which site reads which slice.

Everything that shapes decide is checked when planning, before anything is allocated or changed. No torch.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from tensoradapt.networks.layout import Layout
from tensoradapt.networks.network import Network
from tensoradapt.planning.site_ways import regimes
from tensoradapt.sites.site import RowBlock, Site, row_blocks
from tensoradapt.text import Rank, align, bonds_text

STARTS = ("zero", "subtract", "paper", "gradient")
RULES = ("add", "dora")
REPEATED = frozenset(("layer", "expert"))  # whose projections are folded into one row of the printed plan


def resolved(network: Network) -> Rank:
    """Return the rank a network was built with: an int for one bond ``r``, else bonds by name without ``r_``.

    It is what the parameterization's ``count`` takes. Derived bonds are left out.
    """
    bonds = {name: n for name, n in network.bonds.items() if name not in network.derived}
    return bonds["r"] if set(bonds) == {"r"} else {name.removeprefix("r_"): n for name, n in bonds.items()}


@dataclass(frozen=True)
class Member:
    """A site and its slice of the tensor; ``transposed`` where the layout transposes its stored matrix."""

    site: Site
    at: Mapping[str, int | range]
    transposed: bool


@dataclass(frozen=True)
class Group:
    """One tensor: its network and the sites that read it."""

    network: Network
    members: tuple[Member, ...]

    @property
    def rank(self) -> Rank:
        """The rank used, after clipping; what ``count`` takes."""
        return resolved(self.network)

    @cached_property
    def pairs_are_small(self) -> bool:
        """Whether the pair of a site is less than half as large as its matrix."""
        out, in_ = self.network.layout.out, self.network.layout.in_
        return 2 * self.network.cut.rank * (out + in_) < out * in_


@dataclass(frozen=True)
class Plan:
    """The work for ``attach``, as ``plan`` decides it. Print it to see every matrix and its slice (docs/start.md).

    ``n_params`` are adapter numbers; ``n_trained_base`` base numbers trained in place. Raises nothing by itself.

    Attributes:
        parameterization, published: the names that were asked for.
        groups: one for each tensor: its network (sizes, factors, ranks), and its sites with their slices.
        scale, alpha, start, rule, train, tasks, budget: as in ``plan``.
        n_trained_base: numbers of base modules in ``train``; None where only the attached model knows.
        biases: name and size of the shared biases that a published row trains.
        skipped: modules that are not adapted, each with the reason.
        source: where the sites come from.
        given_parameterization: an object that was given in place of a name.
    """

    parameterization: str
    groups: tuple[Group, ...]
    scale: str | float = "matched"
    alpha: float | None = None
    start: str = "zero"
    rule: str = "add"
    train: tuple[str, ...] = ()
    n_trained_base: int | None = 0  # None: known when attached
    budget: int | None = None
    published: str | None = None
    tasks: tuple[str, ...] = ()
    biases: tuple[tuple[str, int], ...] = ()  # shared by all layers: projection and width
    skipped: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    source: str = ""
    given_parameterization: Any = field(default=None, repr=False, compare=False)  # name or object; None once attached

    @property
    def sites(self) -> tuple[Site, ...]:
        return tuple(member.site for group in self.groups for member in group.members)

    @property
    def n_params(self) -> int:
        return sum(group.network.n_params for group in self.groups) + self.n_biases + self.n_magnitudes

    @property
    def n_biases(self) -> int:
        """Those of ``n_params`` that are shared biases."""
        return sum(width for _, width in self.biases)

    @property
    def row_blocks(self) -> tuple[RowBlock, ...]:
        """The blocks of rows of stored matrices that DoRA scales; none with another rule."""
        return row_blocks(self.sites) if self.rule == "dora" else ()

    @property
    def n_magnitudes(self) -> int:
        """Those of ``n_params`` that are DoRA's lengths of rows."""
        return sum(row_block.out for row_block in self.row_blocks)

    @property
    def n_base(self) -> int:
        """Frozen numbers taken from the base weights or given: stored, not trained, not in ``n_params``."""
        return sum(group.network.n_base for group in self.groups)

    @property
    def n_dense(self) -> int:
        """Entries of all the matrices that are adapted."""
        return sum(site.out * site.in_ for site in self.sites)

    @property
    def needs_weights(self) -> bool:
        """Whether the start needs the base model's values: singular bases, or the first gradients."""
        return self.start == "gradient" or any(f.source == "base" for g in self.groups for f in g.network.factors)

    def __str__(self) -> str:
        return plan_text(self)


def _origin(plan: Plan) -> str:
    sources = {f.source for g in plan.groups for f in g.network.factors if not f.trainable}
    return " and ".join(text for kind, text in (("base", "from the weights"), ("given", "given")) if kind in sources)


def plan_text(plan: Plan) -> str:
    """Return the plan as a text table, one line per projection (layers are folded)."""
    share = 100 * plan.n_params / plan.n_dense
    alpha = f" (alpha {plan.alpha:g})" if plan.alpha is not None else ""
    head = [
        f"{plan.published or plan.parameterization} over {len(plan.sites)} matrices ({plan.source or 'given sites'}): "
        f"{plan.n_params:,} parameters, {share:.3g} % of their {plan.n_dense:,}",
        f"scale {plan.scale}{alpha}, start {plan.start}, rule {plan.rule}, "
        f"{'needs the base weights' if plan.needs_weights else 'needs no base weights'}",
    ]
    if plan.published and (n := len({_tied(group) for group in plan.groups})) < len(plan.groups):
        head.append(f"split by shape: {len(plan.groups)} tensors where {plan.published} has {n}; not the paper's count")
    if plan.budget is not None:
        head.append(f"budget {plan.budget:,}: reached {plan.n_params:,}, {plan.budget - plan.n_params:,} unused")
    if plan.n_biases:
        named = ", ".join(proj for proj, _ in plan.biases)
        head.append(f"of these, {plan.n_biases:,} in biases of {named} that all layers share")
    if plan.n_magnitudes:
        head.append(f"of these, {plan.n_magnitudes:,} lengths of the weights' rows (DoRA)")
    if plan.n_base:
        head.append(f"frozen bases {_origin(plan)}: {plan.n_base:,} numbers, stored and not trained")
    if plan.start == "subtract":
        held = f"{plan.n_params - plan.n_biases - plan.n_magnitudes:,} numbers besides"
        head.append(f"the start is subtracted: {held}, stored and not trained")
    if plan.tasks:
        head.append(f"tasks: {', '.join(plan.tasks)}; adapter.select(task=...) chooses")
    if plan.train == ("auto",):
        head.append("trained in place: the head, if the model is a transformers classifier (not in the figure above)")
    elif plan.train:
        count = "counted when attached" if plan.n_trained_base is None else f"{plan.n_trained_base:,} parameters"
        head.append(f"trained in place: {', '.join(plan.train)} ({count}, not in the figure above)")
    return "\n".join([*head, "", *_tensors(plan.groups), "", *_sites(plan), "", *_ways(plan), *_skipped(plan)])


def _tied(group: Group) -> tuple[Any, ...]:
    """Return what groups of one tensor that was split by shape have in common: layout and free coordinates."""
    layout = group.network.layout
    index = {name for mode in layout.index for name in (mode.parts or (mode.name,))}
    return str(layout), tuple(coord for coord in group.members[0].site.coords if coord[0] not in index)


def _tensors(groups: Iterable[Group]) -> list[str]:
    nets = [(group.network, bonds_text(group.rank)) for group in groups]
    kinds = Counter((network.layout, rank, network.n_params, network.cut.rank) for network, rank in nets)
    rows: list[tuple[str, ...]] = [("tensors", "layout", "sizes", "rank", "R", "parameters each")]
    for (layout, rank, n_params, cut), n in kinds.items():
        rows.append((str(n), str(layout), " x ".join(map(str, layout.shape)), rank, str(cut), f"{n_params:,}"))
    return align(rows)


def _sites(plan: Plan) -> list[str]:
    """Fold all layers of a projection that read the same way into one row."""
    folded: dict[tuple[str, ...], list[Any]] = {}
    for number, group in enumerate(plan.groups):
        over_layers = _over_layers(group.network.layout)
        for member in group.members:
            at = " ".join(f"{k}={_slice(v)}" for k, v in member.at.items() if k not in over_layers)
            joint = {k: v for k, v in member.at.items() if k in over_layers - REPEATED}
            side = "transposed" if member.transposed else "as stored"
            size = f"{member.site.out} x {member.site.in_}"
            key = (_folded(member.site.name), size, at, side, str(group.network.cut.rank))
            folded.setdefault(key, []).append((member.site.coord.get("layer"), number, joint))
    rows: list[tuple[str, ...]] = [("site", "out x in", "slice", "orientation", "R", "layers", "tensor")]
    for (name, size, at, *others), places in folded.items():
        tensors = {number for _, number, _ in places}
        tensor = "each its own" if len(tensors) == len(places) > 1 else _ranges(tensors)
        layers = {layer for layer, _, _ in places} - {None}  # a module outside the layers has none
        slices = " ".join(filter(None, (at, *_joint([joint for _, _, joint in places]))))
        rows.append((name, size, slices, *others, _ranges(layers) or "-", tensor))
    return align(rows)


def _ways(plan: Plan) -> list[str]:
    """How the products of a linear layer are computed in training, for each shape and rank."""
    kinds = {(m.site.out, m.site.in_, group.network.cut.rank) for group in plan.groups for m in group.members}
    rows: list[tuple[str, ...]] = [("out x in", "R", "from tokens", "a linear layer's products in training (fp32)")]
    for out, in_, rank in sorted(kinds):
        found = regimes(rank, (out, in_))
        rows += [(f"{out} x {in_}", str(rank), f"{tokens:,}", str(way)) for tokens, way in found]
    return align(rows)


def _over_layers(layout: Layout) -> set[str]:
    """The index modes that tell layers or experts apart, alone or joined with others."""
    return {mode.name for mode in layout.index if REPEATED & {mode.name, *mode.parts}}


def _joint(places: list[dict[str, Any]]) -> list[str]:
    """The slices of joined modes over the layers of a projection: the first two and the last."""
    texts = {name: list(dict.fromkeys(_slice(at[name]) for at in places if name in at)) for name in places[0]}
    shorter = {name: [*each[:2], "...", each[-1]] if len(each) > 3 else each for name, each in texts.items()}
    return [f"{name}={', '.join(each)}" for name, each in shorter.items()]


def _folded(name: str) -> str:
    """Return a site's name for all layers, and for all experts of a layer."""
    return re.sub(r"\[\d+[.]", "[*.", re.sub(r"[.]\d+[.]", ".*.", name, count=1))


def _slice(value: int | range) -> str:
    return str(value) if isinstance(value, int) else f"{value.start}:{value.stop}"


def _ranges(numbers: Iterable[Any]) -> str:
    """Write ``0-3, 7`` for 0, 1, 2, 3, 7."""
    runs: list[list[int]] = []
    for n in sorted(set(numbers)):
        if runs and n == runs[-1][1] + 1:
            runs[-1][1] = n
        else:
            runs.append([n, n])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)


def _skipped(plan: Plan) -> list[str]:
    folded = Counter((_folded(name), why) for name, why in plan.skipped if name not in plan.train)
    rows = [(f"  {name}{f' ({n})' if n > 1 else ''}", why) for (name, why), n in folded.items()]
    return ["", "skipped:", *align(rows)] if rows else []
