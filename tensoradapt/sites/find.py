"""Find the sites of a model, or compute them from its config. No torch at import."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

from tensoradapt.checks import flag, its_model, numbers, optional, shown, strings, text
from tensoradapt.checks import projections as named_projections
from tensoradapt.errors import TensorAdaptError, few
from tensoradapt.sites import named_models, recipe_table, select
from tensoradapt.sites.from_module_tree import refuse_partial, sites_from_tree
from tensoradapt.sites.from_names import adaptable, module_sites
from tensoradapt.sites.from_recipe import sites_from_config, sites_in
from tensoradapt.sites.modules import ROOT, without_adapters
from tensoradapt.sites.recipe import Recipe
from tensoradapt.sites.site import Candidate, Site, Sites

__all__ = ["ROOT", "Site", "Sites", "find_sites"]
GENERIC = "generic"
TREE = "generic recipe: from the module tree, check the printed plan"


def find_sites(
    model_or_config: Any,
    projections: str | Sequence[str] = "attention",
    *,
    layers: Iterable[int] | None = None,
    exclude: Sequence[str] = (),
    recipe: str | Recipe | None = None,
    blocks: bool = False,
    scope: str | None = None,
    modules: str | Sequence[str] = (),
) -> Sites:
    """Return the weight matrices of a model, or blocks of them, that an adapter can change.

    A site has to match every selector that is given. ``plan`` takes the sites.

    Args:
        model_or_config: a model on any device, meta included, its config, or what ``tensoradapt plan --model`` takes,
            of which the config is read: the name of a built-in model, a folder, or a name on the hub.
        projections: "attention" (q, k, v, o), "mlp" (experts included), "experts", "all", or names.
        layers: layer numbers; None for all.
        exclude: patterns over site names.
        recipe: a recipe or its name; None takes that of the model type, or reads the module tree where there is none.
            "generic" always reads the module tree: check the printed plan.
        blocks: cut MLP matrices into square blocks of the model's width, each a site with a ``block`` coordinate
            (FacT, CaRA).
        scope: only this stack ("encoder"), or what is inside this module.
        modules: patterns of module names outside the layers (embeddings, patch convolutions, heads).

    Returns:
        The sites, each with its name, (out, in) shape, coordinates and the sizes of its row modes.

    Raises:
        TensorAdaptError: for a model without repeated layers, a config without a recipe, a selector that matches
            nothing, "attention" where only some of q, k, v, o have known names, tied weights, and ``blocks`` where the
            MLP's width is no multiple of the model's.

    >>> import tensoradapt as ta
    >>> from transformers import BertConfig
    >>> sites = ta.find_sites(BertConfig(hidden_size=96, num_attention_heads=6, num_hidden_layers=4), ("q", "v"))
    >>> len(sites), sites[0].name, (sites[0].out, sites[0].in_), dict(sites[0].inner)
    (8, 'encoder.layer.0.attention.self.query', (96, 96), {'head': 6, 'dim': 16})
    """
    projections, exclude = named_projections(projections, "projections"), strings(exclude, "exclude")
    modules = strings(modules, "modules")
    if recipe is not None and not isinstance(recipe, str | Recipe):
        raise TensorAdaptError(f"recipe is {shown(recipe)}; expected its name, or a Recipe")
    layers, scope, blocks = optional(numbers)(layers, "layers"), optional(text)(scope, "scope"), flag(blocks, "blocks")
    model_or_config = without_adapters(config_of(model_or_config))
    is_model = hasattr(model_or_config, "named_modules")
    if not is_model and (advice := its_model(model_or_config)):
        what = type(model_or_config).__name__
        raise TensorAdaptError(f"the model is a {what}; expected a torch.nn.Module or its config{advice}")
    if is_model:
        candidates, source = _in_model(model_or_config, recipe, scope, bool(modules))
    elif modules:
        raise TensorAdaptError("modules= names modules of a model, and a config has none; pass the model")
    elif recipe == GENERIC:
        raise TensorAdaptError('recipe="generic" reads a module tree, and a config has none; pass the model')
    else:
        row = recipe_table.find(model_or_config, recipe)
        candidates, source = sites_from_config(model_or_config, row), _source(model_or_config, row)
    every = select.within(candidates, scope)
    wanted = select.named(projections, every, source, bool(modules))
    chosen = select.layer_numbers(layers, every, wanted)
    if source == TREE and "attention" in projections:
        refuse_partial([c for c in every if c.site.coord["layer"] in chosen])
    if blocks:
        every, wanted = select.square_blocks(every, wanted)
    sites = [candidate.site for candidate in every]
    if modules:
        known = {site.module for site in sites}, {str(site.coord["proj"]) for site in sites}
        outside = module_sites(model_or_config, modules, *known)
        sites, wanted = [*sites, *outside], wanted | {site.name for site in outside}
    kept, skipped = select.select(sites, wanted, chosen, exclude)
    if is_model:
        select.refuse_unready(model_or_config, kept)
        select.refuse_tied(model_or_config, kept)
        skipped += select.other_modules(model_or_config, {site.key for site in sites}, scope)
    return Sites(tuple(kept), tuple(skipped), source)


def every_site(model: Any) -> tuple[list[Site], str]:
    """Return every site that ``find_sites`` finds in a model, and how it found them; no sites where it refuses."""
    try:
        candidates, source = _in_model(without_adapters(model), None, None, False)
    except TensorAdaptError:
        return [], ""
    return [candidate.site for candidate in candidates], source


def config_of(model_or_name: Any) -> Any:
    """Return the config of a model that is given by its name or folder; raise TensorAdaptError for a class.

    Anything else is returned as it is.
    """
    if isinstance(model_or_name, type):
        kind = model_or_name.__name__
        raise TensorAdaptError(
            f"the model is the class {kind}; expected an object of it, as {kind}.from_pretrained(name) or {kind}(...) "
            "gives"
        )
    named = isinstance(model_or_name, str | os.PathLike)
    return named_models.config(text(os.fspath(model_or_name), "model")) if named else model_or_name


def _in_model(
    model: Any, recipe: str | Recipe | None, scope: str | None, with_modules: bool
) -> tuple[list[Candidate], str]:
    """Return every candidate, and how the candidates were found."""
    given = recipe is not None and recipe != GENERIC
    owner = "" if given else None if recipe == GENERIC else _owner(model, scope)
    if owner is None:
        return _from_tree(model, with_modules), TREE
    config = _config_of(model.get_submodule(owner))
    row = recipe_table.find(config, recipe)
    names = [name for name, _ in model.named_modules() if not owner or select.is_in(name, owner)]
    source = _source(config, row)
    return sites_in(type(model).__name__, names, config, row, scope), f"{source} in {owner}" if owner else source


def _owner(model: Any, scope: str | None) -> str | None:
    """Return the path of the module whose config has a recipe; None if there is no such module, or more than one.

    It is the model itself, or the one such module in the scope or in a model without a config.
    """
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


def _from_tree(model: Any, with_modules: bool) -> list[Candidate]:
    candidates = sites_from_tree(model)
    if not candidates and not with_modules:
        raise TensorAdaptError(
            f"{type(model).__name__} has no recipe, and its module tree no list of repeated layers that hold linear "
            f"layers (nn.ModuleList or nn.Sequential). {_advice(model)}"
        )
    return candidates


def _advice(model: Any) -> str:
    """Say how a module of a model without repeated layers is adapted, with the name of one that it has."""
    if not (names := adaptable(model)):
        return "Nor has it modules that can be adapted; pass a model that holds linear layers"
    sites = f"ta.find_sites(model, (), modules=({names[0]!r},))"
    more = f"; others are {few(names[1:])}" if names[1:] else ""
    return f'Name the layers to adapt, as in ta.plan({sites}, "lora", rank=1){more}'


def _source(config: Any, row: Recipe) -> str:
    return f"{getattr(config, 'model_type', type(config).__name__)} by recipe {row.name}"
