"""Cells: what a sweep asks for, counted at its model's sizes, and the runs that are due at any moment.

Which runs are due follows from the specification and from the finished runs alone, so a sweep that was stopped, or two
that work in one folder, agree on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tensoradapt.errors import OutOfReach, TensorAdaptError, located
from tensoradapt.sweep.spec import RunConfig, plan_of
from tensoradapt.sweep.store import is_failed, is_finished, read_run
from tensoradapt.sweep.toml_spec import Method, Size, SweepSpec


@dataclass(frozen=True)
class Cell:
    """A method at one size. ``n_params``: None for full fine-tuning; ``empty``: why there is nothing to run."""

    method: str
    size: Size
    n_params: int | None
    empty: str = ""


@dataclass(frozen=True)
class Due:
    """The runs that can be named now, how many there will be in all, and what cannot go on, with the reason."""

    configs: tuple[RunConfig, ...]
    total: int
    blocked: tuple[str, ...] = ()


def cells(spec: SweepSpec, model_config: Any) -> list[Cell]:
    """Every method at every size, planned at a model's sizes.

    A budget that a method cannot reach, and a budget or rank that gives what another one before it does, is an empty
    cell; everything else that a plan refuses raises TensorAdaptError.
    """
    return [cell for method in spec.methods for cell in _cells_of(spec, method, model_config)]


def _cells_of(spec: SweepSpec, method: Method, model_config: Any) -> Iterator[Cell]:
    seen: dict[Any, Size] = {}
    for size in method.sizes:
        n_params, key, empty = _counted(spec, method, size, model_config)
        if not empty and key is not None and key in seen:
            (what, own), (_, smaller) = (next(iter(one.items())) for one in (size, seen[key]))
            empty = f"its largest configuration within {what} {_shown(own)} is that of {what} {_shown(smaller)}"
        if not empty:
            seen[key] = size
        yield Cell(method.name, size, n_params, empty)


def _shown(size: Any) -> str:
    return f"{size:,}" if isinstance(size, int) else str(size)


def _counted(spec: SweepSpec, method: Method, size: Size, model_config: Any) -> tuple[int | None, Any, str]:
    if method.kind != "adapter":
        return (0 if method.kind == "head" else None), None, ""
    config = _config(spec, method, spec.tasks[0], size, spec.seeds[0], method.learning_rates[0])
    try:
        with located(f"method {method.name}"):
            plan = plan_of(config, model_config)
    except OutOfReach as error:
        return None, None, str(error)
    return plan.n_params, tuple(group.network for group in plan.groups), ""


def due(spec: SweepSpec, planned: Sequence[Cell], root: Path, ended: Callable[[str], bool] | None = None) -> Due:
    """The runs to make: for each task and method those that tune its rate, and once they are done, the reported ones.

    A method with one rate has none to tune. Reported runs come seed by seed, so that every method is covered early.
    """
    settled = ended or (lambda name: is_finished(root, name) or is_failed(root, name))
    tuning: list[RunConfig] = []
    reported: list[RunConfig] = []
    blocked: list[str] = []
    total = 0
    for task in spec.tasks:
        for method in spec.methods:
            sizes = [cell.size for cell in planned if cell.method == method.name and not cell.empty]
            if not sizes:
                continue
            tried = tuning_runs(spec, method, task, sizes)
            tuning += tried
            total += len(tried) + len(sizes) * len(spec.seeds)
            if not all(settled(config.id) for config in tried):
                continue
            rate = chosen(tried, root) if tried else method.learning_rates[0]
            if rate is None:
                blocked.append(f"{method.name} on {task}: no learning rate gave a result")
                continue
            reported += [_config(spec, method, task, size, seed, rate) for size in sizes for seed in spec.seeds]
    reported.sort(key=lambda config: spec.seeds.index(config.seed))
    _check_distinct([*tuning, *reported])
    return Due((*tuning, *reported), total, tuple(blocked))


def _check_distinct(configs: Sequence[RunConfig]) -> None:
    seen: dict[str, RunConfig] = {}
    for config in configs:
        if (other := seen.setdefault(config.id, config)) is not config:
            raise TensorAdaptError(
                f"methods {other.label!r} and {config.label!r} have a run in common ({config.title}); expected methods "
                "that differ: leave one of them out, or its size"
            )


def tuning_runs(spec: SweepSpec, method: Method, task: str, sizes: Sequence[Size]) -> list[RunConfig]:
    """One run for each rate of a method, at its middle size, on a seed that is not reported."""
    if len(method.learning_rates) == 1:
        return []
    size = sizes[(len(sizes) - 1) // 2]
    return [_config(spec, method, task, size, spec.tuning_seed, lr, tuning=True) for lr in method.learning_rates]


def chosen(tried: Sequence[RunConfig], root: Path) -> float | None:
    """The rate with the best validation score, the lower of two that are equal; None where no run has a score."""
    scores = {}
    for config in tried:
        if is_finished(root, config.id):
            result = read_run(Path(root) / config.id).result
            scores[config.lr] = result["validation"].get(result["metric"])
    found = {lr: score for lr, score in scores.items() if score is not None}
    return min(found, key=lambda lr: (-found[lr], lr)) if found else None


def _config(
    spec: SweepSpec, method: Method, task: str, size: Mapping[str, Any], seed: int, lr: float, tuning: bool = False
) -> RunConfig:
    return RunConfig(
        kind=method.kind,
        seed=seed,
        model=spec.model,
        task=task,
        lr=lr,
        parameterization=method.parameterization,
        layout=method.layout,
        projections=method.projections,
        scale=method.scale,
        published=method.published,
        plan=dict(method.plan or {}),
        tuning=tuning,
        method=method.name,
        **size,
        **spec.runs,
    )
