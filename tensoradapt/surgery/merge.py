"""merge and unmerge: fold the updates into the weights, and give back the original ones bit for bit."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tensoradapt.adapter.adapter import Adapter
from tensoradapt.adapter.sharding import refuse_sharded
from tensoradapt.errors import TensorAdaptError
from tensoradapt.layers.quantised import quantised
from tensoradapt.layers.stored_matrix import StoredMatrix
from tensoradapt.layers.weight_change import change
from tensoradapt.layers.wrapper import Update, Wrapped, in_matrix, wrapped
from tensoradapt.surgery.checks import DEQUANTISE, check_readable
from tensoradapt.surgery.registry import Adapters, required

UNMERGED = f"{DEQUANTISE} and attach to that, or use the adapter unmerged"


@dataclass(frozen=True)
class MergeResult:
    """The share of each layer's change that rounding lost: ``|stored - (W + delta)| / |delta|``, 0 without any."""

    lost: Mapping[str, float]

    def __repr__(self) -> str:
        worst = max(self.lost.values())
        return f"merged into {len(self.lost)} layers; rounding lost at most {worst:.2g} of a layer's change"


def merge(model: nn.Module, *, keep: bool = True) -> MergeResult:
    """Add the updates of the adapters in use to the weights, summed in fp32 or wider and rounded once.

    Quantised weights (bitsandbytes, torchao int8) are dequantised and quantised again.

    Args:
        model: a model with an adapter.
        keep: keep the original weights, for ``unmerge``. ``False`` saves that memory and cannot be undone: ``detach``
            then leaves a plain model with the updates in its weights.

    Returns:
        What rounding lost in each layer.

    Raises:
        TensorAdaptError: before any weight changes, for factors that are not finite, and weights stored in other ways.
    """
    registry = required(model)
    if registry.merged:
        raise TensorAdaptError("the adapter is already merged; call unmerge(model) first")
    refuse_sharded(model, "merge")
    _check_adapters(registry)
    used = {name: (layer, [u for u in layer.updates if u[0].gate.used]) for name, layer in wrapped(model)}
    layers = {name: (layer, updates) for name, (layer, updates) in used.items() if updates}
    for layer, updates in layers.values():
        check_mergeable(layer, updates)
    registry.kept = [Snapshot.of(layer) for layer, _ in layers.values()] if keep else None
    lost = {name: merge_layer(layer, updates) for name, (layer, updates) in layers.items()}
    _mark(registry, registry.used.values(), merged=True)
    return MergeResult(lost)


def unmerge(model: nn.Module) -> None:
    """Put back the weights as they were before ``merge``, bit for bit."""
    registry = required(model)
    if not registry.merged:
        raise TensorAdaptError("the adapter is not merged; there is nothing to unmerge")
    if registry.kept is None:
        raise TensorAdaptError(
            "the adapter was merged with keep=False, so the original weights are gone; load the base model again"
        )
    restore_weights(registry)


def restore_weights(registry: Adapters) -> None:
    """Put back the weights that merge kept."""
    for snapshot in registry.kept or ():
        snapshot.restore()
    registry.kept = None
    _mark(registry, registry.named().values(), merged=False)


def _mark(registry: Adapters, adapters: Iterable[Adapter], merged: bool) -> None:
    registry.merged = merged
    for adapter in adapters:
        adapter.gate.merged = merged


def _check_adapters(registry: Adapters) -> None:
    if not registry.used:
        name = next(iter(registry))
        raise TensorAdaptError(f"no adapter is in use, so none can be merged; use(model, {name!r}) first")
    for name, adapter in registry.used.items():
        if adapter.gate.per_sample:
            raise TensorAdaptError(
                f"each sample has an adapter of its own, and the weights can have one; use(model, {name!r}) first"
            )
        for key, parameter in adapter.named_parameters():
            if not torch.isfinite(parameter).all():
                raise TensorAdaptError(
                    f"factor {key} has non-finite entries; nothing was merged. Load a good checkpoint first"
                )


def check_mergeable(layer: Wrapped, updates: Sequence[Update]) -> None:
    """Raise TensorAdaptError for weights that cannot be read or stored again, and for a bias that has no place."""
    for matrix in _touched(layer, updates):
        name, form = matrix.site.module, matrix.quantisation
        if _bias(layer) is None and any(adapter.bias(blocks[0].sites[0]) is not None for adapter, blocks in updates):
            raise TensorAdaptError(f"{name} has no bias to merge the adapter's shared bias into; use it unmerged")
        check_readable(matrix, "merge", UNMERGED)
        if form and form.store is None:
            weight = type(matrix.parameter).__name__
            raise TensorAdaptError(f"{name} holds a {weight} of {form.name}, which cannot be made anew. {UNMERGED}")


@dataclass(frozen=True)
class Snapshot:
    """The weights and the bias of a layer as they were, to put back bit for bit.

    Values are copies, because merging writes in place. Of a quantised layer it holds the codes themselves, because
    merging makes new ones.
    """

    module: nn.Module
    values: Mapping[str, Tensor]
    codes: tuple | None

    @classmethod
    def of(cls, layer: Wrapped) -> Snapshot:
        form, module = quantised(layer.base), layer.base
        names = [] if form else [matrix.site.parameter for matrix in layer.matrices.values()]
        if _bias(layer) is not None:
            names.append("bias")
        values = {name: module.get_parameter(name).detach().clone() for name in dict.fromkeys(names)}
        return cls(module, values, form.state(module) if form else None)

    @torch.no_grad()
    def restore(self) -> None:
        """Put them back."""
        if (form := quantised(self.module)) is not None:
            form.restore(self.module, self.codes)  # type: ignore[arg-type]
        for name, value in self.values.items():
            self.module.get_parameter(name).copy_(value)


@torch.no_grad()
def merge_layer(
    layer: Wrapped, updates: Sequence[Update], check: Callable[[Adapter, Tensor], None] = lambda adapter, total: None
) -> float:
    """Add updates to a layer's weights and bias; returns the share of the change that was lost in storing it.

    ``check`` is called with each sum before it is stored, and may raise.
    """
    bias = _summed_bias(layer, updates, check)
    lost = size = 0.0
    for matrix in _touched(layer, updates):
        before = matrix.wide()
        total = before.clone()
        for adapter, blocks in updates:
            if here := in_matrix(blocks, matrix.key):
                total += adapter.gate.times_share(change(adapter, here, before))
                check(adapter, total)
        size += float((total - before).square().sum())
        matrix.write(total)
        lost += float((matrix.read().to(total) - total).square().sum())
    if bias is not None:
        layer.base.bias.copy_(bias)  # type: ignore[operator, union-attr]
    return math.sqrt(lost / size) if size else 0.0


def _summed_bias(layer: Wrapped, updates: Sequence[Update], check: Callable[[Adapter, Tensor], None]) -> Tensor | None:
    if (total := _bias(layer)) is None:
        return None
    total = total.to(torch.promote_types(total.dtype, torch.float32))
    for adapter, blocks in updates:
        if (shared := adapter.bias(blocks[0].sites[0])) is not None:
            total = total + adapter.gate.times_share(shared.to(total))
            check(adapter, total)
    return total


def _touched(layer: Wrapped, updates: Sequence[Update]) -> list[StoredMatrix]:
    """The layer's matrices that updates have sites in."""
    return [m for m in layer.matrices.values() if any(in_matrix(blocks, m.key) for _, blocks in updates)]


def _bias(layer: Wrapped) -> Tensor | None:
    return layer.base._parameters.get("bias")
