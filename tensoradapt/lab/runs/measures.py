"""Measures: what runs measure of a model before and after its training, besides its score. Extras bring them in."""

from __future__ import annotations

import math
from typing import Protocol

from torch import nn

from tensoradapt import doors
from tensoradapt.lab.runs.config import RunConfig
from tensoradapt.lab.tasks.task import Task


class Measure(Protocol):
    """A quantity of a model. A run's result has by how much it grew, under the measure's name."""

    def prepare(self, task: Task) -> str:
        """Fetch what the models of a task are measured with, as a sweep starts; say in a line what is missing."""

    def __call__(
        self, task: Task, config: RunConfig, model: nn.Module, device: str, trained: bool
    ) -> tuple[float | None, str]:
        """Return the quantity of a model or, not ``trained``, of its base; or None and, in words, why."""


def measured(
    task: Task, config: RunConfig, model: nn.Module, device: str, trained: bool
) -> tuple[dict[str, float], str]:
    """Return the quantities of a model by name, and what was said of those that are missing."""
    measures = doors.table("measures").items()
    found = {name: measure(task, config, model, device, trained) for name, measure in measures}
    values = {name: value for name, (value, _) in found.items() if value is not None}
    return values, "; ".join(text for _, text in found.values() if text)


def growth(before: float, after: float | None) -> float | None:
    """Return by how much a quantity grew; None where that is no number."""
    return None if after is None or not math.isfinite(after - before) else after - before
