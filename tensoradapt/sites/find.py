"""Sites: the blocks of weight matrices that can be adapted, found in a model or computed from its config. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from tensoradapt.errors import TensorAdaptError, did_you_mean
from tensoradapt.sites import recipe_table
from tensoradapt.sites.from_module_tree import sites_from_tree
from tensoradapt.sites.from_names import module_sites
from tensoradapt.sites.from_recipe import sites_from_config, sites_in
from tensoradapt.sites.site import Candidate, Site, Sites, matches
from tensoradapt.sites.unwrapped import ROOT, without_adapters

__all__ = ["ROOT", "Site", "Sites", "find_sites"]
GENERIC = "generic"
GROUPS = {"attention": {"attention"}, "mlp": {"mlp", "experts"}, "experts": {"experts"}}


def find_sites(
    model_or_config: Any,
    projections: str | Sequence[str] = "attention",
    *,
    layers: Iterable[int] | None = None,
    exclude: Sequence[str] = (),
    recipe: str | recipe_table.Recipe | None = None,
    blocks: bool = False,
    scope: str | None = None,
    modules: str | Sequence[str] = (),
) -> Sites:
    """The sites of a model (on any device, meta included) or of a config.

    ``projections``: "attention" (q, k, v, o), "mlp" (experts included), "experts", "all", or names. ``layers``: which
    layer numbers. ``exclude``: patterns over site names. ``scope``: only this stack ("encoder"), or what is inside
    this module. ``modules``: patterns of module names outside the layers (embeddings, patch convolutions, heads).
    Every selector must match something. ``blocks``: MLP matrices as square blocks of the model's width, each a site
    with a ``block`` coordinate (FacT, CaRA).

    A model for which there is no recipe, or ``recipe="generic"``, gets its sites from its module tree: look at the
    printed plan.

    Raises TensorAdaptError for a model without repeated layers and a config without a recipe, a selector that matches
    nothing, tied weights, and ``blocks`` where the MLP's width is no multiple of the model's.
    """
    model_or_config = without_adapters(model_or_config)
    is_model = hasattr(model_or_config, "named_modules")
    if is_model:
        candidates, source = _in_model(model_or_config, recipe, scope, bool(modules))
    elif modules:
        raise TensorAdaptError("modules= names modules of a model, and a config has none; pass the model")
    elif recipe == GENERIC:
        raise TensorAdaptError('recipe="generic" reads a module tree, and a config has none; pass the model')
    else:
        row = recipe_table.find(model_or_config, recipe)
        candidates, source = sites_from_config(model_or_config, row), _source(model_or_config, row)
    every = _within(candidates, scope)
    wanted = _projections(projections, every, source, bool(modules))
    numbers = _layers(layers, every, wanted)
    if blocks:
        every, wanted = _cut(every, wanted)
    sites = [one.site for one in every]
    if modules:
        known = {site.module for site in sites}, {str(site.coord["proj"]) for site in sites}
        found = module_sites(model_or_config, modules, *known)
        sites, wanted = [*sites, *found], wanted | {site.name for site in found}
    kept, skipped = _select(sites, wanted, numbers, exclude)
    if is_model:
        _refuse_tied(model_or_config, kept)
        skipped += _other_modules(model_or_config, {site.key for site in sites}, scope)
    return Sites(tuple(kept), tuple(skipped), source)


def _in_model(
    model: Any, recipe: str | recipe_table.Recipe | None, scope: str | None, alone: bool
) -> tuple[list[Candidate], str]:
    """Everything that could be adapted, and how it was found. ``alone``: modules outside the layers are asked for."""
    given = recipe is not None and recipe != GENERIC
    owner = "" if given else None if recipe == GENERIC else _owner(model, scope)
    if owner is None:
        return _from_tree(model, alone), "generic recipe: from the module tree, check the printed plan"
    config = _config_of(model.get_submodule(owner))
    row = recipe_table.find(config, recipe)
    names = [name for name, _ in model.named_modules() if not owner or _is_in(name, owner)]
    source = _source(config, row)
    return sites_in(type(model).__name__, names, config, row, scope), f"{source} in {owner}" if owner else source


def _owner(model: Any, scope: str | None) -> str | None:
    """The module whose config has a recipe: the model, the scope, or the one such module of a model without config."""
    if recipe_table.known(getattr(model, "config", None)):
        return ""
    known = [name for name, module in model.named_modules() if recipe_table.known(getattr(module, "config", None))]
    outer = [name for name in known if not any(name.startswith(f"{other}.") for other in known)]
    if scope is not None:
        outer = [name for name in outer if f"{scope}.".startswith(f"{name}.")]
    elif getattr(model, "config", None) is not None:
        return None
    return outer[0] if len(outer) == 1 else None


def _config_of(model: Any) -> Any:
    if getattr(model, "config", None) is None:
        raise TensorAdaptError(
            f"{type(model).__name__} has no config, so its number of heads and layers is not known; "
            "set model.config (model_type, hidden_size, num_hidden_layers, num_attention_heads), pass a config, or "
            "leave recipe= out to look in its module tree"
        )
    return model.config


def _from_tree(model: Any, alone: bool) -> list[Candidate]:
    found = sites_from_tree(model)
    if not found and not alone:
        raise TensorAdaptError(
            f"{type(model).__name__} has no recipe, and its module tree no list of repeated layers that hold linear "
            "layers (nn.ModuleList or nn.Sequential). Name the layers to adapt with modules=, as in "
            "find_sites(model, (), modules=('fc1',)), or pass recipe= with its names"
        )
    return found


def _source(config: Any, row: recipe_table.Recipe) -> str:
    return f"{getattr(config, 'model_type', type(config).__name__)} by recipe {row.name}"


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
