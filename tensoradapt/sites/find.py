"""Sites: the blocks of weight matrices that can be adapted, found in a model or computed from its config. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from tensoradapt.errors import TensorAdaptError
from tensoradapt.sites import recipe_table
from tensoradapt.sites.from_module_tree import sites_from_tree
from tensoradapt.sites.from_names import module_sites
from tensoradapt.sites.from_recipe import sites_from_config, sites_in
from tensoradapt.sites.select import _cut, _is_in, _layers, _other_modules, _projections, _refuse_tied, _select, _within
from tensoradapt.sites.site import Candidate, Site, Sites
from tensoradapt.sites.unwrapped import ROOT, without_adapters

__all__ = ["ROOT", "Site", "Sites", "find_sites"]
GENERIC = "generic"


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
