"""Choose the sites that were asked for among those of a model, and give the reason for each of the others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from tensoradapt.checks import shown
from tensoradapt.errors import TensorAdaptError, did_you_mean
from tensoradapt.sites.from_module_tree import why_unnamed
from tensoradapt.sites.modules import is_lazy, unready
from tensoradapt.sites.recipe_table import RECIPES
from tensoradapt.sites.site import Candidate, Site, matches

ALL = ("all", "all-linear")  # the latter as PEFT calls it
GROUPS = {"attention": {"attention"}, "mlp": {"mlp", "experts"}, "experts": {"experts"}}


def within(every: Sequence[Candidate], scope: str | None) -> list[Candidate]:
    """Return the candidates in a stack or below a module; all of them for None."""
    if scope is None:
        return list(every)
    inside = [c for c in every if c.site.coord.get("stack") == scope or is_in(c.site.module, scope)]
    if not inside:
        stacks = dict.fromkeys(str(c.site.coord["stack"]) for c in every if "stack" in c.site.coord)
        raise TensorAdaptError(f"scope {scope!r} holds no sites{did_you_mean(scope, {**stacks, **_holders(every)})}")
    return inside


def is_in(module: str, path: str) -> bool:
    """Say whether a module is the one at a path or lies below it."""
    return f"{module}.".startswith(f"{path}.")


def _holders(every: Sequence[Candidate]) -> dict[str, None]:
    """Return the modules that hold layers: the path above a layer's number, and all its parents."""
    paths = dict.fromkeys(c.site.module.split(f".{c.site.coord['layer']}.")[0] for c in every)
    parts = [path.split(".") for path in paths]
    return dict.fromkeys(".".join(path[:i]) for path in parts for i in range(1, len(path) + 1))


def named(names: Sequence[str], every: Sequence[Candidate], source: str, with_modules: bool) -> set[str]:
    """Return the names of the sites of the projections and groups asked for.

    ``with_modules`` says that modules outside the layers are asked for too, so there may be no projections.
    """
    if with_modules and not every:
        return set()
    projs, kinds = dict.fromkeys(str(c.site.coord["proj"]) for c in every), {c.kind for c in every}
    groups = [group for group, members in GROUPS.items() if members & kinds]
    wanted: set[str] = set()
    for name in names:
        kinds = GROUPS.get(name, set())
        hits = {c.site.name for c in every if name in (*ALL, c.site.coord["proj"]) or c.kind in kinds}
        hits = hits or {c.site.name for c in every if is_called(c.site.module, name)}
        if not hits:
            own = dict.fromkeys(c.site.module.rpartition(".")[2] for c in every)
            valid = [*projs, *groups, "all", *(leaf for leaf in own if leaf not in projs)]
            why = why_unnamed(name, every) or elsewhere(name, projs)
            raise TensorAdaptError(f"projection {name!r} matches nothing in {source}{why}{did_you_mean(name, valid)}")
        wanted |= hits
    if not names and not with_modules:
        raise TensorAdaptError(
            f"no projections were asked for; expected some of {', '.join(projs)}, or {', '.join(groups)}, all"
        )
    return wanted


def is_called(module: str, name: str) -> bool:
    """Say whether a module's path ends in a name, such as ``q_proj`` or ``output.dense``."""
    return f".{module}".endswith(f".{name}")


def elsewhere(name: str, projections: Iterable[str]) -> str:
    """Say what the projection that other model families give a name, such as ``q_proj``, is called here."""
    paths = ((part.proj, path) for recipe in RECIPES for stack in recipe.every for part in stack.parts
             for path in part.paths)  # fmt: skip
    found = [proj for proj, path in paths if is_called(path, name)]
    here = [proj for proj in dict.fromkeys(found) if proj in projections]
    return f"; what other models call so is {' and '.join(map(repr, here))} here" if here else ""


def layer_numbers(asked: Iterable[int] | None, every: Sequence[Candidate], wanted: set[str]) -> set[int]:
    """Return the layers asked for; for None all that the wanted sites are in."""
    have = {int(c.site.coord["layer"]) for c in every if c.site.name in wanted}
    numbers = have if asked is None else set(asked)
    listed = ", ".join(map(str, sorted(have))) if len(have) <= max(have, default=0) else f"0 to {max(have, default=0)}"
    if wrong := sorted(n for n in numbers if n not in have):
        raise TensorAdaptError(f"layer {shown(wrong[0])} matches nothing: the model has layers {listed}")
    if not numbers and have:
        raise TensorAdaptError(f"layers= is empty; expected some of {listed}")
    return numbers


def select(
    every: Sequence[Site], wanted: set[str], layers: set[int], exclude: Sequence[str]
) -> tuple[list[Site], list[tuple[str, str]]]:
    """Return the wanted sites of the layers that no pattern excludes, and the names of the others with the reasons."""
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


def refuse_unready(model: Any, sites: Sequence[Site]) -> None:
    """Raise TensorAdaptError for a lazy parameter anywhere in a model, and for a sparse weight of a site."""
    targeted = {site.key for site in sites}
    for name, weight in model.named_parameters():
        if (name in targeted or is_lazy(weight)) and (why := unready(weight)):
            raise TensorAdaptError(f"parameter {name} {why}")


def refuse_tied(model: Any, sites: Sequence[Site]) -> None:
    """Raise TensorAdaptError for a weight with two names: an adapter would change both modules, or miss one."""
    targeted = {site.key: site.name for site in sites}
    holders: dict[int, str] = {}
    for name, weight in model.named_parameters(remove_duplicate=False):
        other = holders.setdefault(id(weight), name)
        if other != name and (hit := {name, other} & set(targeted)):
            first, second = (key.removesuffix(".weight") for key in (other, name))
            raise TensorAdaptError(
                f"tied weights are targeted: {first} and {second} hold one and the same weight. "
                f"Leave {targeted[sorted(hit)[0]]} out with exclude=, or untie the two first"
            )


def other_modules(model: Any, known: set[str], scope: str | None) -> list[tuple[str, str]]:
    """Return modules whose weight matrix no site can be in (heads, embeddings, routers), with the reason."""
    matrices = [
        name
        for name, module in model.named_modules()
        if (weight := dict(module.named_parameters(recurse=False)).get("weight")) is not None and weight.ndim >= 2
    ]
    why = "not an attention or MLP projection"
    why = why if scope is None else f"outside {scope}, or {why.replace('not an', 'no')}"
    return [(name, why) for name in matrices if f"{name}.weight" not in known]


def square_blocks(every: Sequence[Candidate], wanted: set[str]) -> tuple[list[Candidate], set[str]]:
    """Cut the wanted candidates into square blocks; return all candidates, and the names of these blocks.

    Raises TensorAdaptError if an MLP's width is no multiple of the model's, and for fused MLP matrices.
    """
    _check_blocks([c.site for c in every if c.site.name in wanted])
    cut = [Candidate(site, c.kind) for c in every for site in (_blocks(c.site) if c.site.name in wanted else [c.site])]
    return cut, {c.site.name for c in cut if "block" in c.site.coord}


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
    """Cut a site into square blocks along its inner side; attention is one block."""
    ff = dict(site.inner).get("ff")
    if ff is None:
        return [replace(site, coords=(*site.coords, ("block", 0)))]
    return [_block(site, i, site.model) for i in range(ff // site.model)]


def _block(site: Site, i: int, width: int) -> Site:
    part = (i * width, (i + 1) * width)
    side: dict[str, Any] = {"rows": part} if site.reads else {"cols": part}
    label = f"{site.slot}.{site.coord['proj']}{i}" if site.slot is not None else f"{site.coord['proj']}{i}"
    coords = (*site.coords, ("block", i))
    name, inner = f"{site.module}[{label}]", (("ff", width),)
    return replace(site, name=name, coords=coords, out=width, in_=width, inner=inner, **side)
