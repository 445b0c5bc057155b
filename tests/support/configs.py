"""Configs of runs from flat fields, each of which belongs to one record."""

from __future__ import annotations

from collections.abc import Sequence, Sized
from typing import Any

from tensoradapt.lab.runs.config import DataSpec, RunConfig
from tensoradapt.lab.tasks.registry import restore
from tensoradapt.lab.tasks.splits import Split
from tensoradapt.planning.spec import AdapterSpec
from tensoradapt.records import names
from tensoradapt.training.options import Training


def config_of(model: str, task: str, adapter: Any = None, *, named: str | None = None, **given: Any) -> RunConfig:
    """Return a config; ``adapter`` is the method of its adapter, ``named`` the name that a sweep gives it."""
    given = {"lr": 1e-3, "steps": 2, **given}
    training, data, spec = ({name: given.pop(name) for name in names(kind) if name in given} for kind in RECORDS)
    made = AdapterSpec(adapter, **spec) if adapter else None
    kind = given.pop("kind", "adapter")
    return RunConfig(model, task, Training(**training), kind, made, DataSpec(**data), method=named, **given)


RECORDS = (Training, DataSpec, AdapterSpec)


def encoded(split: Split, config: RunConfig) -> Sequence[Sized]:
    """Return the examples of a split as a run encodes them."""
    return restore(config.task, config.own).encode(split, config.model, config.data.max_length)
