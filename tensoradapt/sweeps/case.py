"""A case of tuning: a method on a task, the runs that tune it, and how each of these ended."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tensoradapt.runs.config import RunConfig
from tensoradapt.runs.store import is_finished, read_run
from tensoradapt.sweeps.spec import Method, Size, SweepSpec

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
    settings: dict[str, Any] = {"method": method.name, **size, **spec.runs, **spec.of_task(task)}
    settings["head_lr"] = lr if method.kind == "head" else spec.head_lr(task)
    if method.kind != "adapter" and "training" in settings:  # equal steps are those of an adapter
        settings["training"] = {key: v for key, v in settings["training"].items() if key != "optimizer"}
    return RunConfig(
        kind=method.kind,
        seed=spec.tuning_seeds[0],
        model=spec.model,
        task=task,
        lr=lr,
        parameterization=method.parameterization,
        layout=method.layout,
        projections=method.projections,
        scale=method.scale,
        published=method.published,
        plan=dict(method.plan or {}),
        tuning=True,
        **settings,
    )


def at_sizes(config: RunConfig, sizes: Sequence[Size]) -> tuple[RunConfig, ...]:
    """A configuration at each of some sizes."""
    return tuple(replace(config, rank=size.get("rank"), budget=size.get("budget")) for size in sizes)


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
