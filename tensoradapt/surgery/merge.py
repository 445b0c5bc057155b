"""merge folds the updates into the weights, and unmerge gives back the original ones bit for bit."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tensoradapt.adapter.adapter import Adapter, check_filled
from tensoradapt.adapter.forward_pass import without_autocast
from tensoradapt.adapter.sharding import refuse_sharded
from tensoradapt.checks import flag
from tensoradapt.errors import TensorAdaptError
from tensoradapt.layers.quantised import quantised
from tensoradapt.layers.stored_matrix import StoredMatrix
from tensoradapt.layers.weight_change import change
from tensoradapt.layers.wrapper import Update, Wrapped, in_matrix, wrapped
from tensoradapt.surgery.checks import DEQUANTISE, check_readable
from tensoradapt.surgery.registry import Adapters, required
from tensoradapt.surgery.transaction import Transaction, transaction

_NOTHING = torch.empty(0)
Check = Callable[[Adapter, Tensor], None]
UNMERGED = f"{DEQUANTISE} and attach to that, or use the adapter unmerged"


@dataclass(frozen=True)
class MergeResult:
    """The share of each layer's change that rounding lost: ``|stored - (W + delta)| / |delta|``, 0 without any."""

    lost: Mapping[str, float]

    def __repr__(self) -> str:
        worst = max(self.lost.values())
        lost = f"rounding lost at most {worst:.2g} of a layer's change" if worst else "rounding lost nothing"
        return f"merged into {len(self.lost)} layers; {lost}"


def merge(model: nn.Module, *, keep: bool = True) -> MergeResult:
    """Add the updates of the adapters in use to the weights, summed in fp32 or wider and rounded once.

    Quantised weights (bitsandbytes, torchao int8) are dequantised and quantised again (docs/guides/merge-and-save.md).

    Args:
        model: a model with an adapter.
        keep: keep the original weights, for ``unmerge``. ``False`` saves that memory and cannot be undone: ``detach``
            then leaves a plain model with the updates in its weights.

    Returns:
        What rounding lost in each layer.

    Raises:
        TensorAdaptError: with nothing changed, for factors and sums that are not finite in the weight's dtype, weights
            stored in other ways, and an adapted layer in whose place the model has another module.

    >>> import tensoradapt as ta
    >>> from transformers import BertConfig, BertForSequenceClassification
    >>> model = BertForSequenceClassification(BertConfig(hidden_size=12, num_hidden_layers=2, num_attention_heads=3))
    >>> adapter = ta.attach(model, "cp", rank=2)
    >>> lost = ta.merge(model)
    >>> ta.unmerge(model)
    """
    registry, keep = required(model), flag(keep, "keep")
    if registry.merged:
        raise TensorAdaptError("the adapter is already merged; call unmerge(model) first")
    refuse_sharded(model, "merge")
    _check_adapters(registry)
    registry.check_layers(model)
    layers = {name: (layer, layer.used) for name, layer in wrapped(model) if layer.used}
    for layer, updates in layers.values():
        check_mergeable(layer, updates)
    _check_tied(layers)
    with transaction(model) as change:
        kept = [Snapshot.of(layer) for layer, _ in layers.values()]
        change.undo += [snapshot.restore for snapshot in kept if snapshot.codes]
        for layer, updates in layers.values():  # all before the first sum, whose memory the next ones then use again
            renew(layer, updates)
        lost = {name: merge_layer(layer, updates) for name, (layer, updates) in layers.items()}
        registry.kept, registry.merged = kept if keep else None, True
        for adapter in registry.used.values():
            adapter.gate.merged = True
    return MergeResult(lost)


def unmerge(model: nn.Module) -> None:
    """Put back the weights as they were before ``merge``, bit for bit (docs/guides/merge-and-save.md).

    Args:
        model: a model that was merged with ``keep=True``.

    Raises:
        TensorAdaptError: with nothing changed, for a model without adapters, or one that is not merged.

    >>> import tensoradapt as ta
    >>> from transformers import BertConfig, BertForSequenceClassification
    >>> model = BertForSequenceClassification(BertConfig(hidden_size=12, num_hidden_layers=2, num_attention_heads=3))
    >>> adapter = ta.attach(model, "cp", rank=2)
    >>> before = model.bert.encoder.layer[0].attention.self.query.weight.clone()
    >>> lost = ta.merge(model)
    >>> ta.unmerge(model)
    """
    registry = required(model)
    if not registry.merged:
        raise TensorAdaptError("the adapter is not merged; there is nothing to unmerge")
    if registry.kept is None:
        raise TensorAdaptError(
            "the adapter was merged with keep=False, so the original weights are gone; load the base model again"
        )
    with transaction(model) as change:
        restore_weights(registry, change)


def restore_weights(registry: Adapters, change: Transaction) -> None:
    """Put back the weights that merge kept."""
    for snapshot in registry.kept or ():
        if snapshot.codes:
            change.undo.append(snapshot.now().restore)
        snapshot.restore()
    registry.kept, registry.merged = None, False
    for adapter in registry.used.values():
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
        check_filled(adapter)
        for key, parameter in adapter.named_parameters():
            if not torch.isfinite(parameter).all():
                raise TensorAdaptError(
                    f"factor {key} has non-finite entries; nothing was merged. Load a good checkpoint first"
                )


def _check_tied(layers: Mapping[str, tuple[Wrapped, Sequence[Update]]]) -> None:
    """Raise TensorAdaptError for a weight of two layers, tied after they were adapted: it would get both updates."""
    holders: dict[int, str] = {}
    for name, (layer, updates) in layers.items():
        for parameter in {id(matrix.parameter) for matrix in _touched(layer, updates)}:
            if (other := holders.setdefault(parameter, name)) != name:
                raise TensorAdaptError(
                    f"tied weights cannot be merged: {other} and {name} hold one and the same weight, and each has an "
                    "update of its own. Untie the two first, or use the adapter unmerged"
                )


def check_mergeable(layer: Wrapped, updates: Sequence[Update]) -> None:
    """Raise TensorAdaptError for weights that cannot be read or stored again, and where a bias is missing."""
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
    """The weights and the bias of a layer as they were, or the codes of a quantised one, to be put back bit for bit.

    It holds the tensors themselves: merging writes into new ones.
    """

    module: nn.Module
    values: Mapping[str, Tensor]
    codes: tuple[object, ...] = ()

    @classmethod
    def of(cls, layer: Wrapped) -> Snapshot:
        """Return the present state of a layer."""
        module = layer.base
        names = [matrix.site.parameter for matrix in layer.matrices.values()] if quantised(module) is None else []
        names += [] if _bias(module) is None else ["bias"]
        return cls(module, dict.fromkeys(names, _NOTHING)).now()

    def now(self) -> Snapshot:
        """Return the present state of the same layer."""
        form = quantised(self.module)
        values = {name: self.module.get_parameter(name).data for name in self.values}
        return Snapshot(self.module, values, form.state(self.module) if form else ())

    @torch.no_grad()
    def restore(self) -> None:
        """Put the state back, on the device and in the dtype that the layer has now."""
        if (form := quantised(self.module)) is not None:
            form.restore(self.module, self.codes)
        for name, value in self.values.items():
            parameter = self.module.get_parameter(name)
            parameter.data = value.to(parameter.device, parameter.dtype)


def renew(layer: Wrapped, updates: Sequence[Update]) -> None:
    """Give the weights and the bias that updates are to be added to new tensors with the same numbers."""
    parameters = {id(m.parameter): m.parameter for m in _touched(layer, updates) if m.quantisation is None}
    if (bias := _bias(layer.base)) is not None:
        parameters[id(bias)] = bias
    for parameter in parameters.values():
        parameter.data = parameter.data.clone()


@torch.no_grad()
def merge_layer(layer: Wrapped, updates: Sequence[Update], check: Check = lambda adapter, total: None) -> float:
    """Add updates to a layer's weights and bias; return the share of the change that was lost in storing it.

    ``check`` is called with each adapter and the sum so far, before it is stored, and may raise. Call ``merge_layer``
    within a transaction and after ``renew``: the layer then gets its old tensors back where anything fails.
    """
    bias, touched = _bias(layer.base), _touched(layer, updates)
    if bias is not None:
        total_bias = _summed(bias.to(torch.promote_types(bias.dtype, torch.float32)), _biases(updates), check)
    lost = size = 0.0
    for matrix in touched:
        wide = matrix.wide()
        here = [(adapter, in_matrix(blocks, matrix.key)) for adapter, blocks in updates]
        with without_autocast(wide):
            changes = ((adapter, change(adapter, blocks, wide)) for adapter, blocks in here if blocks)
            total = _summed(wide, changes, check)
        size += _squared(total - wide)
        _check_finite(matrix, wide, total)
        matrix.write(total)
        if (stored := matrix.read()).dtype is not total.dtype or matrix.quantisation:  # else nothing was rounded
            lost += _squared(stored.to(total) - total)
    if bias is not None:
        bias.copy_(total_bias)
    return math.sqrt(lost / size) if size else 0.0


def _check_finite(matrix: StoredMatrix, wide: Tensor, total: Tensor) -> None:
    """Raise TensorAdaptError where the merged matrix would not be finite, and say why."""
    name, dtype = matrix.site.name, matrix.parameter.dtype
    plain = matrix.quantisation is None
    largest = float(torch.stack(total.aminmax()).abs().max())
    most = torch.finfo(dtype if plain else total.dtype).max
    if largest <= most:
        return
    if not torch.isfinite(wide).all():
        why = "the base weight has entries that are not finite. Load it again"
    elif not math.isfinite(largest):
        why = "the updates are not finite. Load a good checkpoint, or give use(model, ...) smaller factors"
    else:
        why = f"the sum reaches {largest:.3g}, and {dtype} holds up to {most:.3g}. Merge in a wider dtype"
    raise TensorAdaptError(f"{name} cannot be merged, and nothing was: {why}")


def _squared(matrix: Tensor) -> float:
    return float(torch.linalg.vector_norm(matrix, dtype=torch.float64).square())  # whose squares are beyond float32


def _summed(total: Tensor, changes: Iterable[tuple[Adapter, Tensor]], check: Check) -> Tensor:
    for adapter, value in changes:
        total = total + adapter.gate.times_share(value.to(total))
        check(adapter, total)
    return total


def _touched(layer: Wrapped, updates: Sequence[Update]) -> list[StoredMatrix]:
    """Return the layer's matrices that updates have sites in."""
    return [m for m in layer.matrices.values() if any(in_matrix(blocks, m.key) for _, blocks in updates)]


def _bias(module: nn.Module) -> Tensor | None:
    return module._parameters.get("bias")


def _biases(updates: Sequence[Update]) -> Iterator[tuple[Adapter, Tensor]]:
    for adapter, blocks in updates:
        if (bias := adapter.bias(blocks[0].sites[0])) is not None:
            yield adapter, bias
