"""Adapters without values, as attach makes them on the meta device: what they refuse, and how their values come."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tensoradapt.errors import TensorAdaptError

if TYPE_CHECKING:
    from tensoradapt.adapter.adapter import Adapter


def check_filled(adapter: Adapter) -> None:
    """Raise TensorAdaptError for an adapter that was attached on the meta device and has no values yet."""
    if adapter.empty:
        raise TensorAdaptError(
            "the adapter was attached on the meta device and has no values yet. Load the base weights, then "
            "detach(model) and attach(model, plan) again; or move the model with to_empty(device=...), then call "
            "adapter.reset_parameters(), which draws the adapter's numbers, or restore(model, folder)"
        )


def check_moved(adapter: Adapter) -> None:
    """Raise TensorAdaptError for an adapter that is on the meta device, where numbers cannot be written."""
    if any(number.is_meta for _, number in adapter.stored()):
        raise TensorAdaptError(
            "the adapter is on the meta device, which holds no values; move it with its model first, by "
            "model.to_empty(device=...)"
        )


def check_drawn(adapter: Adapter) -> None:
    """Raise TensorAdaptError for an adapter that cannot be drawn from its plan and seed, or is on the meta device."""
    plan = adapter.plan
    if plan.needs_weights or plan.spec.rule == "dora":
        raise TensorAdaptError(
            f"{plan.spec.name} with start={plan.start!r} and rule={plan.spec.rule!r} takes values "
            "from the base weights. Load these, then detach(model) and attach(model, plan); or restore(model, folder) "
            "what was saved"
        )
    check_moved(adapter)


def take_over(adapter: Adapter, scales: Sequence[float]) -> None:
    """Set the multipliers of an adapter whose numbers have come, and draw its frozen ones if it was empty."""
    for tensor, scale in zip(adapter.factored, scales, strict=True):
        tensor.scale = scale
    if adapter.empty:
        adapter.bases.reset_parameters()
        adapter.empty = False
