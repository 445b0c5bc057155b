"""attach and detach: put an adapter into a model, and take it out leaving every bit as it was."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from tensoradapt.adapter import Adapter
from tensoradapt.errors import TensorAdaptError
from tensoradapt.plan import Plan, trained_module
from tensoradapt.sites import ROOT, Site
from tensoradapt.surgery.kinds import kind_of
from tensoradapt.surgery.wrapped import Wrapped

SAMPLE = 1024  # entries of each base weight that the hash covers
Before = tuple[dict[str, bool], dict[str, Tensor]]


def attach(model: nn.Module, plan: Plan, *, seed: int = 0, dropout: float = 0.0) -> Adapter:
    """Wraps the plan's layers and registers the adapter at the model's root; the output does not change.

    Freezes the base, all but the modules in ``plan.train``. Factors are fp32 (torch's default dtype) on each base's
    device. Raises TensorAdaptError, with the model untouched, for a root that is a container, a second attach, dropout
    or seed out of range, and modules that are missing or not of the planned shape.
    """
    by_module = _check(model, plan, seed, dropout)
    heads = {name: trained_module(model, name) for name in plan.train}
    numbers = {id(p): p.numel() for head in heads.values() for p in head.parameters()}
    adapter = Adapter(replace(plan, n_trained_base=sum(numbers.values())), seed)
    first = model.get_submodule(next(iter(by_module))).weight
    adapter.to(first.device)  # type: ignore[union-attr, arg-type]
    adapter.before = _remember(model, heads)
    adapter.follow(heads, dropout, base_hash(model, plan))
    for parameter in model.parameters():
        parameter.requires_grad_(id(parameter) in numbers)
    for name, sites in by_module.items():
        model.set_submodule(name, Wrapped(model.get_submodule(name), adapter, sites, dropout))
    model.add_module(ROOT, adapter)
    return adapter


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
    for name in dict.fromkeys(site.module for site in plan.sites):
        if name not in modules:
            continue  # attach names it
        weight: Tensor = modules[name].weight  # type: ignore[assignment]
        digest.update(name.encode() + weight.detach().flatten()[:SAMPLE].double().cpu().numpy().tobytes())
    return digest.hexdigest()


def restore_weights(model: nn.Module, adapter: Adapter) -> None:
    """Puts back the weights that merge kept."""
    with torch.no_grad():
        for name, module in wrapped(model):
            module.weight.copy_(adapter.kept[name])  # type: ignore[index]
    adapter.kept, adapter.merged = None, False


def _remember(model: nn.Module, heads: dict[str, nn.Module]) -> Before:
    flags = {name: p.requires_grad for name, p in model.named_parameters()}
    values = {f"{name}.{key}": p.detach().clone() for name, head in heads.items() for key, p in head.named_parameters()}
    return flags, values


def _check(model: nn.Module, plan: Plan, seed: int, dropout: float) -> dict[str, tuple[Site, ...]]:
    """Everything attach can refuse; returns the plan's sites by module."""
    if isinstance(model, nn.Sequential | nn.ModuleList | nn.ModuleDict):
        raise TensorAdaptError(
            f"the root is an nn.{type(model).__name__}, where a registered adapter would become one of its stages; "
            "wrap it in a module of your own and attach to that"
        )
    if isinstance(getattr(model, ROOT, None), Adapter):
        raise TensorAdaptError(f"{type(model).__name__} already has an adapter attached; call detach(model) first")
    if isinstance(dropout, bool) or not isinstance(dropout, int | float) or not 0 <= dropout < 1:
        raise TensorAdaptError(f"dropout is {dropout!r}; expected a number from 0 up to, not including, 1")
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise TensorAdaptError(f"seed is {seed!r}; expected a whole number from 0 up to 2**63 - 1")
    modules = dict(model.named_modules())
    found: dict[str, list[Site]] = {}
    for site in plan.sites:
        _check_site(modules, site, type(model).__name__)
        found.setdefault(site.module, []).append(site)
    _check_train(plan, found)
    return {name: tuple(sites) for name, sites in found.items()}


def _check_site(modules: dict[str, nn.Module], site: Site, model: str) -> None:
    if site.module not in modules:
        raise TensorAdaptError(
            f"site {site.name}: {model} has no module {site.module!r}. The plan was made for another model "
            "(or from a config, whose names may lack a prefix): make it from this one"
        )
    module = modules[site.module]
    stored: Tensor = kind_of(module, site.name).logical(module.weight)  # type: ignore[arg-type]
    if not stored.is_floating_point():
        raise TensorAdaptError(f"site {site.name} holds {stored.dtype} weights; expected floating point ones")
    rows = stored.shape[0] if site.rows is None else site.rows[1] - site.rows[0]
    fits = (rows, stored.shape[1]) == (site.out, site.in_) and (site.rows is None or site.rows[1] <= stored.shape[0])
    if not fits:
        raise TensorAdaptError(
            f"site {site.name} is {site.out} x {site.in_} in the plan and the module's matrix is "
            f"{stored.shape[0]} x {stored.shape[1]}; make the plan from this model"
        )


def _check_train(plan: Plan, found: dict[str, list[Site]]) -> None:
    for name in plan.train:
        if hit := [module for module in found if module == name or module.startswith(f"{name}.")]:
            raise TensorAdaptError(
                f"train names {name!r}, which holds the adapted module {hit[0]!r}; a weight is adapted or trained, "
                f"not both"
            )
