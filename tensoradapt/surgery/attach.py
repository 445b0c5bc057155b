"""attach and detach: put an adapter into a model, and take it out leaving every bit as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tensoradapt.adapter.adapter import Adapter
from tensoradapt.adapter.attachment import Attachment, origin_of
from tensoradapt.layers.kinds import matrix_of, weight_of
from tensoradapt.layers.weight_change import lengths
from tensoradapt.layers.wrapper import Wrapped
from tensoradapt.planning.plan import Plan
from tensoradapt.planning.trained_modules import trained_modules
from tensoradapt.sites.unwrapped import ROOT
from tensoradapt.surgery.base_weights import base_hash, factors_from_weights
from tensoradapt.surgery.checks import Values, check_attach, checked_values
from tensoradapt.surgery.fast_paths import switch_off_fast_paths
from tensoradapt.surgery.gradient_start import gradient_values
from tensoradapt.surgery.registry import Adapters, original_modules, registered
from tensoradapt.surgery.use import use


def attach(
    model: nn.Module,
    plan: Plan,
    *,
    seed: int = 0,
    dropout: float = 0.0,
    rank_dropout: float = 0.0,
    values: Sequence[Mapping[str, Tensor | np.ndarray]] | None = None,
    batches: Iterable[Any] | None = None,
    loss: Callable[[nn.Module, Any], Tensor] | None = None,
    name: str = "default",
) -> Adapter:
    """Wraps the plan's layers and registers the adapter at the model's root; the output does not change (but for
    ``start="paper"``, where the paper does not start at zero).

    Freezes the base, all but the modules in ``plan.train``. Factors are fp32 (torch's default dtype) on each base's
    device. ``dropout``: of the input of the updates (not of embeddings', nor of layers computed with W + delta);
    ``rank_dropout``: of the components of each update, the R rows of its pair. ``values``: of each tensor of the plan,
    all its stored factors, in the place of drawn ones (from ``compress``). ``batches``: for ``start="gradient"``, the
    batches whose gradient it takes; ``loss`` as in ``fit``. ``name``: of the adapter in the model, which may have
    several; the new one is used alone until ``use`` says otherwise.

    Raises TensorAdaptError, with the model untouched, for a root that is a container, a name that is taken, dropout or
    seed out of range, modules that are missing or not of the planned shape, weights on the meta device, quantised
    weights where the factors come from them, and values that are not those of the plan's tensors.
    """
    given = None if values is None else checked_values(plan, values)
    return attach_with(model, plan, seed, (dropout, rank_dropout), given, batches, loss, name=name)


def attach_with(
    model: nn.Module,
    plan: Plan,
    seed: int,
    dropouts: tuple[float, float],  # of the updates' input, and of their components
    values: Values | None,
    batches: Iterable[Any] | None = None,
    loss: Callable[[nn.Module, Any], Tensor] | None = None,
    scales: Sequence[float] | None = None,
    name: str = "default",
) -> Adapter:
    """``attach`` with values of some factors only; the others are drawn. ``scales``: known multipliers."""
    modules = original_modules(model)
    by_module = check_attach(model, modules, plan, seed, dropouts, name, reads=plan.needs_weights and values is None)
    heads = trained_modules(model, plan.train, plan.published)
    numbers = {id(p): p.numel() for head in heads.values() for p in head.parameters()}
    if plan.needs_weights and values is None:
        values = based = factors_from_weights(modules, plan, seed)
        if plan.start == "gradient":
            values = gradient_values(model, modules, plan, batches, loss, based, seed)
    adapter = Adapter(replace(plan, n_trained_base=sum(numbers.values()), family=None), seed, values, scales)
    first = plan.sites[0]
    adapter.to(weight_of(modules[first.module], first).device)
    set_magnitudes(adapter, modules)
    adapter.attachment = Attachment(*dropouts, heads, base_hash(modules, plan), origin_of(model))
    _register(model, name, adapter)
    for module, sites in by_module.items():
        if not isinstance(layer := model.get_submodule(module), Wrapped):
            model.set_submodule(module, layer := Wrapped(layer, sites[0]))
        layer.add(adapter, sites)
    switch_off_fast_paths(model)
    use(model, name)
    return adapter


def _register(model: nn.Module, name: str, adapter: Adapter) -> None:
    if (found := registered(model)) is None:
        model.add_module(ROOT, found := Adapters(model))
        for parameter in model.parameters():
            parameter.requires_grad_(False)
    for key, parameter in adapter.attachment.head_parameters().items():
        found.originals.setdefault(key, parameter.detach().clone())
    found[name] = adapter


@torch.no_grad()
def set_magnitudes(adapter: Adapter, modules: Mapping[str, nn.Module]) -> None:
    """DoRA starts with the lengths that the rows of W + delta have."""
    for row_block in adapter.plan.row_blocks:
        site = row_block.sites[0]
        matrix = matrix_of(modules[site.module], site)
        adapter.magnitudes.of(row_block).copy_(lengths(adapter, row_block, matrix))
