"""merge and unmerge: fold the updates into the weights, and give back the original ones bit for bit."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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

Check = Callable[[Adapter, Tensor], None]
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
    registry.merged = True
    for adapter in registry.used.values():
        adapter.gate.merged = True
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
    registry.kept, registry.merged = None, False
    for adapter in registry.named().values():
        adapter.gate.merged = False


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
        if _bias(layer.base) is None and list(_biases(updates)):
            raise TensorAdaptError(f"{name} has no bias to merge the adapter's shared bias into; use it unmerged")
        check_readable(matrix, "merge", UNMERGED)
        if form and form.store is None:
            weight = type(matrix.parameter).__name__
            raise TensorAdaptError(f"{name} holds a {weight} of {form.name}, which cannot be made anew. {UNMERGED}")


@dataclass(frozen=True)
class Snapshot:
    """The weights and the bias of a layer as they were, to put back bit for bit.

    It holds copies, because merging writes in place, but a quantised layer's own codes, because merging makes new ones.
    """

    module: nn.Module
    values: Mapping[str, Tensor]
    codes: tuple

    @classmethod
    def of(cls, layer: Wrapped) -> Snapshot:
        """The present state of a layer."""
        module, form = layer.base, quantised(layer.base)
        names = {} if form else {matrix.site.parameter: None for matrix in layer.matrices.values()}
        names |= {} if _bias(module) is None else {"bias": None}
        values = {name: module.get_parameter(name).detach().clone() for name in names}
        return cls(module, values, form.state(module) if form else ())

    @torch.no_grad()
    def restore(self) -> None:
        """Put it back."""
        if (form := quantised(self.module)) is not None:
            form.restore(self.module, self.codes)
        for name, value in self.values.items():
            self.module.get_parameter(name).copy_(value)


@torch.no_grad()
def merge_layer(layer: Wrapped, updates: Sequence[Update], check: Check = lambda adapter, total: None) -> float:
    """Add updates to a layer's weights and bias; returns the share of the change that was lost in storing it.

    ``check`` is called with each adapter and the sum so far, before anything is stored, and may raise.
    """
    if (bias := _bias(layer.base)) is not None:
        total_bias = _summed(bias.to(torch.promote_types(bias.dtype, torch.float32)), _biases(updates), check)
    lost = size = 0.0
    for matrix in _touched(layer, updates):
        wide = matrix.wide()
        here = [(adapter, in_matrix(blocks, matrix.key)) for adapter, blocks in updates]
        total = _summed(wide, ((adapter, change(adapter, blocks, wide)) for adapter, blocks in here if blocks), check)
        size += float((total - wide).square().sum())
        matrix.write(total)
        lost += float((matrix.read().to(total) - total).square().sum())
    if bias is not None:
        bias.copy_(total_bias)
    return math.sqrt(lost / size) if size else 0.0


def _summed(total: Tensor, changes: Iterable[tuple[Adapter, Tensor]], check: Check) -> Tensor:
    for adapter, value in changes:
        total = total + adapter.gate.times_share(value.to(total))
        check(adapter, total)
    return total


def _touched(layer: Wrapped, updates: Sequence[Update]) -> list[StoredMatrix]:
    """The layer's matrices that updates have sites in."""
    return [m for m in layer.matrices.values() if any(in_matrix(blocks, m.key) for _, blocks in updates)]


def _bias(module: nn.Module) -> Tensor | None:
    return module._parameters.get("bias")


def _biases(updates: Sequence[Update]) -> Iterator[tuple[Adapter, Tensor]]:
    for adapter, blocks in updates:
        if (bias := adapter.bias(blocks[0].sites[0])) is not None:
            yield adapter, bias
