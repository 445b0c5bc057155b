"""Tuning: which learning rates of a method are tried, and which of them is then run with the reported seeds.

A grid tries every learning rate at once, with each tuning seed. Where the best of them is at an end, the grid goes on
beyond it by its own step, one rate at a time; which rates these are follows from the runs that have ended.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from tensoradapt.lab.runs.config import RunConfig
from tensoradapt.lab.runs.store import is_finished, read_reached
from tensoradapt.lab.sweeps.plan_sweep import Sweep
from tensoradapt.lab.sweeps.spec import Method
from tensoradapt.planning.size import Size
from tensoradapt.training.options import HELD

Outcome = tuple[str, float | None]  # the name of one of Optuna's states, and the score
DIGITS = 4  # a proposed number has so many, so that it can be written down, and platforms agree on it


@dataclass(frozen=True)
class TuningCase:
    """A method of a sweep on a task, and its sizes from the smallest up.

    ``settled``: whether the run of an id has a result or a failure.
    """

    sweep: Sweep
    method: Method
    task: str
    sizes: Sequence[Size]
    settled: Callable[[str], bool]

    @property
    def middle(self) -> Size:
        """The size at which rates are tuned for all sizes."""
        return self.sizes[(len(self.sizes) - 1) // 2]


@dataclass(frozen=True)
class Proposed:
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
    edges: tuple[tuple[Size, float, bool], ...] = ()


def at_sizes(config: RunConfig, sizes: Sequence[Size]) -> tuple[RunConfig, ...]:
    """Return a configuration at each of some sizes."""
    if config.adapter is None:
        return (config,)
    adapters = [replace(config.adapter, rank=size.rank, budget=size.budget) for size in sizes]
    return tuple(replace(config, adapter=adapter) for adapter in adapters)


def outcome(config: RunConfig, root: Path) -> Outcome:
    """Return a run's end and score in Optuna's terms: a diverged run is pruned, which counts as bad."""
    if not is_finished(root, config.id):
        return "FAIL", None
    status, score, _ = _validated(root / config.id)
    return "PRUNED" if score is None or status == "diverged" else "COMPLETE", score


def learned(config: RunConfig, root: Path) -> bool:
    """Return whether a finished run is better on validation than a constant answer."""
    _, score, chance = _validated(root / config.id)
    return score is not None and score > chance


def _validated(path: Path) -> tuple[str, float | None, float]:
    """Return the status of a finished run, its score on validation, and that of a constant answer."""
    return _read(path, (path / "result.json").stat().st_mtime_ns)


@lru_cache(maxsize=1 << 16)  # what is due is asked for again whenever a run ends
def _read(path: Path, written: int) -> tuple[str, float | None, float]:
    found = read_reached(path)
    return found["status"], found["validation"], found["chance"]


@dataclass(frozen=True)
class _Rate:
    """A rate that was tried.

    ``config``: its run with the first tuning seed; ``bad``: how many of its runs failed or diverged; ``mean``: the mean
    validation score of those that have one.
    """

    config: RunConfig
    bad: int
    mean: float


def propose(case: TuningCase) -> Proposed:
    """Tune a method at each of its sizes, or at its middle one for all; a single rate is not tuned."""
    sweep, (first, *others) = case.sweep, case.sweep.rates(case.method, case.task)
    if not others:
        return Proposed((), 0, at_sizes(sweep.config(case.method, case.task, case.middle, first), case.sizes))
    if sweep.spec.tuning.at == "method":
        tuned = _grid(case, case.middle)
        return replace(tuned, reported=tuple(one for best in tuned.reported for one in at_sizes(best, case.sizes)))
    parts = [_grid(case, size) for size in case.sizes]
    return Proposed(
        tuple(run for part in parts for run in part.runs),
        sum(part.total for part in parts),
        tuple(run for part in parts for run in part.reported),
        tuple(text for part in parts for text in part.failures),
        sum(part.more for part in parts),
        tuple(one for part in parts for one in part.extended),
        tuple(one for part in parts for one in part.edges),
    )


def _grid(case: TuningCase, size: Size) -> Proposed:
    """Try each rate with each tuning seed at one size and, while the best is at an end, one rate beyond it."""
    sweep, grid = case.sweep, sorted(case.sweep.rates(case.method, case.task))
    tuning = sweep.spec.tuning
    added: tuple[float, ...] = ()
    while True:
        firsts = [sweep.config(case.method, case.task, size, lr) for lr in sorted((*grid, *added))]
        runs = tuple(run for first in firsts for run in _seeded(case, first))
        found = Proposed(runs, len(runs), extended=((size, added),) if added else ())
        left = tuning.extend - len(added)
        if not all(case.settled(run.id) for run in runs):
            return replace(found, more=left * len(tuning.seed))
        rates = [rate for first in firsts if (rate := _rate(case, first))]
        if not rates:
            return replace(found, failures=(f"no learning rate gave a result{_where(case, size)}",))
        best = min(rates, key=lambda rate: (rate.bad, -rate.mean, rate.config.training.lr))
        extends = left and _told_apart(rates) and _learned(case, best)
        beyond = _beyond(grid, added, best.config.training.lr) if extends else None
        if beyond is None:
            return replace(found, reported=(best.config,), edges=_edges(size, best, rates, firsts))
        added = (*added, beyond)


def _edges(
    size: Size, best: _Rate, rates: Sequence[_Rate], firsts: Sequence[RunConfig]
) -> tuple[tuple[Size, float, bool], ...]:
    """Return the size, the rate and whether it is the lowest, where the best rate of several is at an end."""
    lr, lowest, highest = best.config.training.lr, firsts[0].training.lr, firsts[-1].training.lr
    return ((size, lr, lr == lowest),) if _told_apart(rates) and lr in (lowest, highest) else ()


def _where(case: TuningCase, size: Size) -> str:
    """Return the size as part of a message, where sizes are tuned apart from each other."""
    return f" at {size.text}" if case.sweep.spec.tuning.at == "size" and size else ""


def _rate(case: TuningCase, first: RunConfig) -> _Rate | None:
    """Return a rate whose runs have ended, by the first of them; None where none of them has a score."""
    ends = [outcome(run, case.sweep.folder) for run in _seeded(case, first)]
    scores = [score for _, score in ends if score is not None]
    bad = sum(state != "COMPLETE" for state, _ in ends)
    return _Rate(first, bad, statistics.fmean(scores)) if scores else None


def _seeded(case: TuningCase, first: RunConfig) -> tuple[RunConfig, ...]:
    return tuple(replace(first, seed=seed) for seed in case.sweep.spec.tuning.seed)


def _told_apart(rates: Sequence[_Rate]) -> bool:
    """Return whether rates differ in their scores; else none is the best, whether or not it is at an end."""
    return len({rate.mean for rate in rates}) > 1


def _learned(case: TuningCase, best: _Rate) -> bool:
    return not best.bad and all(learned(run, case.sweep.folder) for run in _seeded(case, best.config))


def _beyond(grid: Sequence[float], added: Sequence[float], best: float) -> float | None:
    """Return the rate that follows the best by the step of the grid's nearer end; None where the best is at no end.

    >>> _beyond([1e-3, 3e-3, 1e-2], (), 1e-2), _beyond([1e-3, 3e-3, 1e-2], (0.03333,), 0.03333)
    (0.03333, 0.1111)
    >>> _beyond([1e-3, 3e-3, 1e-2], (), 1e-3), _beyond([1e-3, 3e-3, 1e-2], (), 3e-3)
    (0.0003333, None)
    """
    lowest, highest = min(*grid, *added), max(*grid, *added)
    if best not in (lowest, highest):
        return None
    step = grid[0] / grid[1] if best == lowest else grid[-1] / grid[-2]
    rate = float(f"{best * step:.{DIGITS}g}")
    further = 0 < rate < lowest or highest < rate <= HELD  # no more where numbers end, or rounding eats the step
    return rate if further else None
