"""attach and detach: put an adapter into a model, and take it out leaving every bit as it was."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tensoradapt import parameterizations
from tensoradapt.adapter import Adapter
from tensoradapt.errors import TensorAdaptError
from tensoradapt.init import starts_at_zero
from tensoradapt.plan import Group, Plan
from tensoradapt.sites import ROOT
from tensoradapt.stacking import stack
from tensoradapt.surgery.checks import Values, check_attach, check_loaded, checked_values
from tensoradapt.surgery.gradients import gradient_values
from tensoradapt.surgery.kinds import block_of, weight_of
from tensoradapt.surgery.wrapped import Wrapped
from tensoradapt.trained import trained_modules

SAMPLE = 1024  # entries of each base weight that the hash covers
Before = tuple[dict[str, bool], dict[str, Tensor]]


def attach(
    model: nn.Module,
    plan: Plan,
    *,
    seed: int = 0,
    dropout: float = 0.0,
    values: Sequence[Mapping[str, Tensor | np.ndarray]] | None = None,
    batches: Iterable[Any] | None = None,
    loss: Callable[[nn.Module, Any], Tensor] | None = None,
) -> Adapter:
    """Wraps the plan's layers and registers the adapter at the model's root; the output does not change (but for
    ``start="paper"``, where the paper does not start at zero).

    Freezes the base, all but the modules in ``plan.train``. Factors are fp32 (torch's default dtype) on each base's
    device. ``values``: of each tensor of the plan, all its stored factors, in the place of drawn ones (from
    ``compress``). ``batches``: for ``start="gradient"``, the batches whose gradient it takes; ``loss`` as in ``fit``.
    Raises TensorAdaptError, with the model untouched, for a root that is a container, a second attach, dropout or seed
    out of range, modules that are missing or not of the planned shape, weights on the meta device, quantised weights
    where the factors come from them, and values that are not those of the plan's tensors.
    """
    given = None if values is None else checked_values(plan, values)
    return attach_with(model, plan, seed, dropout, given, batches, loss)


def attach_with(
    model: nn.Module,
    plan: Plan,
    seed: int,
    dropout: float,
    values: Values | None,
    batches: Iterable[Any] | None = None,
    loss: Callable[[nn.Module, Any], Tensor] | None = None,
    scales: Sequence[float] | None = None,
) -> Adapter:
    """``attach`` with values of some factors only; the others are drawn. ``scales``: known multipliers."""
    by_module = check_attach(model, plan, seed, dropout, reads=plan.needs_weights and values is None)
    heads = trained_modules(model, plan.train, plan.published)
    numbers = {id(p): p.numel() for head in heads.values() for p in head.parameters()}
    if plan.needs_weights and values is None:
        values = based = [_from_weights(dict(model.named_modules()), group, plan, seed) for group in plan.groups]
        if plan.start == "gradient":
            values = gradient_values(model, plan, batches, loss, based, seed)
    adapter = Adapter(replace(plan, n_trained_base=sum(numbers.values()), family=None), seed, values, scales)
    first = plan.sites[0]
    adapter.to(weight_of(model.get_submodule(first.module), first).device)
    adapter.before = _remember(model, heads)
    adapter.follow(heads, dropout, base_hash(model, plan))
    for parameter in model.parameters():
        parameter.requires_grad_(id(parameter) in numbers)
    for name, sites in by_module.items():
        model.set_submodule(name, Wrapped(model.get_submodule(name), adapter, sites, dropout))
    model.add_module(ROOT, adapter)
    return adapter


def _from_weights(modules: dict[str, nn.Module], group: Group, plan: Plan, seed: int) -> dict[str, Tensor]:
    """The factors of one tensor that come from the base weights, by the parameterization's own decomposition."""
    based = [factor for factor in group.network.factors if factor.source == "base"]
    if plan.start == "gradient":
        based = [factor for factor in based if not factor.trainable]
    wanted = [factor.name for factor in based if not starts_at_zero(factor, plan.start)]
    if not wanted:
        return {}
    weights = stack(group, lambda site: block_of(modules[site.module], site))
    found = parameterizations.get(plan.family).decompose(group.network, weights.numpy(), seed=seed)
    return {name: torch.from_numpy(np.ascontiguousarray(found[name])) for name in wanted}


def detach(model: nn.Module) -> Adapter:
    """Takes the adapter out; weights, heads, requires_grad flags and module tree are bit for bit as before attach.

    A merged model is unmerged first; one merged with ``keep=False`` keeps its merged weights. Returns the adapter.
    """
    adapter = attached(model)
    if adapter.merged and adapter.kept is not None:
        restore_weights(model, adapter)
    flags, values = adapter.before  # type: ignore[misc]
    for name, module in list(wrapped(model)):
        model.set_submodule(name, module.base)
    delattr(model, ROOT)
    named = dict(model.named_parameters())
    with torch.no_grad():
        for name, value in values.items():
            named[name].copy_(value)
    for name, flag in flags.items():
        named[name].requires_grad_(flag)
    return adapter


@contextmanager
def disabled(model: nn.Module) -> Iterator[None]:
    """Within it the model computes what it did before attach (trained heads stay)."""
    adapter = attached(model)
    if adapter.merged:
        raise TensorAdaptError(
            "the adapter is merged into the weights and cannot be disabled; call unmerge(model) first"
        )
    with adapter.disabled():
        yield


def attached(model: nn.Module) -> Adapter:
    """The adapter in a model."""
    adapter = getattr(model, ROOT, None)
    if not isinstance(adapter, Adapter):
        raise TensorAdaptError(f"{type(model).__name__} has no adapter attached; call attach(model, plan) first")
    return adapter


def wrapped(model: nn.Module) -> Iterator[tuple[str, Wrapped]]:
    """Names and wrapped layers of a model."""
    return ((name, module) for name, module in model.named_modules() if isinstance(module, Wrapped))


def base_hash(model: nn.Module, plan: Plan) -> str:
    """A hash over the first entries of every weight the plan adapts: tells bases apart, cheaply at any size."""
    digest, modules = hashlib.sha256(), dict(model.named_modules())
    for site in plan.sites:
        if site.module not in modules:
            continue  # attach names it
        check_loaded(modules[site.module], site)
        weight = weight_of(modules[site.module], site)
        digest.update(site.name.encode() + weight.detach().flatten()[:SAMPLE].double().cpu().numpy().tobytes())
    return digest.hexdigest()


def restore_weights(model: nn.Module, adapter: Adapter) -> None:
    """Puts back the weights that merge kept."""
    with torch.no_grad():
        for name, value in written(dict(wrapped(model))):
            value.copy_(adapter.kept[name])  # type: ignore[index]
    adapter.kept, adapter.merged = None, False


def written(layers: Mapping[str, Wrapped]) -> Iterator[tuple[str, Tensor]]:
    """Weights and biases that merging changes."""
    for name, layer in layers.items():
        for parameter in dict.fromkeys(site.parameter for site in layer.sites):
            yield f"{name}.{parameter}", layer.base.get_parameter(parameter)
        if layer._adapter[0].biases and getattr(layer, "bias", None) is not None:
            yield f"{name}.bias", layer.bias


def _remember(model: nn.Module, heads: dict[str, nn.Module]) -> Before:
    flags = {name: p.requires_grad for name, p in model.named_parameters()}
    values = {f"{name}.{key}": p.detach().clone() for name, head in heads.items() for key, p in head.named_parameters()}
    return flags, values
