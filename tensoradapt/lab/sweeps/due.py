"""The runs of a sweep that are due at any moment.

They depend on the planned sweep and the finished runs alone, so a sweep that was stopped, or two sweeps in one folder,
agree on them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from tensoradapt import doors
from tensoradapt.errors import TensorAdaptError
from tensoradapt.lab.analysis.names import display
from tensoradapt.lab.analysis.rates import edge_cell
from tensoradapt.lab.runs.config import RunConfig
from tensoradapt.lab.runs.store import is_failed, is_finished
from tensoradapt.lab.sweeps import tuning
from tensoradapt.lab.sweeps.plan_sweep import Sweep
from tensoradapt.lab.sweeps.spec import Method, SweepSpec
from tensoradapt.lab.sweeps.tuning import Proposed, TuningCase
from tensoradapt.planning.size import Size

Ended = Callable[[str], bool]


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


def part(sweep: Sweep, task: str, method: Method, ended: Ended | None = None) -> SweepPart | None:
    """Return the runs of one method on one task; None where all of its cells are empty.

    They follow from its own runs alone, so no other part changes when one of them ends. ``ended``: as of ``due``.
    """
    filled = [cell for cell in sweep.cells if cell.method == method.name and not cell.empty]
    if not filled:
        return None
    spec = sweep.spec
    propose = doors.get("proposers", "search") if spec.search else tuning.propose
    sizes = [cell.size for cell in sorted(filled, key=lambda cell: cell.n_params or 0)]
    proposed = propose(TuningCase(sweep, method, task, sizes, ended or partial(on_disk, sweep.folder)))
    n_reported = 1 if spec.search and spec.search.size else len(sizes)
    reported = tuple(replace(run, seed=seed, tuning=False) for run in proposed.reported for seed in spec.seed)
    return SweepPart(task, method, proposed, reported, proposed.total + n_reported * len(spec.seed))


def on_disk(folder: Path, name: str) -> bool:
    """Return whether a run has a result or a failure in a folder."""
    return is_finished(folder, name) or is_failed(folder, name)


def parts(sweep: Sweep, ended: Ended | None = None) -> list[SweepPart]:
    """Return the parts of a sweep, by task and method; ``ended``: as of ``due``."""
    every = (part(sweep, task, method, ended) for task in sweep.spec.task for method in sweep.spec.methods)
    return [one for one in every if one is not None]


def due(sweep: Sweep, ended: Ended | None = None) -> Due:
    """Return the runs of a sweep: those that tune a method on a task and, once these have ended, the reported ones.

    A method with one rate is not tuned; a size whose rates were tried is reported while others are still tuned.
    Reported runs are ordered by seed, so that every method is covered early.
    ``ended``: whether a run has a result or a failure; default the folder is asked.
    """
    return joined(sweep.spec, parts(sweep, ended))


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
