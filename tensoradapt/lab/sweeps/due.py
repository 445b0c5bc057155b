"""Plan a sweep: the cells, which are its methods at each size, with their parameters, and the runs due at any moment.

Which runs are due depends on the specification and the finished runs alone, so a sweep that was stopped, or two sweeps
in one folder, agree on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tensoradapt import doors
from tensoradapt.errors import BudgetError, TensorAdaptError, located
from tensoradapt.lab.analysis.names import display
from tensoradapt.lab.analysis.rates import edge_cell
from tensoradapt.lab.runs.config import RunConfig
from tensoradapt.lab.runs.store import is_failed, is_finished
from tensoradapt.lab.sweeps import tuning
from tensoradapt.lab.sweeps.spec import Method, SweepSpec
from tensoradapt.lab.sweeps.tuning import Proposed, TuningCase
from tensoradapt.lab.tasks.rates import head_rate
from tensoradapt.lab.tasks.registry import restore
from tensoradapt.planning.build_plan import build_plan
from tensoradapt.planning.size import Size


@dataclass(frozen=True)
class Cell:
    """A method at one size. ``n_params``: None where the base is trained; ``empty``: why there is nothing to run."""

    method: str
    size: Size
    n_params: int | None
    empty: str = ""


@dataclass(frozen=True)
class Due:
    """The runs that can be named now.

    ``totals``: runs there will be of each task and method, of a search at most, unless a grid is extended (further).
    ``tuning``: how many of them tune. ``more``: how many more an extension can add at most. ``blocked``: what cannot
    continue, with the reason. ``extended``: the grids that were extended, with the rates that were added. ``edges``:
    the cells whose best rate is at an end of those that were tried.
    """

    configs: tuple[RunConfig, ...]
    totals: Mapping[tuple[str, str], int]
    blocked: tuple[str, ...] = ()
    tuning: int = 0
    more: int = 0
    extended: tuple[str, ...] = ()
    edges: tuple[str, ...] = ()

    @property
    def total(self) -> int:
        """The number of runs that there will be in all."""
        return sum(self.totals.values())


def base_of(spec: SweepSpec) -> Any:
    """Return the config of the model, or its modules without weights, as the tasks ask; adapters are planned for it.

    Raises TensorAdaptError for a model or a reference that a task cannot use.
    """
    tasks = [restore(task, spec.own.get(task, {})) for task in spec.task]
    for task in tasks:
        if odd := [method.kind for method in spec.reference if method.kind not in task.references]:
            raise TensorAdaptError(
                f"task {task.name!r} takes no reference {odd[0]!r}, as its loss compares an adapter with its frozen "
                "base; leave it out"
            )
        if odd := [method.data.readout for method in spec.methods if method.data.readout not in task.readouts]:
            raise TensorAdaptError(
                f'readout is "{odd[0]}", and task {task.name!r} has no classifier of texts; leave it out'
            )
    bases = [task.base(spec.model) for task in tasks]
    return bases[0]


def with_head_rates(spec: SweepSpec) -> SweepSpec:
    """Return the specification with a head's rate on each task, by kind of model (``tasks.rates``) if none was given.

    Raises TensorAdaptError for a model whose config cannot be loaded.
    """
    given = all("head_lr" in method.training for method in spec.methods)
    if given or spec.head_rates or (spec.search and spec.search.head_lr):
        return spec
    found = {task: head_rate(restore(task, spec.own.get(task, {})), spec.model) for task in spec.task}
    return replace(spec, head_rates={task: rate for task, rate in found.items() if rate is not None})


def cells(spec: SweepSpec, model_config: Any) -> list[Cell]:
    """Plan every method at every size, for a model's config or its modules.

    A cell is empty where the method cannot meet the budget, or where its plan is that of an earlier size. Everything
    else that a plan refuses raises TensorAdaptError.
    """
    return [cell for method in spec.methods for cell in _cells_of(spec, method, model_config)]


def _cells_of(spec: SweepSpec, method: Method, model_config: Any) -> Iterator[Cell]:
    seen: dict[Any, Size] = {}
    for size in method.sizes:
        n_params, key, empty = _counted(spec, method, size, model_config)
        if not empty and key is not None and key in seen:
            empty = f"its plan is that of {seen[key].text}"
        if not empty:
            seen[key] = size
        yield Cell(method.name, size, n_params, empty)


def _counted(spec: SweepSpec, method: Method, size: Size, model_config: Any) -> tuple[int | None, Any, str]:
    if method.kind != "adapter":
        return (0 if method.kind == "head" else None), None, ""
    config = spec.config(method, spec.task[0], size, lr=1.0)  # the plan does not depend on the rate
    try:
        with located(f"method {method.name}"):
            plan = build_plan(model_config, config.to_plan())
    except BudgetError as error:
        return None, None, str(error)
    return plan.n_params, tuple(group.network for group in plan.groups), ""


@dataclass(frozen=True)
class SweepPart:
    """The runs of one method on one task: those that tune, and those that are reported with each seed.

    ``total``: as in ``Due.totals``.
    """

    task: str
    method: Method
    proposed: Proposed
    reported: tuple[RunConfig, ...]
    total: int

    @property
    def configs(self) -> tuple[RunConfig, ...]:
        """All runs that can be named now."""
        return (*self.proposed.runs, *self.reported)

    @property
    def extended(self) -> list[str]:
        """The grids that were extended, with the rates that were added."""
        return [_extended(self.method, size, self.task, rates) for size, rates in self.proposed.extended]

    @property
    def edges(self) -> list[str]:
        """The cells whose best rate is at an end of those that were tried."""
        return [
            edge_cell(self.method.name, size.text, self.task, lr, is_low) for size, lr, is_low in self.proposed.edges
        ]


def part(
    spec: SweepSpec,
    planned: Sequence[Cell],
    root: Path,
    task: str,
    method: Method,
    ended: Callable[[str], bool] | None = None,
) -> SweepPart | None:
    """Return the runs of one method on one task, from its own cells; None where all of these are empty.

    They follow from its own runs alone, so no other part changes when one of them ends. Arguments as of ``due``.
    """
    filled = [cell for cell in planned if not cell.empty]
    if not filled:
        return None
    propose = doors.get("proposers", "search") if spec.search else tuning.propose
    settled = ended or (lambda name: is_finished(root, name) or is_failed(root, name))
    sizes = [cell.size for cell in sorted(filled, key=lambda cell: cell.n_params or 0)]
    proposed = propose(TuningCase(spec, method, task, sizes, Path(root), settled))
    n_reported = 1 if spec.search and spec.search.size else len(sizes)
    reported = tuple(replace(run, seed=seed, tuning=False) for run in proposed.reported for seed in spec.seed)
    return SweepPart(task, method, proposed, reported, proposed.total + n_reported * len(spec.seed))


def parts(
    spec: SweepSpec, planned: Sequence[Cell], root: Path, ended: Callable[[str], bool] | None = None
) -> list[SweepPart]:
    """Return the parts of a sweep, by task and method; arguments as of ``due``."""
    own: dict[str, list[Cell]] = {}
    for cell in planned:
        own.setdefault(cell.method, []).append(cell)
    every = (
        part(spec, own.get(method.name, []), root, task, method, ended) for task in spec.task for method in spec.methods
    )
    return [one for one in every if one is not None]


def due(spec: SweepSpec, planned: Sequence[Cell], root: Path, ended: Callable[[str], bool] | None = None) -> Due:
    """Return the runs of a sweep: those that tune a method on a task and, once these have ended, the reported ones.

    A method with one rate is not tuned; a size whose rates were tried is reported while others are still tuned.
    Reported runs are ordered by seed, so that every method is covered early.
    ``ended``: whether a run has a result or a failure; default the folder is asked.
    """
    return joined(spec, parts(spec, planned, root, ended))


def joined(spec: SweepSpec, found: Sequence[SweepPart]) -> Due:
    """Return the runs of all parts of a sweep."""
    places = {seed: i for i, seed in enumerate(spec.seed)}
    reported = sorted((run for one in found for run in one.reported), key=lambda config: places[config.seed])
    configs = (*(run for one in found for run in one.proposed.runs), *reported)
    _check_distinct(configs)
    failures = [(one, failure) for one in found for failure in one.proposed.failures]
    return Due(
        configs,
        {(one.task, one.method.name): one.total for one in found},
        tuple(f"{display(one.method.name)} on {one.task}: {failure}" for one, failure in failures),
        sum(one.proposed.total for one in found),
        sum(one.proposed.more for one in found),
        tuple(text for one in found for text in one.extended),
        tuple(text for one in found for text in one.edges),
    )


def _extended(method: Method, size: Size, task: str, rates: Sequence[float]) -> str:
    """Return a line that names the rates that were added to a grid."""
    which = f"{display(method.name)} {size.text}".strip()
    return f"{which} on {task} by {' '.join(f'{rate:g}' for rate in rates)}"


def _check_distinct(configs: Sequence[RunConfig]) -> None:
    seen: dict[str, RunConfig] = {}
    for config in configs:
        if (other := seen.setdefault(config.id, config)) is not config:
            raise TensorAdaptError(
                f"methods {other.method!r} and {config.method!r} have a run in common ({config.title}); expected "
                "methods that differ: leave one of them out, or its size"
            )
