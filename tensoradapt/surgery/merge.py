"""merge and unmerge: fold the updates into the weights, and give back the original ones bit for bit."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tensoradapt.adapter.adapter import Adapter
from tensoradapt.adapter.sharding import refuse_sharded
from tensoradapt.errors import TensorAdaptError
from tensoradapt.layers.kinds import matrix_of, weight_of
from tensoradapt.layers.quantised import quantised
from tensoradapt.layers.weight_change import change
from tensoradapt.layers.wrapper import Wrapped, in_matrix, wrapped
from tensoradapt.sites.site import Site
from tensoradapt.sites.unwrapped import ROOT
from tensoradapt.surgery.checks import DEQUANTISE, check_readable
from tensoradapt.surgery.registry import Adapters, required

UNMERGED = f"{DEQUANTISE} and attach to that, or use the adapter unmerged"


@dataclass(frozen=True)
class MergeResult:
    """By layer, how much of its change rounding lost: the distance between what is stored and W + delta, over the norm
    of delta (0 without any).
    """

    lost: Mapping[str, float]

    def __repr__(self) -> str:
        worst = max(self.lost.values())
        return f"merged into {len(self.lost)} layers; rounding lost at most {worst:.2g} of a layer's change"


def merge(model: nn.Module, *, keep: bool = True) -> MergeResult:
    """Adds the updates of the adapters in use to the weights, summed in fp32 or wider and rounded once; quantised
    weights (bitsandbytes, torchao int8) are dequantised and quantised again.

    The originals are kept so that ``unmerge`` restores them bit for bit; ``keep=False`` saves that memory and gives up
    unmerging: ``detach`` then leaves a plain model with the updates in its weights. Returns what
    rounding lost, layer by layer. Non-finite factors and weights stored in other ways are refused before any weight
    changes.
    """
    found = required(model)
    if found.merged:
        raise TensorAdaptError("the adapter is already merged; call unmerge(model) first")
    refuse_sharded(model, "merge")
    used = list(found.used.values())
    layers = {name: layer for name, layer in wrapped(model) if any(a.gate.used for a, _ in layer.updates)}
    _check(found, layers)
    found.kept = {name: value.detach().clone() for name, value in written(dict(wrapped(model)))} if keep else None
    states = {name: (packed, layer.base) for name, layer in layers.items() if (packed := quantised(layer.base))}
    found.packed = {name: packed.state(base) for name, (packed, base) in states.items() if keep}
    with torch.no_grad():
        lost = {name: _add(layer) for name, layer in layers.items()}
    found.merged = True
    for adapter in used:
        adapter.gate.merged = True
    return MergeResult(lost)


def unmerge(model: nn.Module) -> None:
    """The weights as they were before ``merge``, bit for bit."""
    found = required(model)
    if not found.merged:
        raise TensorAdaptError("the adapter is not merged; there is nothing to unmerge")
    if found.kept is None:
        raise TensorAdaptError(
            "the adapter was merged with keep=False, so the original weights are gone; load the base model again"
        )
    restore_weights(model)


def _check(found: Adapters, layers: dict[str, Wrapped]) -> None:
    """What merge refuses, before any weight changes."""
    if not found.used:
        raise TensorAdaptError(f"no adapter is in use, so none can be merged; use(model, {next(iter(found))!r}) first")
    for name, adapter in found.used.items():
        if adapter.gate.per_sample:
            raise TensorAdaptError(
                f"each sample has an adapter of its own, and the weights can have one; use(model, {name!r}) first"
            )
        for key, parameter in adapter.named_parameters():
            if not torch.isfinite(parameter).all():
                raise TensorAdaptError(
                    f"factor {key} has non-finite entries; nothing was merged. Load a good checkpoint first"
                )
    for name, layer in layers.items():
        _check_layer(name, layer)


def _check_layer(name: str, layer: Wrapped) -> None:
    if (
        any(one.gate.used and one.bias(own[0].sites[0]) is not None for one, own in layer.updates)
        and layer.bias is None
    ):
        raise TensorAdaptError(f"{name} has no bias to merge the adapter's shared bias into; use it unmerged")
    for site in layer.sites:
        check_readable(layer.base, site, "merge", UNMERGED)
    if (packed := quantised(layer.base)) and packed.store is None:
        weight = type(layer.base.weight).__name__
        raise TensorAdaptError(f"{name} holds a {weight} of {packed.name}, which cannot be made anew. {UNMERGED}")


def _add(layer: Wrapped) -> float:
    """Changes one layer's weights; the share of the change that was lost in storing it."""
    used = [(adapter, own) for adapter, own in layer.updates if adapter.gate.used]
    places = {(s.parameter, s.slot): s for _, own in used for row_block in own for s in row_block.sites}
    lost = size = 0.0
    for (parameter, slot), site in places.items():
        matrix = matrix_of(layer.base, site)
        wide = matrix.to(torch.promote_types(matrix.dtype, torch.float32))
        summed = wide.clone()
        for adapter, own in used:
            if here := in_matrix(own, parameter, slot):
                summed += adapter.gate.times_share(change(adapter, here, wide))
        _store(layer, site, summed)
        lost += float((matrix_of(layer.base, site).to(wide) - summed).square().sum())
        size += float((summed - wide).square().sum())
    for adapter, own in used:
        _add_bias(layer, adapter, own[0].sites[0])
    return math.sqrt(lost / size) if size else 0.0


def _store(layer: Wrapped, site: Site, matrix: Tensor) -> None:
    if (packed := quantised(layer.base)) is not None:
        packed.store(layer.base, matrix)  # type: ignore[misc]  # refused before where it is None
        return
    weight = weight_of(layer.base, site)
    weight.copy_(layer.kind.stored(matrix, weight.shape))


def _add_bias(layer: Wrapped, adapter: Adapter, site: Site) -> None:
    if (own := adapter.bias(site)) is not None:
        wide = torch.promote_types(layer.bias.dtype, torch.float32)
        layer.bias.copy_(layer.bias.to(wide) + adapter.gate.times_share(own.to(layer.bias.device, wide)))


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
        adapter.gate.merged = False


def written(layers: Mapping[str, Wrapped]) -> Iterator[tuple[str, Tensor]]:
    """Weights and biases that merging changes in place: all but quantised ones."""
    for name, layer in layers.items():
        for parameter in dict.fromkeys(site.parameter for site in layer.sites if quantised(layer.base) is None):
            yield f"{name}.{parameter}", layer.base.get_parameter(parameter)
        if any(adapter.biases for adapter, _ in layer.updates) and getattr(layer, "bias", None) is not None:
            yield f"{name}.bias", layer.bias
