"""merge and unmerge: fold the updates into the weights, and give back the original ones bit for bit."""

from __future__ import annotations

import torch
from torch import nn

from tensoradapt.adapter import Adapter
from tensoradapt.errors import TensorAdaptError
from tensoradapt.surgery.attach import attached, restore_weights, wrapped, written
from tensoradapt.surgery.checks import DEQUANTISE, check_readable
from tensoradapt.surgery.kinds import matrix_of, weight_of
from tensoradapt.surgery.wrapped import Wrapped


def merge(model: nn.Module, *, keep: bool = True) -> None:
    """Adds every update to its weight, summed in fp32 or wider and rounded once.

    The originals are kept so that ``unmerge`` restores them bit for bit; ``keep=False`` saves that memory and gives up
    unmerging: ``detach`` then leaves a plain model with the updates in its weights. Non-finite factors and quantised
    weights are refused before any weight changes.
    """
    adapter = attached(model)
    if adapter.merged:
        raise TensorAdaptError("the adapter is already merged; call unmerge(model) first")
    for name, parameter in adapter.named_parameters():
        if not torch.isfinite(parameter).all():
            raise TensorAdaptError(
                f"factor {name} has non-finite entries; nothing was merged. Load a good checkpoint first"
            )
    layers = dict(wrapped(model))
    for name, layer in layers.items():
        if adapter.bias(layer.sites[0]) is not None and layer.bias is None:
            raise TensorAdaptError(f"{name} has no bias to merge the adapter's shared bias into; use it unmerged")
        check_readable(
            layer.base, layer.sites[0], "merge", f"{DEQUANTISE} and attach to that, or use the adapter unmerged"
        )
    adapter.kept = {name: value.detach().clone() for name, value in written(layers)} if keep else None
    with torch.no_grad():
        for layer in layers.values():
            _add(layer, adapter)
    adapter.merged = True


def unmerge(model: nn.Module) -> None:
    """The weights as they were before ``merge``, bit for bit."""
    adapter = attached(model)
    if not adapter.merged:
        raise TensorAdaptError("the adapter is not merged; there is nothing to unmerge")
    if adapter.kept is None:
        raise TensorAdaptError(
            "the adapter was merged with keep=False, so the original weights are gone; load the base model again"
        )
    restore_weights(model, adapter)


def _add(layer: Wrapped, adapter: Adapter) -> None:
    for site in layer.sites:
        matrix = matrix_of(layer.base, site)
        wide = torch.promote_types(matrix.dtype, torch.float32)
        summed = matrix.to(wide, copy=True)
        summed[site.block] += adapter.delta(site).to(matrix.device, wide)
        weight = weight_of(layer.base, site)
        weight.copy_(layer.kind.stored(summed, weight.shape))
    if (bias := adapter.bias(layer.sites[0])) is not None:
        wide = torch.promote_types(layer.bias.dtype, torch.float32)  # type: ignore[union-attr]
        layer.bias.copy_(layer.bias.to(wide) + bias.to(layer.bias.device, wide))  # type: ignore[union-attr]
