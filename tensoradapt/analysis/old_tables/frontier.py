"""Turn runs into points, mark the frontier of score against cost, and list both in a table."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from tensoradapt.analysis.old_tables.comparable import (
    REFERENCES,
    check_comparable,
    check_group,
    metric_name,
    reported,
    runs_of,
    score,
    versus,
)
from tensoradapt.analysis.old_tables.frames import as_runs
from tensoradapt.analysis.old_tables.setup import SETUP, setup
from tensoradapt.analysis.statistics.intervals import Interval, non_dominated, on_frontier_probability, t_interval
from tensoradapt.checks import is_number
from tensoradapt.errors import TensorAdaptError, did_you_mean
from tensoradapt.files import csv_bytes, replace_file
from tensoradapt.runs.store import Run
from tensoradapt.text import Rank, bonds_text, size_text

# what a frontier can be drawn over: parameters, or a measurement's key, and its name on an axis
COSTS = {
    "n_params": "trainable parameters (adapter)",
    "adapter_bytes": "stored numbers of the adapter (bytes)",
    "peak_memory_bytes": "peak resident memory (bytes)",
    "peak_device_bytes": "peak GPU memory (bytes)",
    "step_seconds_median": "median time of a step (s)",
    "seconds": "time of a run (s)",
}
LOST = ("at chance", "diverged")  # statuses of runs without an answer better than guessing
COLUMNS = (
    *("method", "parameterization", *SETUP, "rank", "n_params", "metric", "mean", "low", "high", "sd", "n_seeds"),
    *("n_at_chance", "n_diverged", "lr", "diff_head", "diff_head_low", "diff_head_high"),
    *("diff_full", "diff_full_low", "diff_full_high", "above_head", "p_frontier", "on_frontier"),
    *("budget", "cost", "scores", "runs"),
)


@dataclass(frozen=True)
class Point:
    """One configuration over its seeds, with its mean score, its cost and its place on the frontier.

    ``cost`` is the number of parameters, or the median over seeds of what was asked for; ``interval`` is of the test
    score; ``vs_head`` and ``vs_full`` of the paired difference to the references, None where no seed is shared.
    ``p_frontier`` is NaN for one seed. ``budget`` is what was asked for; ``scores`` are the test scores, ``lost`` says
    which of them ended at chance or diverged, and ``runs`` are the runs behind them, all by seed.
    ``setup`` has the values of ``SETUP``.
    """

    method: str
    parameterization: str | None
    layout: str | None
    rank: Rank | None
    n_params: int
    cost: float
    metric: str
    interval: Interval
    n_at_chance: int
    n_diverged: int
    seeds: tuple[int, ...]
    lr: float | None
    setup: Mapping[str, str | None] = field(default_factory=dict, compare=False)
    budget: int | None = None
    runs: tuple[str, ...] = ()
    scores: tuple[float, ...] = ()
    lost: tuple[bool, ...] = ()
    vs_head: Interval | None = None
    vs_full: Interval | None = None
    p_frontier: float = math.nan
    on_frontier: bool = False

    @property
    def all_lost(self) -> bool:
        """Whether every run ended at chance or diverged."""
        return self.n_at_chance + self.n_diverged == len(self.seeds)

    @property
    def scores_text(self) -> str:
        """The score of each run, by seed; a star marks a run that ended at chance or diverged."""
        marked = zip(self.scores, self.lost, strict=True)
        return " ".join(f"{value:.6g}{'*' if lost else ''}" for value, lost in marked)

    def run_of(self, seed: int) -> str:
        """Return the name of the run of a seed."""
        return self.runs[self.seeds.index(seed)]


def points(runs: Iterable[Run], cost: str = "n_params", *, compare: bool = True) -> list[Point]:
    """Return the adapter runs as points, one per (method, layout, rank, n_params), least cost (of ``COSTS``) first.

    ``compare``: with differences to the references, for which predictions are read, and ``p_frontier``.

    Runs at chance stay in the mean, diverged runs count as chance, and both are counted. Raises TensorAdaptError for
    runs of two tasks, models or metrics, two runs of one seed or two rates in a point, and an unmeasured cost.
    """
    every = runs_of(runs)
    check_comparable(every)
    check_cost(cost, every)
    against = {kind: _of_kind(every, kind) for kind in REFERENCES if compare}
    groups: dict[tuple[Any, ...], list[Run]] = {}
    for run in _of_kind(every, "adapter"):
        groups.setdefault(_key(run), []).append(run)
    sizes = [_point(group, against, cost) for group in groups.values()]
    sizes.sort(key=lambda point: (point.cost, point.method, str(point.layout), json.dumps(point.rank, sort_keys=True)))
    return _with_frontier(sizes, compare)


def check_cost(cost: str, runs: Sequence[Run] = ()) -> None:
    """Raise TensorAdaptError for an unknown cost; any column that is a number in all runs is one."""
    if cost not in COSTS and not (runs and all(is_number(run.row.get(cost)) for run in runs)):
        raise TensorAdaptError(f"cost is {cost!r}{did_you_mean(cost, COSTS)}")


def cost_name(cost: str) -> str:
    """Return what a cost is called on an axis."""
    return COSTS.get(cost, cost.replace("_", " "))


def frontier(runs: Iterable[Run] | Any) -> list[Point]:
    """Return the non-dominated points, fewest parameters first: no other has as good a mean with as few parameters.

    A point whose runs all ended at chance or diverged is on none (docs/sweeps/results.md).

    Args:
        runs: from ``load_runs``, or a DataFrame (``ta.results``).

    Returns:
        A point for each configuration on the frontier, with its interval over seeds and its parameters.

    Raises:
        TensorAdaptError: for runs that do not compare, as of two tasks.
    """
    return [point for point in points(as_runs(runs), compare=False) if point.on_frontier]


def references(runs: Iterable[Run]) -> dict[str, Interval]:
    """Return the test score of the references that were run: "head" (no adapter) and "full" (full fine-tuning)."""
    return {kind: point.interval for kind, point in reference_points(list(runs), compare=False).items()}


def table(runs: Iterable[Run], cost: str = "n_params") -> list[dict[str, Any]]:
    """Return a row per point, then one per reference; keys are ``COLUMNS``, numbers have 6 significant digits.

    ``above_head`` is True if the lower limit of the difference to the head alone is above 0. None where a number
    does not exist: no reference, or no interval from one seed.
    """
    every = list(runs)
    return [_row(point) for point in (*points(every, cost), *reference_points(every).values())]


def write_csv(runs: Iterable[Run], path: Path, cost: str = "n_params") -> Path:
    """Write ``table(runs, cost)`` to ``path``, whole or not at all, equal runs as equal bytes; return the path."""
    return replace_file(Path(path), csv_bytes(COLUMNS, table(runs, cost)))


def reference_points(runs: Sequence[Run], compare: bool = True) -> dict[str, Point]:
    """Return the references that were run as points, with their runs: "head" and "full"."""
    check_comparable(runs)
    by_kind = {kind: _of_kind(runs, kind) for kind in REFERENCES}
    against = by_kind if compare else {}
    return {kind: _point(group, against, "n_params", kind) for kind, group in by_kind.items() if group}


def _of_kind(runs: Sequence[Run], kind: str) -> list[Run]:
    """Return the reported runs of a kind, by seed."""
    return sorted((run for run in reported(runs) if run.row["kind"] == kind), key=lambda run: run.row["seed"])


def _key(run: Run) -> tuple[Any, ...]:
    rank = json.dumps(run.row["rank"], sort_keys=True)
    return run.row["method"], run.row["layout"], rank, run.row["n_params"]


def _point(group: list[Run], against: Mapping[str, list[Run]], cost: str, kind: str | None = None) -> Point:
    group = sorted(group, key=lambda run: run.row["seed"])
    first = group[0]
    check_group(group, f"{first.row['method']} {size_text(first.row['rank'], short=True)}".strip())
    statuses, scores = [run.row["status"] for run in group], [score(run) for run in group]
    compared = {other: None if other == kind else versus(group, runs) for other, runs in against.items()}
    return Point(
        method=first.row["method"],
        parameterization=first.row["parameterization"],
        layout=first.row["layout"],
        rank=first.row["rank"],
        n_params=first.row["n_params"],
        cost=statistics.median(_cost(run, cost) for run in group),
        metric=metric_name(first),
        interval=t_interval(scores),
        n_at_chance=statuses.count("at chance"),
        n_diverged=statuses.count("diverged"),
        seeds=tuple(run.row["seed"] for run in group),
        lr=first.row["lr"],
        setup=setup(first),
        budget=first.row["budget"],
        runs=tuple(run.name for run in group),
        scores=tuple(scores),
        lost=tuple(status in LOST for status in statuses),
        vs_head=compared.get("head"),
        vs_full=compared.get("full"),
    )


def _cost(run: Run, cost: str) -> float:
    value = run.row.get(cost)
    if value is None:
        raise TensorAdaptError(
            f"run {run.name} has no {cost}; expected it in {run.path / 'measurements.json'}: choose another cost"
        )
    return value


def _with_frontier(found: list[Point], chances: bool) -> list[Point]:
    """Return the points, marked where they are on the frontier; those at chance are no part of it at any cost."""
    able = np.array([not point.all_lost for point in found], bool)
    values = [(q.cost, q.interval.mean, q.interval.sd, q.interval.n) for q in found]
    cost, mean, sd, n = np.array(values, float).reshape(-1, 4).T
    on = np.zeros(len(found), bool)
    on[able] = non_dominated(cost[able], mean[able])
    p = np.where(chances & (n > 1), 0.0, math.nan)
    if chances:
        p[able] = on_frontier_probability(cost[able], mean[able], sd[able], n[able].astype(int))
    marked = zip(found, on, p, strict=True)
    return [replace(point, on_frontier=bool(is_on), p_frontier=float(share)) for point, is_on, share in marked]


def _row(point: Point) -> dict[str, Any]:
    interval, head, full = point.interval, point.vs_head, point.vs_full
    rank = bonds_text(point.rank) if isinstance(point.rank, Mapping) else point.rank
    values = (
        *(point.method, point.parameterization, *(point.setup.get(key) for key in SETUP)),
        *(rank, point.n_params, point.metric),
        *(interval.mean, interval.low, interval.high, interval.sd, interval.n),
        *(point.n_at_chance, point.n_diverged, point.lr),
        *((head.mean, head.low, head.high) if head else (None, None, None)),
        *((full.mean, full.low, full.high) if full else (None, None, None)),
        head.low > 0 if head and math.isfinite(head.low) else None,
        *(point.p_frontier, point.on_frontier),
        *(point.budget, point.cost, point.scores_text, " ".join(point.runs)),
    )
    return dict(zip(COLUMNS, map(_cell, values), strict=True))


def _cell(value: Any) -> Any:
    """Round a number to six significant digits; NaN, which tables cannot sort, becomes None."""
    if not isinstance(value, float):
        return value
    return float(f"{value:.6g}") if math.isfinite(value) else None
