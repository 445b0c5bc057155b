"""Give a training its batches on the model's device, on a GPU the next one while the last is computed."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

from torch import nn

from tensoradapt.surgery.moved_batch import device_of, moved

NONE_YET = object()


class Feed(Iterator[Any]):
    """The batches from step ``done`` to step ``steps``.

    Batches on the CPU are moved to the device of a model that is on one GPU. There the next one may be prepared, by
    ``prepare``, while the device still computes; what is raised in doing so is raised when the batch is due.
    """

    def __init__(self, batches: Iterable[Any], model: nn.Module, done: int, steps: int) -> None:
        self._source = itertools.islice(batches, done, steps)
        self._device = device_of(model)
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
