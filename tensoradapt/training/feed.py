"""Give a training its batches on the model's device, on a GPU the next one while the last is computed."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from typing import Any

import torch
from torch import Tensor, nn

NONE_YET = object()


class Feed(Iterator[Any]):
    """The batches from step ``done`` to step ``steps``.

    Batches on the CPU are moved to the device of a model that is on one GPU. There the next one may be prepared, by
    ``prepare``, while the device still computes; what is raised in doing so is raised when the batch is due.
    """

    def __init__(self, batches: Iterable[Any], model: nn.Module, done: int, steps: int) -> None:
        self._source = itertools.islice(batches, done, steps)
        devices = {p.device for p in model.parameters()}
        self._device = next(iter(devices)) if len(devices) == 1 else torch.device("cpu")
        self._next: Any = NONE_YET
        self._raised: Exception | None = None

    def prepare(self) -> None:
        """Begin to copy the next batch, where the model is on a device that computes meanwhile."""
        if self._device.type in ("cpu", "meta") or self._next is not NONE_YET:
            return
        try:
            self._next = moved(next(self._source), self._device)
        except Exception as raised:  # the step that is being computed is finished first
            self._raised = raised

    def __next__(self) -> Any:
        if self._raised is not None:
            raise self._raised
        found, self._next = self._next, NONE_YET
        return moved(next(self._source), self._device) if found is NONE_YET else found


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
