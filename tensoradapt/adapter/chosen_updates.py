"""The choice of an adapter's updates to add: the gate says whether and times what, the task choice of which task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tensoradapt.errors import TensorAdaptError, did_you_mean
from tensoradapt.networks.layout import RUNTIME, At


class Gate(nn.Module):
    """State that ``use``, ``merge`` and ``disabled`` set and wrapped layers read.

    A module, so that ``share`` moves with the adapter.
    """

    def __init__(self) -> None:
        super().__init__()
        self.enabled, self.used, self.merged = True, True, False
        self.by_share = False  # whether updates are multiplied by ``share``
        self.share: Tensor  # a number, or one for each sample of the batch
        self.register_buffer("share", torch.ones(()), persistent=False)

    @property
    def live(self) -> bool:
        """Whether the layers are to add the updates: used, enabled, and not merged into their weights."""
        return self.used and self.enabled and not self.merged

    @property
    def per_sample(self) -> bool:
        """Whether each sample of the batch has its own share."""
        return self.by_share and self.share.ndim > 0

    def times_share(self, update: Tensor) -> Tensor:  # of the update's shape
        """Multiply an update by the share."""
        if not self.by_share:
            return update
        if self.share.ndim and len(self.share) != len(update):
            raise TensorAdaptError(
                f"use(model, samples=) was given {len(self.share)} samples and the batch has {len(update)}; give one "
                "each"
            )
        share = self.share.to(update)
        return (share.reshape(-1, *[1] * (update.ndim - 1)) if share.ndim else share) * update


class TaskChoice:
    """The selected task of a plan with ``tasks``; without tasks there is nothing to select."""

    def __init__(self, tasks: Sequence[str]) -> None:
        self.tasks = tuple(tasks)
        self.selected: int | Tensor | None = None  # a task's index, or one for each sample of the batch

    def select(self, task: Any) -> None:
        """Select a task by name or index, or a sequence with one for each sample; the old choice stays on errors."""
        tasks, last = self.tasks, len(self.tasks) - 1
        if not tasks:
            raise TensorAdaptError(
                "the adapter was planned without tasks, so none can be selected; plan with tasks= and a layout with "
                "task"
            )
        given = _plain(task)
        several = isinstance(given, Sequence) and not isinstance(given, str)
        wanted = list(map(_plain, given)) if several else [given]
        if not wanted or any(isinstance(name, bool) or not isinstance(name, str | int) for name in wanted):
            raise TensorAdaptError(
                f"task is {task!r}; expected a name or index of {', '.join(tasks)} (0 to {last}), or a sequence with "
                "one for each sample"
            )
        if wrong := [name for name in wanted if name not in tasks and name not in range(len(tasks))]:
            valid = f"{did_you_mean(wrong[0], tasks)}, or their indices 0 to {last}"
            raise TensorAdaptError(f"task {wrong[0]!r} is not in this adapter{valid}")
        numbers = [tasks.index(name) if isinstance(name, str) else name for name in wanted]
        self.selected = torch.tensor(numbers) if several else numbers[0]

    def name(self) -> str | None:
        """Return the selected task, None without tasks; raise TensorAdaptError where it is not exactly one."""
        if not self.tasks:
            return None
        if not isinstance(self.selected, int):
            state = "no task is selected" if self.selected is None else "a task for each sample is selected"
            raise TensorAdaptError(
                f"{state}, and a site's update is of one task; call adapter.select(task=...) with one of "
                f"{', '.join(self.tasks)}"
            )
        return self.tasks[self.selected]

    def at(self, number: int | None = None) -> At:
        """Return the position of a task in its tensors, by default that of the selected one."""
        if number is None and (name := self.name()) is not None:
            number = self.tasks.index(name)
        return {} if number is None else {RUNTIME[0]: number}

    @property
    def by_sample(self) -> bool:
        """Whether a task is selected for each sample of the batch."""
        return isinstance(self.selected, Tensor)

    def samples(self, x: Tensor) -> list[Tensor] | None:
        """Return for each task the indices of its samples in a batch; None where one task is for all of them."""
        if not isinstance(self.selected, Tensor):
            return None
        if len(self.selected) != len(x):
            raise TensorAdaptError(
                f"select(task=) was given {len(self.selected)} tasks and the batch has {len(x)} samples; give one each"
            )
        return [(self.selected == task).nonzero().squeeze(1).to(x.device) for task in range(len(self.tasks))]


def _plain(value: Any) -> Any:
    """Convert arrays to lists, and scalars of numpy and torch to Python's."""
    return value.tolist() if hasattr(value, "tolist") else value
