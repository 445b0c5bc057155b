"""Plan the adapter of a run, for a model or its config; no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tensoradapt import parameterizations
from tensoradapt import published as papers
from tensoradapt.networks.layout import RUNTIME
from tensoradapt.planning.build_plan import plan
from tensoradapt.planning.plan import Plan
from tensoradapt.runs.config import RunConfig
from tensoradapt.sites.find import find_sites


def plan_of(config: RunConfig, model: Any, heads: Sequence[str] = ()) -> Plan:
    """Plan the adapter of a run for a model or its config; ``heads`` are trained with it."""
    wanted = config.projections[0] if len(config.projections) == 1 else config.projections
    row = papers.get(config.published) if config.published else None
    layouts = config.layout or (row.layout if row else ())
    with_task = any(RUNTIME[0] in text.split(":")[0].split() for text in layouts)
    further: dict[str, Any] = {key: _widths(v) if key == "split" else v for key, v in config.plan.items()}
    return plan(
        find_sites(model, wanted, blocks=row is not None and row.blocks) if wanted else model,
        config.layout,
        config.parameterization,
        config.rank,
        published=config.published,
        budget=config.budget,
        scale=config.scale,
        train=tuple(heads),
        tasks=(config.task,) if with_task else (),
        **further,
    )


def _widths(split: Mapping[str, Any]) -> dict[str, Any]:
    """Parts of modes; widths, which JSON and TOML keep as text, become numbers."""
    return {
        mode: {int(width): tuple(sizes) for width, sizes in parts.items()} if isinstance(parts, Mapping) else parts
        for mode, parts in split.items()
    }


def layouts_for(family: str, projections: Sequence[str] = ("attention",)) -> tuple[str, ...]:
    """The usual layouts of a parameterization; over attention alone, its first."""
    every = parameterizations.layouts_of(family)
    return every[:1] if tuple(projections) == ("attention",) else every
