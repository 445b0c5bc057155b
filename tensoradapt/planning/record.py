"""Plans as plain records for JSON, and back; a record that ``plan_record`` did not write is refused."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from reprlib import repr as short
from typing import Any, cast, get_args

from tensoradapt.errors import TensorAdaptError
from tensoradapt.networks import mapped
from tensoradapt.networks.layout import Layout
from tensoradapt.networks.modes import RUNTIME
from tensoradapt.networks.network import Draws, Factor, Network
from tensoradapt.planning.plan import Group, Member, Plan
from tensoradapt.planning.resolve import FilledSpec
from tensoradapt.planning.spec import AdapterSpec
from tensoradapt.records import as_json, names, read
from tensoradapt.sites.site import Site

TINY = 1e-30  # multipliers, rates and divisors are above zero
FACTORS = 64  # the most in a network; the largest of ours has about twenty
SOURCES = ("draw", "own", "base", "given", "set")  # where the values of a factor can come from
PLAN = ("train", "n_trained_base", "biases", "source")
KEYS = {"spec", *PLAN, "networks", "groups"}


def plan_record(plan: Plan) -> dict[str, Any]:
    """Return a plan in JSON's types; equal networks are stored once."""
    networks = list(dict.fromkeys(group.network for group in plan.groups))
    groups = [[networks.index(g.network), [_member(m) for m in g.members]] for g in plan.groups]
    return {
        "spec": as_json(replace(plan.spec, method=plan.spec.name)),
        **{name: getattr(plan, name) for name in PLAN},
        "networks": [_network(n) for n in networks],
        "groups": groups,
    }


def plan_from_record(record: Any, path: Path) -> Plan:
    """Return the plan of a record; raise TensorAdaptError naming ``path`` for anything that is not one."""
    try:
        odd = sorted((set(record) ^ KEYS) or (set(record["spec"]) ^ {*names(AdapterSpec)}) - _later())
        if odd:
            raise ValueError(f"keys {odd} too many or too few")
        networks = [_read_network(**n) for n in record["networks"]]
        groups = tuple(
            Group(networks[whole(i)], tuple(_read_member(m) for m in members)) for i, members in record["groups"]
        )
        train = tuple(map(text, record["train"]))
        biases = tuple((_name(proj), whole(width, 1)) for proj, width in record["biases"])
        spec = cast(FilledSpec, read(AdapterSpec, record["spec"]))  # as a plan wrote it
        plan = Plan(spec, groups, train, record["n_trained_base"], biases, None, text(record["source"]))
        _check_values(plan)
        _check_members(plan)
        return plan
    # invalid layouts and networks raise TensorAdaptError, which is a ValueError
    except (TypeError, ValueError, KeyError, IndexError, AttributeError, OverflowError) as error:
        raise TensorAdaptError(
            f"{path} does not hold a plan ({type(error).__name__}: {str(error)[:300]}); the checkpoint is "
            "damaged, save it again"
        ) from None


def _later() -> set[str]:
    return {f.name for f in fields(AdapterSpec) if f.metadata["later"]}


def whole(value: Any, least: int = 0) -> int:
    """Check a whole number from ``least``, below the most bytes of a file; booleans are refused."""
    if type(value) is not int or not least <= value < 2**63:
        raise ValueError(f"{short(value)} is not a whole number from {least} to 2**63 - 1")
    return value


def number(value: Any, least: float = -math.inf, below: float = math.inf) -> float:
    """Check a finite number from ``least`` up to, not including, ``below``."""
    huge = type(value) is int and abs(value) >= 2**63  # torch takes no such number
    if type(value) not in (int, float) or huge or not math.isfinite(value) or not least <= value < below:
        raise ValueError(f"{short(value)} is not a finite number from {least} to {below}")
    return value


def text(value: Any) -> str:
    """Check a text without control characters and lone surrogates."""
    if not isinstance(value, str) or not value.isprintable():
        raise ValueError(f"{short(value)} is not a printable text")
    return value


def _name(value: Any) -> str:
    """Check a name of a factor, bond or projection: torch registers no dots, and it must not be a path."""
    if not value or set(text(value)) & set("./\\"):
        raise ValueError(f"{short(value)} is not a name without dots and slashes")
    return value


def _check_values(plan: Plan) -> None:
    spec = plan.spec
    if not isinstance(spec.method, str) or None in (spec.scale, spec.start):
        raise ValueError(f"method {spec.method!r}, scale {spec.scale!r} and start {spec.start!r} of no plan")
    for count in (plan.n_trained_base, spec.budget):
        if count is not None:
            whole(count)
    if not plan.groups or not all(group.members for group in plan.groups):
        raise ValueError("a tensor without sites, or no tensor")
    if isinstance(spec.map, str):
        raise ValueError(f"map {spec.map!r} without a size")
    if spec.map:
        networks = [group.network for group in plan.groups]
        mapped.refuse_starts(spec.map, networks, plan.start)
        mapped.check_size(spec.map, networks)


def _check_members(plan: Plan) -> None:
    """Check that every site reads a slice of its tensor that exists and is as large as the site."""
    if len(plan.sites) < sum(len(group.members) for group in plan.groups):
        raise ValueError("two sites have one name")
    for group in plan.groups:
        layout = group.network.layout
        index = {mode.name for mode in layout.index} - set(RUNTIME)
        sizes = {mode.name: mode.size for mode in layout.index if mode.name in RUNTIME}
        if sizes != {mode: len(names) for mode, names in plan.spec.runtime.items()}:
            raise ValueError(f"modes of sizes {sizes} for tasks={plan.spec.tasks}")
        for member in group.members:
            sides = {m.name for m in (*layout.rows, *layout.cols)}
            picked = {k: v for k, v in member.at.items() if k in index and isinstance(v, int)}
            ranges = {k: v for k, v in member.at.items() if k in sides and isinstance(v, range) and v}
            if set(picked) != index or len(picked) + len(ranges) != len(member.at):
                raise ValueError(f"site {member.site.name!r} has no position in layout {str(layout)!r}")
            ends = {**{k: v + 1 for k, v in picked.items()}, **{k: v.stop for k, v in ranges.items()}}
            if any(end > layout.size_of[k] for k, end in ends.items()):
                raise ValueError(f"site {member.site.name!r} reads past the end of layout {str(layout)!r}")
            size = {**layout.size_of, **{k: len(v) for k, v in ranges.items()}}
            shape = tuple(math.prod(size[m.name] for m in modes) for modes in (layout.rows, layout.cols))
            if shape != (member.site.out, member.site.in_)[:: -1 if member.transposed else 1]:
                raise ValueError(f"site {member.site.name!r} is not of the shape that it reads, {shape}")


def _network(network: Network) -> dict[str, Any]:
    factors = [[getattr(factor, field.name) for field in fields(Factor)] for factor in network.factors]
    layout = [str(network.layout), network.layout.sizes]
    scale = {"alpha": network.alpha, "divisor": network.divisor, "derived": list(network.derived)}
    return {"layout": layout, "factors": factors, "bonds": dict(network.bonds), **scale}


def _read_network(
    *, layout: Any, factors: Any, bonds: Mapping[str, int], alpha: float, divisor: float, derived: Any
) -> Network:
    if not 0 < len(factors) <= FACTORS:
        raise ValueError(f"a network of {len(factors)} factors; expected 1 to {FACTORS}")
    parts = tuple(_read_factor(*factor) for factor in factors)
    sizes = {_name(bond): whole(size, 1) for bond, size in bonds.items()}
    scale = number(alpha, TINY), number(divisor, TINY)
    return Network(Layout.parse(*layout), parts, sizes, *scale, tuple(map(_name, derived)))


def _read_factor(name: str, labels: Any, init: str, paper: Any, trainable: bool, source: str, rate: float) -> Factor:
    if paper is not None:
        draws, value = paper
        if draws not in get_args(Draws):
            raise ValueError(f"factor {name!r} has draw {draws!r}")
        paper = (draws, number(value))
    if init not in ("normal", "zero") or source not in SOURCES or type(trainable) is not bool or not labels:
        raise ValueError(f"factor {name!r} has {init!r}, {source!r}, {trainable!r} or no labels")
    rest = init, paper, trainable, source, number(rate, TINY)
    return Factor(_name(name), tuple(map(_name, labels)), *rest)  # type: ignore[arg-type]  # checked above


def _member(member: Member) -> list[Any]:
    site = member.site
    at = {k: v if isinstance(v, int) else [v.start, v.stop] for k, v in member.at.items()}
    name = "" if site.name == site.module else site.name  # most names repeat the module's
    shape = site.out, site.in_, dict(site.inner), site.reads, site.rows, site.cols
    return [name, site.module, site.coord, *shape, _part_of(site), at, member.transposed]


def _read_member(record: Sequence[Any]) -> Member:
    *given, at, transposed = record
    site = _read_site(given)
    if type(transposed) is not bool:
        raise ValueError(f"site {site.name!r} has {transposed!r} for true or false")
    return Member(site, {k: range(*_block(*v)) if isinstance(v, list) else whole(v) for k, v in at.items()}, transposed)


def _read_site(record: Sequence[Any]) -> Site:
    name, module, coord, out, in_, inner, reads, *blocks, part = record
    rows, cols = (block if block is None else _block(*block) for block in blocks)
    if type(reads) is not bool:
        raise ValueError(f"site {name or module!r} has {reads!r} for true or false")
    coords = tuple((_name(k), v if isinstance(v, str) and text(v) else whole(v)) for k, v in coord.items())
    modes = tuple((_name(k), whole(v, 1)) for k, v in inner.items())
    period, parameter, slot = _read_part(*part) if part else (None, "weight", None)
    names, sizes = (text(name) or text(module), text(module)), (whole(out, 1), whole(in_, 1))
    return Site(*names, coords, *sizes, modes, reads, rows, cols, period, parameter, slot)


def _part_of(site: Site) -> list[Any] | None:
    """Return which part of which parameter a site is; None for a site that is rows of ``weight``."""
    part = [site.period, site.parameter, site.slot]
    return None if part == [None, "weight", None] else part


def _read_part(period: Any, parameter: Any, slot: Any) -> tuple[int | None, str, int | None]:
    """Check the period, parameter and slot of a site that is not rows of ``weight``."""
    if not parameter or set(text(parameter)) & set("/\\"):
        raise ValueError(f"{short(parameter)} is not a parameter's name")
    return None if period is None else whole(period, 1), parameter, None if slot is None else whole(slot)


def _block(start: Any, stop: Any) -> tuple[int, int]:
    if whole(start) >= whole(stop):
        raise ValueError(f"a block from {start} to {stop}")
    return start, stop
