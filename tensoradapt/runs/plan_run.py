"""Plan the adapter of a run, for a model or its config; no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from tensoradapt import parameterizations
from tensoradapt.networks.layout import RUNTIME
from tensoradapt.planning.build_plan import build_plan
from tensoradapt.planning.plan import Plan
from tensoradapt.planning.spec import AdapterSpec, layouts_given
from tensoradapt.runs.config import RunConfig


def plan_of(config: RunConfig, model: Any, heads: Sequence[str] = ()) -> Plan:
    """Plan the adapter of a run for a model or its config; ``heads`` are trained with it."""
    method = config.published or config.parameterization
    spec = AdapterSpec(
        method,
        config.layout,
        config.rank,
        paper=not config.projections,
        projections=config.projections or None,
        budget=config.budget,
        scale=config.scale,
        train=tuple(heads),
        **dict(config.plan),
    )
    with_task = any(RUNTIME[0] in text.split(":")[0].split() for text in layouts_given(spec))
    return build_plan(model, replace(spec, tasks=(config.task,)) if with_task else spec)


def layouts_for(family: str, projections: Sequence[str] = ("attention",)) -> tuple[str, ...]:
    """The usual layouts of a parameterization; over attention alone, its first."""
    every = parameterizations.layouts_of(family)
    return every[:1] if tuple(projections) == ("attention",) else every
