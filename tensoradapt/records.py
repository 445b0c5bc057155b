"""Plans as plain records for JSON, and back. Strict: a record that is not one of ours is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from tensoradapt.errors import TensorAdaptError
from tensoradapt.grouping import Member
from tensoradapt.modes import Layout
from tensoradapt.network import Factor, Network
from tensoradapt.plan import Group, Plan
from tensoradapt.sites import Site

PLAN = (
    "parameterization",
    "scale",
    "alpha",
    "start",
    "rule",
    "train",
    "n_trained_base",
    "budget",
    "published",
    "source",
    "tasks",
    "biases",
)


def plan_record(plan: Plan) -> dict[str, Any]:
    """A plan in JSON's types; equal networks are stored once."""
    networks = list(dict.fromkeys(group.network for group in plan.groups))
    groups = [[networks.index(g.network), [_member(m) for m in g.members]] for g in plan.groups]
    return {
        **{name: getattr(plan, name) for name in PLAN},
        "networks": [_network(n) for n in networks],
        "groups": groups,
    }


def plan_from_record(record: Any, path: Path) -> Plan:
    """The plan of a record; TensorAdaptError naming ``path`` for anything that is not one."""
    try:
        if set(record) != {*PLAN, "networks", "groups"}:
            raise ValueError(f"keys {sorted(set(record) ^ {*PLAN, 'networks', 'groups'})} too many or too few")
        networks = [_read_network(**n) for n in record["networks"]]
        groups = tuple(Group(networks[i], tuple(_read_member(*m) for m in members)) for i, members in record["groups"])
        values = {name: record[name] for name in PLAN}
        lists = {name: tuple(values[name]) for name in ("train", "tasks")}
        biases = tuple((str(proj), int(width)) for proj, width in values["biases"])
        return Plan(groups=groups, **{**values, **lists, "biases": biases})
    except (TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
        raise TensorAdaptError(
            f"{path} does not hold a plan ({type(error).__name__}: {error}); the checkpoint is damaged, save it again"
        ) from None


def _network(network: Network) -> dict[str, Any]:
    factors = [[getattr(factor, field.name) for field in fields(Factor)] for factor in network.factors]
    layout = [str(network.layout), network.layout.sizes]
    return {
        "layout": layout,
        "factors": factors,
        "bonds": dict(network.bonds),
        "alpha": network.alpha,
        "divisor": network.divisor,
        "derived": list(network.derived),
    }


def _read_network(
    *, layout: Any, factors: Any, bonds: Mapping[str, int], alpha: float, divisor: float, derived: Any
) -> Network:
    made = tuple(
        Factor(name, tuple(labels), init, paper and tuple(paper), *rest) for name, labels, init, paper, *rest in factors
    )
    return Network(Layout.parse(*layout), made, bonds, alpha, divisor, tuple(derived))


def _member(member: Member) -> list[Any]:
    site = member.site
    at = {k: v if isinstance(v, int) else [v.start, v.stop] for k, v in member.at.items()}
    own_name = "" if site.name == site.module else site.name  # most names repeat the module's
    return [
        own_name,
        site.module,
        site.coord,
        site.out,
        site.in_,
        dict(site.inner),
        site.reads,
        site.rows,
        site.cols,
        at,
        member.transposed,
    ]


def _read_member(
    name: str,
    module: str,
    coord: dict,
    out: int,
    in_: int,
    inner: dict,
    reads: bool,
    rows: Any,
    cols: Any,
    at: dict,
    transposed: bool,
) -> Member:
    blocks = [block and (block[0], block[1]) for block in (rows, cols)]
    site = Site(name or module, module, tuple(coord.items()), out, in_, tuple(inner.items()), reads, *blocks)
    return Member(site, {k: v if isinstance(v, int) else range(*v) for k, v in at.items()}, transposed)
