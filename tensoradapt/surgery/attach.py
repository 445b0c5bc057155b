"""attach and detach: put an adapter into a model, and take it out leaving every bit as it was."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tensoradapt import parameterizations
from tensoradapt.adapter.adapter import Adapter
from tensoradapt.adapter.dense_stack import stack
from tensoradapt.adapter.draws import starts_at_zero
from tensoradapt.adapter.sharding import refuse_sharded
from tensoradapt.errors import TensorAdaptError
from tensoradapt.layers.kinds import block_of, matrix_of, weight_of
from tensoradapt.layers.quantised import quantised
from tensoradapt.layers.weight_change import lengths
from tensoradapt.layers.wrapper import Wrapped, wrapped
from tensoradapt.planning.plan import Group, Plan
from tensoradapt.planning.trained_modules import trained_modules
from tensoradapt.sites.unwrapped import ROOT
from tensoradapt.storage.card import origin_of
from tensoradapt.surgery.checks import Values, check_attach, check_loaded, checked_values
from tensoradapt.surgery.gradient_start import gradient_values
from tensoradapt.surgery.registry import Adapters, attached, give_heads, original_modules, registered, required
from tensoradapt.surgery.use import use

SAMPLE = 1024  # entries of each base weight that the hash covers
FUSED = "activation_relu_or_gelu"  # of an encoder layer: which of them its fused kernel is to use, 0 for neither


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
    adapter.follow(heads, dropouts, base_hash(modules, plan), origin_of(model))
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
    for key, parameter in adapter.head_parameters().items():
        found.originals.setdefault(key, parameter.detach().clone())
    found[name] = adapter


@torch.no_grad()
def set_magnitudes(adapter: Adapter, modules: Mapping[str, nn.Module]) -> None:
    """DoRA starts with the lengths that the rows of W + delta have."""
    for strip in adapter.plan.strips:
        site = strip.sites[0]
        matrix = matrix_of(modules[site.module], site)
        adapter.magnitude(strip).copy_(lengths(adapter, strip, matrix))


def factors_from_weights(modules: Mapping[str, nn.Module], plan: Plan, seed: int) -> list[dict[str, Tensor]]:
    """Of each tensor of a plan, the factors that come from the base weights; ``modules``: by the names of the sites."""
    return [_from_weights(modules, group, plan, seed) for group in plan.groups]


def _from_weights(modules: Mapping[str, nn.Module], group: Group, plan: Plan, seed: int) -> dict[str, Tensor]:
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


def detach(model: nn.Module, name: str | None = None) -> Adapter:
    """Takes an adapter out; without its last one, weights, heads, requires_grad flags and module tree of the model are
    bit for bit as before attach.

    A merged model is unmerged first; one merged with ``keep=False`` keeps its merged weights. ``name`` is needed where
    there are several. Returns the adapter, which still has the heads it trained.
    """
    adapter = attached(model, name)
    refuse_sharded(model, "detach")
    found: Adapters = getattr(model, ROOT)
    name = next(key for key, one in found.named().items() if one is adapter)
    if found.merged and found.kept is not None:
        restore_weights(model)
    give_heads(model, [key for key in found.used if key != name])
    for module, layer in list(wrapped(model)):
        if not layer.remove(adapter):
            model.set_submodule(module, layer.base)
    del found[name]
    if not found.named():
        _unregister(model, found)
    return adapter


def _unregister(model: nn.Module, found: Adapters) -> None:
    delattr(model, ROOT)
    for module, attribute, value in found.fast:
        setattr(module, attribute, value)
    for key, parameter in model.named_parameters():
        parameter.requires_grad_(found.flags.get(key, parameter.requires_grad))  # it may be newer than the adapter


@contextmanager
def disabled(model: nn.Module) -> Iterator[None]:
    """Within it the model computes what it did before attach (trained heads stay)."""
    found = required(model)
    if found.merged:
        raise TensorAdaptError(
            "the adapter is merged into the weights and cannot be disabled; call unmerge(model) first"
        )
    with ExitStack() as held:
        for adapter in found.named().values():
            held.enter_context(adapter.disabled())
        yield


def switch_off_fast_paths(model: nn.Module) -> None:
    """In evaluation torch's encoder computes from the weights of its layers without calling them; here it must not."""
    found: Adapters = getattr(model, ROOT)
    for module, attribute, off in fast_paths(model, Wrapped):
        found.fast.append((module, attribute, getattr(module, attribute)))
        setattr(module, attribute, off)


def fast_paths(model: nn.Module, adapted: type[nn.Module]) -> Iterator[tuple[nn.Module, str, Any]]:
    """Torch's fast paths that are on in modules with adapted layers: module, attribute, and what switches it off."""
    for module in model.modules():
        switches = (nn.TransformerEncoder, "use_nested_tensor", False), (nn.TransformerEncoderLayer, FUSED, 0)
        for kind, attribute, off in switches:
            holds = isinstance(module, kind) and any(isinstance(part, adapted) for part in module.modules())
            if holds and getattr(module, attribute, off) != off:
                yield module, attribute, off


def base_hash(modules: Mapping[str, nn.Module], plan: Plan) -> str:
    """A hash over the first entries of every weight the plan adapts: tells bases apart, cheaply at any size."""
    digest = hashlib.sha256()
    for site in plan.sites:
        if site.module not in modules:
            continue  # attach names it
        check_loaded(modules[site.module], site)
        packed = quantised(modules[site.module])
        weight = packed.matrix(modules[site.module]) if packed else weight_of(modules[site.module], site)
        digest.update(site.name.encode() + weight.detach().flatten()[:SAMPLE].double().cpu().numpy().tobytes())
    return digest.hexdigest()


def restore_weights(model: nn.Module) -> None:
    """Puts back the weights that merge kept."""
    found: Adapters = getattr(model, ROOT)
    with torch.no_grad():
        for name, value in written(dict(wrapped(model))):
            value.copy_(found.kept[name])  # type: ignore[index]
    for name, layer in wrapped(model):
        if (state := found.packed.get(name)) is not None:
            quantised(layer.base).restore(layer.base, state)  # type: ignore[union-attr]
    found.kept, found.packed, found.merged = None, {}, False
    for adapter in found.named().values():
        adapter.merged = False


def written(layers: Mapping[str, Wrapped]) -> Iterator[tuple[str, Tensor]]:
    """Weights and biases that merging changes in place: all but quantised ones."""
    for name, layer in layers.items():
        for parameter in dict.fromkeys(site.parameter for site in layer.sites if quantised(layer.base) is None):
            yield f"{name}.{parameter}", layer.base.get_parameter(parameter)
        if any(adapter.biases for adapter, _ in layer.updates) and getattr(layer, "bias", None) is not None:
            yield f"{name}.bias", layer.bias
