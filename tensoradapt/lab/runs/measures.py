"""What runs measure of a model besides its score: by how much its training raises each measure of the task."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import nullcontext

from torch import nn

from tensoradapt.errors import TensorAdaptError
from tensoradapt.lab.runs.config import RunConfig
from tensoradapt.lab.runs.row import COLUMNS, PARTS, RESULT
from tensoradapt.lab.tasks.task import Task
from tensoradapt.surgery.attach import disabled
from tensoradapt.training.fit import autocast


def measured(
    task: Task, config: RunConfig, model: nn.Module, device: str, trained: bool
) -> tuple[dict[str, float], str]:
    """Return the measures of a model or, not ``trained``, of its base, by name, and why others are missing.

    A run that chooses a rate has none, as validation scores alone are compared.

    Raises:
        TensorAdaptError: for a measure that has the name of another column.
    """
    values, why = {}, []
    base = disabled(model) if config.kind == "adapter" and not trained else nullcontext()
    with base, autocast(config.training.precision, device):
        for name, measure in {} if config.tuning else task.measures.items():
            if name in (*COLUMNS, *RESULT, *PARTS):
                raise TensorAdaptError(f"task {task.name!r} measures {name!r}, as another column is called; rename it")
            try:
                values[name] = measure(model, config.model, device)
            except TensorAdaptError as error:
                why.append(f"{name} was not measured: {error}")
    return values, "; ".join(why)


def growth(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float | None]:
    """Return by how much each quantity grew; None where that is no number."""
    grown = {name: after.get(name, math.nan) - value for name, value in before.items()}
    return {name: value if math.isfinite(value) else None for name, value in grown.items()}
