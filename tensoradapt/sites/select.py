"""Select: of the sites that a model has, those that were asked for; the others with the reason."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from tensoradapt.errors import TensorAdaptError, did_you_mean
from tensoradapt.sites.site import Candidate, Site, matches

GROUPS = {"attention": {"attention"}, "mlp": {"mlp", "experts"}, "experts": {"experts"}}


def _within(every: Sequence[Candidate], scope: str | None) -> list[Candidate]:
    if scope is None:
        return list(every)
    inside = [one for one in every if one.site.coord.get("stack") == scope or _is_in(one.site.module, scope)]
    if not inside:
        stacks = dict.fromkeys(str(one.site.coord["stack"]) for one in every if "stack" in one.site.coord)
        raise TensorAdaptError(f"scope {scope!r} holds no sites{did_you_mean(scope, {**stacks, **_holders(every)})}")
    return inside


def _is_in(module: str, path: str) -> bool:
    return f"{module}.".startswith(f"{path}.")


def _holders(every: Sequence[Candidate]) -> dict[str, None]:
    """Modules that hold layers, above the numbers of these."""
    paths = dict.fromkeys(one.site.module.split(f".{one.site.coord['layer']}.")[0] for one in every)
    parts = [path.split(".") for path in paths]
    return dict.fromkeys(".".join(path[:i]) for path in parts for i in range(1, len(path) + 1))


def _projections(asked: str | Sequence[str], every: Sequence[Candidate], source: str, alone: bool) -> set[str]:
    """Names of the sites of the projections and groups asked for."""
    names = [asked] if isinstance(asked, str) else list(asked)
    if alone and not every:
        return set()
    projs = dict.fromkeys(str(one.site.coord["proj"]) for one in every)
    kinds = {one.kind for one in every}
    groups = [group for group, own in GROUPS.items() if own & kinds]
    wanted: set[str] = set()
    for name in names:
        found = {one.site.name for one in every if name in ("all", one.site.coord["proj"]) or _of(one, name)}
        if not found:
            valid = [*projs, *groups, "all"]
            raise TensorAdaptError(f"projection {name!r} matches nothing in {source}{did_you_mean(name, valid)}")
        wanted |= found
    if not names and not alone:
        raise TensorAdaptError(
            f"no projections were asked for; expected some of {', '.join(projs)}, or {', '.join(groups)}, all"
        )
    return wanted


def _of(one: Candidate, group: str) -> bool:
    return one.kind in GROUPS.get(group, ())


def _layers(asked: Iterable[int] | None, every: Sequence[Candidate], wanted: set[str]) -> set[int]:
    have = {int(one.site.coord["layer"]) for one in every if one.site.name in wanted}
    numbers = have if asked is None else set(asked)
    listed = ", ".join(map(str, sorted(have))) if len(have) <= max(have, default=0) else f"0 to {max(have, default=0)}"
    if wrong := sorted(n for n in numbers if n not in have):
        raise TensorAdaptError(f"layer {wrong[0]} matches nothing: the model has layers {listed}")
    if not numbers and have:
        raise TensorAdaptError(f"layers= is empty; expected some of {listed}")
    return numbers


def _select(
    every: Sequence[Site], wanted: set[str], layers: set[int], exclude: Sequence[str]
) -> tuple[list[Site], list[tuple[str, str]]]:
    asked = [site for site in every if site.name in wanted and site.coord.get("layer", -1) in {*layers, -1}]
    for pattern in exclude:
        if not any(matches(site.name, pattern) for site in asked):
            raise TensorAdaptError(
                f"exclude pattern {pattern!r} matches none of the {len(asked)} sites, such as {asked[0].name!r}"
            )
    kept = [s for s in asked if not any(matches(s.name, p) for p in exclude)]
    if not kept:
        raise TensorAdaptError(f"exclude patterns {', '.join(exclude)} leave none of the {len(asked)} sites")
    names = {site.name for site in kept}
    return kept, [(s.name, _why(s, wanted, layers)) for s in every if s.name not in names]


def _why(site: Site, wanted: set[str], layers: set[int]) -> str:
    if site.name not in wanted:
        return f"{site.coord['proj']} is not among the projections asked for"
    return "layer not asked for" if site.coord.get("layer", -1) not in {*layers, -1} else "excluded by pattern"


def _refuse_tied(model: Any, sites: Sequence[Site]) -> None:
    """One storage under two names would be adapted for both, or silently not for one of them."""
    targeted = {site.key: site.name for site in sites}
    holders: dict[int, str] = {}
    for name, weight in model.named_parameters(remove_duplicate=False):
        other = holders.setdefault(id(weight), name)
        if other != name and (hit := {name, other} & set(targeted)):
            one, two = (key.removesuffix(".weight") for key in (other, name))
            raise TensorAdaptError(
                f"tied weights are targeted: {one} and {two} hold one and the same weight. "
                f"Leave {targeted[sorted(hit)[0]]} out with exclude=, or untie the two first"
            )


def _other_modules(model: Any, known: set[str], scope: str | None) -> list[tuple[str, str]]:
    """Modules with a weight matrix in which no site can be: heads, poolers, embeddings, routers."""
    own = {name: dict(module.named_parameters(recurse=False)).get("weight") for name, module in model.named_modules()}
    why = (
        "not an attention or MLP projection" if scope is None else f"outside {scope}, or no attention or MLP projection"
    )
    return [
        (name, why)
        for name, weight in own.items()
        if weight is not None and weight.ndim >= 2 and f"{name}.weight" not in known
    ]


def _cut(every: Sequence[Candidate], wanted: set[str]) -> tuple[list[Candidate], set[str]]:
    """The sites asked for in square blocks, and the names of those."""
    _check_blocks([one.site for one in every if one.site.name in wanted])
    found = [
        Candidate(site, one.kind)
        for one in every
        for site in (_blocks(one.site) if one.site.name in wanted else [one.site])
    ]
    return found, {one.site.name for one in found if "block" in one.site.coord}


def _check_blocks(sites: Sequence[Site]) -> None:
    uneven = {s.coord["proj"] for s in sites if (ff := dict(s.inner).get("ff")) and (ff % s.model or s.rows)}
    if not uneven:
        return
    site = next(s for s in sites if s.coord["proj"] in uneven)
    asked = dict.fromkeys(str(site.coord["proj"]) for site in sites)
    even = tuple(proj for proj in asked if proj not in uneven)
    fused = " inside a fused module" if site.rows else ""
    raise TensorAdaptError(
        f"site {site.name} is {site.out} x {site.in_}{fused}; blocks need an inner width that is a multiple of the "
        f"model's {site.model}. Adapt what find_sites(model, {even or tuple(asked)}, blocks={bool(even)}) returns"
    )


def _blocks(site: Site) -> list[Site]:
    """A site cut into square blocks along its inner side; attention is one block."""
    ff = dict(site.inner).get("ff")
    if ff is None:
        return [replace(site, coords=(*site.coords, ("block", 0)))]
    return [_block(site, i, site.model) for i in range(ff // site.model)]


def _block(site: Site, i: int, width: int) -> Site:
    part = (i * width, (i + 1) * width)
    side: dict[str, Any] = {"rows": part} if site.reads else {"cols": part}
    label = f"{site.slot}.{site.coord['proj']}{i}" if site.slot is not None else f"{site.coord['proj']}{i}"
    inner = (("ff", width),)
    return replace(
        site,
        name=f"{site.module}[{label}]",
        coords=(*site.coords, ("block", i)),
        out=width,
        in_=width,
        inner=inner,
        **side,
    )
