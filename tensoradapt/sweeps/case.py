"""A case of tuning: a method on a task, the runs that tune it, and how each of these ended."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tensoradapt.planning.spec import AdapterSpec
from tensoradapt.records import names
from tensoradapt.runs.config import DataSpec, RunConfig
from tensoradapt.runs.store import is_finished, read_run
from tensoradapt.sweeps.spec import Method, Size, SweepSpec
from tensoradapt.training.options import Training

Outcome = tuple[str, float | None]  # the name of one of Optuna's states, and the score


@dataclass(frozen=True)
class Case:
    """A method on a task, its sizes from the smallest up, and a folder of runs.

    ``settled``: whether the run of an id has a result or a failure.
    """

    spec: SweepSpec
    method: Method
    task: str
    sizes: Sequence[Size]
    root: Path
    settled: Callable[[str], bool]

    @property
    def middle(self) -> Size:
        """The size at which rates are tuned for all sizes."""
        return self.sizes[(len(self.sizes) - 1) // 2]


@dataclass(frozen=True)
class Tuning:
    """The runs that tune a method on a task and can be named now, and how many there will be.

    ``total``: of a search, and of a grid that is not extended further, at most; ``more``: how many runs further rates
    beyond the ends of grids can add to it at most. ``reported``: the configurations to run with each seed, as far as
    they are known. ``failures``: why others will not be. ``extended``: sizes whose grid was extended, and by which
    rates.
    """

    runs: tuple[RunConfig, ...]
    total: int
    reported: tuple[RunConfig, ...] = ()
    failures: tuple[str, ...] = ()
    more: int = 0
    extended: tuple[tuple[Size, tuple[float, ...]], ...] = ()


def config_of(spec: SweepSpec, method: Method, task: str, size: Size, lr: float) -> RunConfig:
    """A tuning run of a method, with the first of the tuning seeds."""
    settings: dict[str, Any] = {**spec.runs, **spec.of_task(task)}
    training = {**settings.get("training", {}), "lr": lr, "steps": settings["steps"]}
    training["head_lr"] = lr if method.kind == "head" else spec.head_lr(task)
    if method.kind != "adapter":  # equal steps are those of an adapter
        training.pop("optimizer", None)
    return RunConfig(
        spec.model,
        task,
        Training(**training),
        kind=method.kind,
        adapter=adapter_of(method, size) if method.kind == "adapter" else None,
        data=DataSpec(**{name: settings[name] for name in names(DataSpec) if name in settings}),
        seed=spec.tuning_seeds[0],
        own=settings.get("data", {}),
        tuning=True,
        method=method.name,
    )


def adapter_of(method: Method, size: Size) -> AdapterSpec:
    """The adapter of a method at one size; a published one without projections is as in its paper."""
    paper = not method.projections
    return AdapterSpec(
        method.published or method.parameterization,
        method.layout,
        paper=paper,
        projections=method.projections or None,
        scale=None if method.scale == "matched" and not paper else method.scale,
        **size,
        **(method.plan or {}),
    )


def at_sizes(config: RunConfig, sizes: Sequence[Size]) -> tuple[RunConfig, ...]:
    """A configuration at each of some sizes."""
    if config.adapter is None:
        return tuple(config for _ in sizes)
    adapters = (replace(config.adapter, rank=size.get("rank"), budget=size.get("budget")) for size in sizes)
    return tuple(replace(config, adapter=adapter) for adapter in adapters)


def outcome(config: RunConfig, root: Path) -> Outcome:
    """How a run ended, in Optuna's terms: one that diverged is pruned, which counts as bad; a failure does not."""
    if not is_finished(root, config.id):
        return "FAIL", None
    result = read_run(root / config.id).result
    score = result["validation"].get(result["metric"]["name"])
    return "PRUNED" if score is None or result["status"] == "diverged" else "COMPLETE", score


def learned(config: RunConfig, root: Path) -> bool:
    """Whether a finished run is better on validation than a constant answer."""
    result = read_run(root / config.id).result
    return result["validation"][result["metric"]["name"]] > result["metric"]["chance"]
