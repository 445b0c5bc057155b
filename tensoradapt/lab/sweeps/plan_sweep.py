"""Plan a sweep: its tasks, the rates of heads, and its cells, which are its methods at each size with their parameters.

After it nothing of a specification is looked up again: ``due`` names the runs of a ``Sweep``, ``record`` keeps it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from tensoradapt.errors import BudgetError, TensorAdaptError, located
from tensoradapt.lab.runs.config import RunConfig
from tensoradapt.lab.sweeps.spec import Method, Rates, SweepSpec, longest_of
from tensoradapt.lab.tasks import DataSpec, Task
from tensoradapt.lab.tasks.classification import Classification
from tensoradapt.lab.tasks.rates import head_rate
from tensoradapt.lab.tasks.registry import restore
from tensoradapt.planning.build_plan import build_plan
from tensoradapt.planning.size import Size
from tensoradapt.training.options import Training


@dataclass(frozen=True)
class Cell:
    """A method at one size. ``n_params``: None where the base is trained; ``empty``: why there is nothing to run."""

    method: str
    size: Size
    n_params: int | None
    empty: str = ""


@dataclass(frozen=True)
class Sweep:
    """A planned sweep.

    Args:
        spec: what was asked for.
        folder: of its runs.
        head_rates: the head's rate by task, where a method gives none.
        cells: each method at each size.
        versions: of what it was begun with; none before it is.
    """

    spec: SweepSpec
    folder: Path
    head_rates: Mapping[str, float] = field(default_factory=dict)
    cells: tuple[Cell, ...] = ()
    versions: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def tasks(self) -> Mapping[str, Task]:
        """The tasks by name. Raises TensorAdaptError where the data of one is not what it was."""
        return {name: restore(name, self.spec.own.get(name, {})) for name in self.spec.task}

    def head_lr(self, method: Method, task: str) -> float | None:
        """Return the rate of a method's head on a task, given or by the model; None where the rest's is taken."""
        return method.training.get("head_lr", self.head_rates.get(task))

    def rates(self, method: Method, task: str) -> Rates:
        """Return the rates of a method on a task: its grid, or for the head on a frozen base the grid of heads."""
        head = None if method.own_lr else self.head_lr(method, task)
        rates = (head,) if head else method.lr
        return rates[:1] if self.fits(method, task) else rates

    def fits(self, method: Method, task: str) -> bool:
        """Return whether a method is a head that is fitted on the frozen base, which takes no rate."""
        return method.kind == "head" and isinstance(self.tasks[task], Classification)

    def data(self, method: Method, task: str) -> DataSpec:
        """Return how much data the runs of a method have of a task; own data says how long its texts may be."""
        length = longest_of(self.spec.own.get(task, {}))
        return replace(method.data, max_length=length) if length else method.data

    def config(self, method: Method, task: str, size: Size, lr: float) -> RunConfig:
        """Return a tuning run of a method on a task, with the first of the tuning seeds."""
        head_lr = lr if method.kind == "head" else self.head_lr(method, task)
        return RunConfig(
            model=self.spec.model,
            task=task,
            training=Training(**{**method.training, "lr": lr, "head_lr": head_lr}),
            kind=method.kind,
            adapter=method.at(size),
            data=self.data(method, task),
            seed=self.spec.tuning.seed[0],
            own=self.spec.own.get(task, {}),
            tuning=True,
            fitted=self.fits(method, task),
            method=method.name,
        )


def plan_sweep(spec: SweepSpec, folder: Path) -> Sweep:
    """Plan a sweep into a folder of runs: every method at every size, for the model as its tasks ask for it.

    A cell is empty where the method cannot meet the budget, or where its plan is that of an earlier size.

    Raises:
        TensorAdaptError: for a model that cannot be loaded, what a task cannot use, and all else that a plan refuses.
    """
    sweep = Sweep(spec, folder)
    for task in sweep.tasks.values():
        _check(spec, task)
    bases = [task.base(spec.model) for task in sweep.tasks.values()]  # of each, as the model must suit all of them
    sweep = replace(sweep, head_rates=_head_rates(sweep))
    return replace(sweep, cells=tuple(cell for method in spec.methods for cell in _cells(sweep, method, bases[0])))


def _check(spec: SweepSpec, task: Task) -> None:
    """Raise TensorAdaptError for a reference or a readout that a task cannot use."""
    if odd := [method.kind for method in spec.reference if method.kind not in task.references]:
        raise TensorAdaptError(
            f"task {task.name!r} takes no reference {odd[0]!r}, as its loss compares an adapter with its frozen "
            "base; leave it out"
        )
    if odd := [method.data.readout for method in spec.methods if method.data.readout not in task.readouts]:
        raise TensorAdaptError(
            f'readout is "{odd[0]}", and task {task.name!r} has no classifier of texts; leave it out'
        )


def _head_rates(sweep: Sweep) -> dict[str, float]:
    """Return the head's rate on each task by kind of model (``tasks.rates``); none where it is given or searched."""
    spec = sweep.spec
    if all("head_lr" in method.training for method in spec.methods) or (spec.search and spec.search.head_lr):
        return {}
    found = {name: head_rate(task, spec.model) for name, task in sweep.tasks.items()}
    return {name: rate for name, rate in found.items() if rate is not None}


def _cells(sweep: Sweep, method: Method, base: Any) -> Iterator[Cell]:
    seen: dict[Any, Size] = {}
    for size in method.sizes:
        n_params, key, empty = _counted(sweep, method, size, base)
        if not empty and key is not None and key in seen:
            empty = f"its plan is that of {seen[key].text}"
        if not empty:
            seen[key] = size
        yield Cell(method.name, size, n_params, empty)


def _counted(sweep: Sweep, method: Method, size: Size, base: Any) -> tuple[int | None, Any, str]:
    """Return the parameters of a method at a size, its networks, and why there are none."""
    if method.kind != "adapter":
        return (0 if method.kind == "head" else None), None, ""
    config = sweep.config(method, sweep.spec.task[0], size, lr=1.0)  # the plan does not depend on the rate
    try:
        with located(f"method {method.name}"):
            plan = build_plan(base, config.to_plan())
    except BudgetError as error:
        return None, None, str(error)
    return plan.n_params, tuple(group.network for group in plan.groups), ""
