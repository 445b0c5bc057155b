"""Routing: which task an adapter computes, one for all or one for each sample of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tensoradapt.errors import TensorAdaptError, did_you_mean


def task_numbers(tasks: Sequence[str], task: Any) -> int | Tensor:  # (samples,)
    """The index of a task given by name or index; of a sequence, an index for each sample."""
    if not tasks:
        raise TensorAdaptError(
            "the adapter was planned without tasks, so none can be selected; plan with tasks= and a layout with task"
        )
    given = _plain(task)
    several = isinstance(given, Sequence) and not isinstance(given, str)
    asked = list(map(_plain, given)) if several else [given]
    if not asked or any(isinstance(one, bool) or not isinstance(one, str | int) for one in asked):
        raise TensorAdaptError(
            f"task is {task!r}; expected a name or index of {', '.join(tasks)} (0 to {len(tasks) - 1}), or a sequence "
            "with one for each sample"
        )
    if wrong := [one for one in asked if one not in tasks and one not in range(len(tasks))]:
        raise TensorAdaptError(
            f"task {wrong[0]!r} is not in this adapter{did_you_mean(wrong[0], tasks)}, or their indices 0 to "
            f"{len(tasks) - 1}"
        )
    numbers = [tasks.index(one) if isinstance(one, str) else one for one in asked]
    return torch.tensor(numbers) if several else numbers[0]


def _plain(value: Any) -> Any:
    """Arrays as lists, numbers of numpy and torch as Python's."""
    return value.tolist() if hasattr(value, "tolist") else value
