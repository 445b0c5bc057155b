"""Sites: the blocks of weight matrices that can be adapted, found in a model or computed from its config. No torch."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from tensoradapt import recipes
from tensoradapt.errors import TensorAdaptError, did_you_mean
from tensoradapt.site import Site, Sites

__all__ = ["ROOT", "Site", "Sites", "find_sites"]
ROOT = "tensoradapt"  # the name of an attached adapter in its model


def find_sites(
    model_or_config: Any,
    projections: str | Sequence[str] = "attention",
    *,
    layers: Iterable[int] | None = None,
    exclude: Sequence[str] = (),
    recipe: str | recipes.Recipe | None = None,
    blocks: bool = False,
) -> Sites:
    """The sites of a model (on any device, meta included) or of a config.

    ``projections``: "attention" (q, k, v, o), "mlp", "all", or names. ``layers``: which layer numbers. ``exclude``:
    patterns over site names. Every selector must match something. ``blocks``: MLP matrices as square blocks of the
    model's width, each a site with a ``block`` coordinate (FacT, CaRA).

    Raises TensorAdaptError for an unknown model, a selector that matches nothing, tied weights, and ``blocks`` where
    the MLP's width is no multiple of the model's.
    """
    is_model = hasattr(model_or_config, "named_modules")
    config = _config_of(model_or_config) if is_model else model_or_config
    row, size = recipes.find(config, recipe), recipes.dims(config)
    parts = row.parts_for(config)
    wanted, numbers = _projections(projections, parts, row.name), _layers(layers, size.layers)
    paths = _paths_in(model_or_config, row, parts, size) if is_model else _paths_from_config(row, parts, size)
    every = [_site(part, layer, paths[part.proj, layer], size) for layer in range(size.layers) for part in parts]
    if blocks:
        _check_blocks([site for site in every if site.coord["proj"] in wanted])
        every = [block for site in every for block in ([site] if site.coord["proj"] not in wanted else _blocks(site))]
    kept, skipped = _select(every, wanted, numbers, exclude)
    if is_model:
        _refuse_tied(model_or_config, kept)
        skipped += _other_modules(model_or_config, {site.module for site in every})
    return Sites(
        tuple(kept), tuple(skipped), f"{getattr(config, 'model_type', type(config).__name__)} by recipe {row.name}"
    )


def _config_of(model: Any) -> Any:
    if hasattr(model, ROOT):
        raise TensorAdaptError(f"{type(model).__name__} already has an adapter attached; call detach(model) first")
    if getattr(model, "config", None) is None:
        raise TensorAdaptError(
            f"{type(model).__name__} has no config, so its number of heads and layers is not known; "
            "set model.config (model_type, hidden_size, num_hidden_layers, num_attention_heads) or pass a config"
        )
    return model.config


def _projections(asked: str | Sequence[str], parts: Sequence[recipes.Part], recipe: str) -> set[str]:
    have = {part.proj: part.kind for part in parts}
    if isinstance(asked, str):
        groups = {"all": set(have), **{k: {p for p, kind in have.items() if kind == k} for k in ("attention", "mlp")}}
        asked = sorted(groups[asked]) if asked in groups else [asked]
    for proj in asked:
        if proj not in have:
            valid = [*have, "attention", "mlp", "all"]
            raise TensorAdaptError(f"projection {proj!r} matches nothing in recipe {recipe}{did_you_mean(proj, valid)}")
    if not asked:
        raise TensorAdaptError(
            f"no projections were asked for; expected some of {', '.join(have)}, or attention, mlp, all"
        )
    return set(asked)


def _layers(asked: Iterable[int] | None, n_layers: int) -> set[int]:
    numbers = set(range(n_layers)) if asked is None else set(asked)
    if wrong := sorted(n for n in numbers if n not in range(n_layers)):
        raise TensorAdaptError(f"layer {wrong[0]} matches nothing: the model has layers 0 to {n_layers - 1}")
    if not numbers:
        raise TensorAdaptError(f"layers= is empty; expected some of 0 to {n_layers - 1}")
    return numbers


def _paths_from_config(
    row: recipes.Recipe, parts: Sequence[recipes.Part], size: recipes.Dims
) -> dict[tuple[str, int], str]:
    prefix = row.prefix + row.layers[0]
    return {(p.proj, n): f"{prefix.format(n)}.{p.paths[0]}" for p in parts for n in range(size.layers)}


def _paths_in(
    model: Any, row: recipes.Recipe, parts: Sequence[recipes.Part], size: recipes.Dims
) -> dict[tuple[str, int], str]:
    """Full module names: the recipe's layer and part paths below whatever prefix this model has."""
    names = {name for name, _ in model.named_modules()}
    options = [(part, f"{layer}.{path}") for part in parts for layer in row.layers for path in part.paths]
    found: dict[tuple[str, int], str] = {}
    for part, path in options:
        first = [name for name in names if f".{name}".endswith(f".{path.format(0)}")]
        prefixes = {name.removesuffix(path.format(0)) for name in first}
        if len(prefixes) > 1:
            raise TensorAdaptError(
                f"{path.format(0)} stands under {' and '.join(sorted(prefixes))} in {type(model).__name__}; "
                "expected one stack of layers. Pass the submodule that holds it"
            )
        for prefix in prefixes:
            full = {(part.proj, n): prefix + path.format(n) for n in range(size.layers)}
            found |= {key: name for key, name in full.items() if name in names}
    _refuse_missing(model, row, parts, size, found)
    return found


def _refuse_missing(
    model: Any, row: recipes.Recipe, parts: Sequence[recipes.Part], size: recipes.Dims, found: Mapping[Any, str]
) -> None:
    for part, n in ((part, n) for part in parts for n in range(size.layers)):
        if (part.proj, n) not in found:
            raise TensorAdaptError(
                f"{type(model).__name__} has no module {row.layers[0].format(n)}.{part.paths[0]}, where recipe "
                f"{row.name} expects {part.proj} of layer {n}. Pass recipe= with this model's own names"
            )


def _site(part: recipes.Part, layer: int, module: str, size: recipes.Dims) -> Site:
    inner, width = _inner(part.proj, size), size.width
    across = math.prod(n for _, n in inner)
    rows = _rows(part, size) if part.fused else None
    name = f"{module}[{part.proj}]" if part.fused else module
    coords = (("layer", layer), ("proj", part.proj))
    out, in_ = (width, across) if part.writes else (across, width)
    return Site(name, module, coords, out, in_, inner, not part.writes, rows)


def _inner(proj: str, size: recipes.Dims) -> tuple[tuple[str, int], ...]:
    if proj not in recipes.ATTENTION:
        return (("ff", size.ff),)
    return (("head", size.kv_heads if proj in ("k", "v") else size.heads), ("dim", size.head_dim))


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
    name = f"{site.module}[{site.coord['proj']}{i}]"
    inner = (("ff", width),)
    return replace(site, name=name, coords=(*site.coords, ("block", i)), out=width, in_=width, inner=inner, **side)


def _rows(part: recipes.Part, size: recipes.Dims) -> tuple[int, int]:
    """Where a projection's block lies among those its module stacks."""
    widths = [math.prod(n for _, n in _inner(proj, size)) for proj in part.fused]
    at = part.fused.index(part.proj)
    return sum(widths[:at]), sum(widths[: at + 1])


def _select(
    every: Sequence[Site], wanted: set[str], layers: set[int], exclude: Sequence[str]
) -> tuple[list[Site], list[tuple[str, str]]]:
    asked = [site for site in every if site.coord["proj"] in wanted and site.coord["layer"] in layers]
    for pattern in exclude:
        if not any(fnmatch.fnmatchcase(site.name, pattern) for site in asked):
            raise TensorAdaptError(
                f"exclude pattern {pattern!r} matches none of the {len(asked)} sites, such as {asked[0].name!r}"
            )
    kept = [s for s in asked if not any(fnmatch.fnmatchcase(s.name, p) for p in exclude)]
    if not kept:
        raise TensorAdaptError(f"exclude patterns {', '.join(exclude)} leave none of the {len(asked)} sites")
    names = {site.name for site in kept}
    return kept, [(s.name, _why(s, wanted, layers)) for s in every if s.name not in names]


def _why(site: Site, wanted: set[str], layers: set[int]) -> str:
    if site.coord["proj"] not in wanted:
        return f"{site.coord['proj']} is not among the projections asked for"
    return "layer not asked for" if site.coord["layer"] not in layers else "excluded by pattern"


def _refuse_tied(model: Any, sites: Sequence[Site]) -> None:
    """One storage under two names would be adapted for both, or silently not for one of them."""
    targeted = {site.module for site in sites}
    holders: dict[int, str] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        weight = _stored(module)
        if weight is None or not (other := holders.setdefault(id(weight), name)) or other == name:
            continue
        if hit := {name, other} & targeted:
            raise TensorAdaptError(
                f"tied weights are targeted: {other} and {name} hold one and the same weight. "
                f"Leave {sorted(hit)[0]} out with exclude=, or untie the two first"
            )


def _other_modules(model: Any, known: set[str]) -> list[tuple[str, str]]:
    """Modules with a weight matrix that no part of the recipe names: heads, poolers, embeddings."""
    weights = ((name, _stored(module)) for name, module in model.named_modules() if name not in known)
    return [(name, "not an attention or MLP projection") for name, w in weights if w is not None and w.ndim >= 2]


def _stored(module: Any) -> Any:
    """The weight a module holds, or None; one that it makes when asked (quantised layers) is another each time."""
    return dict(module.named_parameters(recurse=False, remove_duplicate=False)).get("weight")
