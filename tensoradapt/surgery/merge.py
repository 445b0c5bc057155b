"""merge and unmerge: fold the updates into the weights, and give back the original ones bit for bit."""

from __future__ import annotations

import torch
from torch import nn

from tensoradapt.adapter import Adapter
from tensoradapt.errors import TensorAdaptError
from tensoradapt.sites import ROOT, Site
from tensoradapt.surgery.adapters import Adapters, attached
from tensoradapt.surgery.attach import restore_weights, written
from tensoradapt.surgery.change import change
from tensoradapt.surgery.checks import DEQUANTISE, check_readable
from tensoradapt.surgery.kinds import matrix_of, weight_of
from tensoradapt.surgery.wrapped import Wrapped, in_matrix, wrapped


def merge(model: nn.Module, *, keep: bool = True) -> None:
    """Adds the updates of the adapters in use to the weights, summed in fp32 or wider and rounded once.

    The originals are kept so that ``unmerge`` restores them bit for bit; ``keep=False`` saves that memory and gives up
    unmerging: ``detach`` then leaves a plain model with the updates in its weights. Non-finite factors and quantised
    weights are refused before any weight changes.
    """
    found = _registered(model)
    if found.merged:
        raise TensorAdaptError("the adapter is already merged; call unmerge(model) first")
    used = list(found.used.values())
    layers = {name: layer for name, layer in wrapped(model) if any(a.used for a, _ in layer.updates)}
    _check(found, layers)
    found.kept = {name: value.detach().clone() for name, value in written(dict(wrapped(model)))} if keep else None
    with torch.no_grad():
        for layer in layers.values():
            _add(layer)
    found.merged = True
    for adapter in used:
        adapter.merged = True


def unmerge(model: nn.Module) -> None:
    """The weights as they were before ``merge``, bit for bit."""
    found = _registered(model)
    if not found.merged:
        raise TensorAdaptError("the adapter is not merged; there is nothing to unmerge")
    if found.kept is None:
        raise TensorAdaptError(
            "the adapter was merged with keep=False, so the original weights are gone; load the base model again"
        )
    restore_weights(model)


def _registered(model: nn.Module) -> Adapters:
    found = getattr(model, ROOT, None)
    if not isinstance(found, Adapters):
        attached(model)  # says that there is none
    return found  # type: ignore[return-value]


def _check(found: Adapters, layers: dict[str, Wrapped]) -> None:
    """What merge refuses, before any weight changes."""
    if not found.used:
        raise TensorAdaptError(f"no adapter is in use, so none can be merged; use(model, {next(iter(found))!r}) first")
    for name, adapter in found.used.items():
        if adapter.per_sample:
            raise TensorAdaptError(
                f"each sample has an adapter of its own, and the weights can have one; use(model, {name!r}) first"
            )
        for key, parameter in adapter.named_parameters():
            if not torch.isfinite(parameter).all():
                raise TensorAdaptError(
                    f"factor {key} has non-finite entries; nothing was merged. Load a good checkpoint first"
                )
    for name, layer in layers.items():
        for adapter, own in layer.updates:
            if adapter.used and adapter.bias(own[0].sites[0]) is not None and layer.bias is None:
                raise TensorAdaptError(f"{name} has no bias to merge the adapter's shared bias into; use it unmerged")
        for site in layer.sites:
            check_readable(layer.base, site, "merge", f"{DEQUANTISE} and attach to that, or use the adapter unmerged")


def _add(layer: Wrapped) -> None:
    used = [(adapter, own) for adapter, own in layer.updates if adapter.used]
    places = {(s.parameter, s.slot): s for _, own in used for strip in own for s in strip.sites}
    for (parameter, slot), site in places.items():
        matrix = matrix_of(layer.base, site)
        wide = matrix.to(torch.promote_types(matrix.dtype, torch.float32))
        summed = wide.clone()
        for adapter, own in used:
            if here := in_matrix(own, parameter, slot):
                summed += adapter.shared(change(adapter, here, wide))
        weight = weight_of(layer.base, site)
        weight.copy_(layer.kind.stored(summed, weight.shape))
    for adapter, own in used:
        _add_bias(layer, adapter, own[0].sites[0])


def _add_bias(layer: Wrapped, adapter: Adapter, site: Site) -> None:
    if (own := adapter.bias(site)) is not None:
        wide = torch.promote_types(layer.bias.dtype, torch.float32)
        layer.bias.copy_(layer.bias.to(wide) + adapter.shared(own.to(layer.bias.device, wide)))
