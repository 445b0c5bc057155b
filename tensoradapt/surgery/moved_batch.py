"""A batch on the device of its model."""

from __future__ import annotations

import copy
from collections.abc import Mapping, MutableMapping
from typing import Any

import torch
from torch import Tensor, nn


def device_of(model: nn.Module) -> torch.device:
    """Return the device that a model's batches go to: the model's own where it is on one, else the CPU."""
    devices = {p.device for p in model.parameters()}
    return next(iter(devices)) if len(devices) == 1 else torch.device("cpu")


def moved(value: Any, device: torch.device) -> Any:
    """Return a batch with its tensors on a device, those in mappings, lists and tuples too; to a CPU none is moved."""
    if device.type in ("cpu", "meta"):
        return value
    if isinstance(value, Tensor):
        return _sent(value, device) if value.device.type == "cpu" else value
    if isinstance(value, Mapping):
        parts = {key: moved(part, device) for key, part in value.items()}
        if all(parts[key] is part for key, part in value.items()):
            return value
        if not isinstance(value, MutableMapping):
            return parts
        changed = copy.copy(value)  # keeps the class, such as transformers' BatchEncoding
        changed.update(parts)
        return changed
    if isinstance(value, list | tuple):
        items = [moved(part, device) for part in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return value


def elsewhere(batch: Any, model: nn.Module, where: str = "batch") -> str:
    """Say which tensor of a batch is on another device than a model that is on one; "" where none is."""
    devices = {p.device for p in model.parameters()}
    if len(devices) != 1:
        return ""
    if isinstance(batch, Tensor):
        on = next(iter(devices))
        return f"{where} is on {batch.device}, and the model on {on}" if batch.device != on else ""
    if not isinstance(batch, Mapping | list | tuple):
        return ""
    parts = batch.items() if isinstance(batch, Mapping) else enumerate(batch)
    found = (elsewhere(part, model, f"{where}[{key!r}]") for key, part in parts)
    return next(filter(None, found), "")


def _sent(value: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor to a device; to a GPU from pinned memory, so that the copy does not wait for what it computes."""
    pinned = value.pin_memory() if device.type == "cuda" and not value.is_pinned() else value
    return pinned.to(device, non_blocking=True)
