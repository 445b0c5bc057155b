"""Rows behind the curves and the grid of a sweep, which are also their CSV files."""

from __future__ import annotations

import contextlib
import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tensoradapt.analysis.old_tables.comparable import (
    by_task,
    chance,
    check_comparable,
    metric_name,
    perfect,
    reported,
    run_size,
    tuned,
    tuned_where,
)
from tensoradapt.analysis.old_tables.frontier import Point, points, reference_points
from tensoradapt.errors import TensorAdaptError
from tensoradapt.runs.store import Run
from tensoradapt.text import size_text

Row = dict[str, Any]


def rank_rows(runs: Iterable[Run]) -> list[Row]:
    """Return the test score over seeds at each rank of each method, on one task.

    Keys: method, rank, n_params, scores (of each seed, a star marks one at chance), mean, low, high, n, at_chance,
    runs. Raises TensorAdaptError without an adapter run and for a method with a budget or with ranks by bond, which has
    no place on an axis of ranks.
    """
    adapters = points(runs, compare=False)
    odd = [point for point in adapters if not isinstance(point.rank, int)]
    if odd or not adapters:
        size = odd and (size_text(odd[0].rank, short=True) or "a budget")
        what = f"{odd[0].method} has {size}" if odd else "there is no adapter run"
        raise TensorAdaptError(f"{what}; expected methods with ranks that are numbers: draw the frontier instead")
    named = [{"method": point.method, "rank": point.rank, "n_params": point.n_params} for point in adapters]
    rows = [{**name, "scores": p.scores_text, **_of(p)} for name, p in zip(named, adapters, strict=True)]
    return sorted(rows, key=lambda row: (row["method"], row["rank"]))


def rate_rows(runs: Iterable[Run]) -> list[Row]:
    """Return the validation score of each run that tuned, on one task.

    Columns: method, size, lr, validation, mean, seed, n_params, chosen, at_chance, run.

    ``mean``: over the runs of this method, size and rate; None where none has a score. ``chosen``: the rate that the
    reported runs of the method have, those of this size where sizes were tuned apart. No tuning run raises
    TensorAdaptError.
    """
    every = list(runs)
    check_comparable(every)
    tried = [run for run in every if tuned(run)]
    if not tried:
        raise TensorAdaptError("no learning rate was tuned; expected runs of a sweep with several learning rates")
    apart = tuned_where(every) != "method"
    kept = {_tried(run, apart) for run in reported(every)}
    scores: dict[tuple[Any, ...], list[float]] = {}
    for run in tried:
        if (value := run.row["validation"]) is not None:
            scores.setdefault(_tried(run), []).append(value)
    rows = []
    for run in tried:
        found = scores.get(_tried(run))
        same = {key: run.row[key] for key in ("method", "lr", "validation", "seed", "n_params")}
        own = {"size": run_size(run), "mean": statistics.fmean(found) if found else None, "run": run.name}
        ended = {"chosen": _tried(run, apart) in kept, "at_chance": run.row["status"] != "finished"}
        rows.append({**same, **own, **ended})
    return sorted(rows, key=lambda row: (row["method"], row["n_params"], row["size"], row["lr"], row["seed"]))


def _tried(run: Run, apart: bool = True) -> tuple[Any, ...]:
    """Return what runs of one learning rate have in common: the method, the rate and, unless it is shared, the size."""
    return run.row["method"], run.row["lr"], run_size(run) if apart else None


def grid_rows(runs: Iterable[Run]) -> list[Row]:
    """Return each method's mean at each size on each task.

    Columns: method, size, task, metric, mean, low, high, n, at_chance, runs, gain.

    ``gain`` is the share of the way from chance to a perfect answer, comparable between tasks. References are rows too.
    No run raises TensorAdaptError.
    """
    every = reported(runs)
    if not every:
        raise TensorAdaptError("no run to show; expected one or more finished runs: run the sweep first")
    rows = []
    for task, of_task in by_task(every).items():
        sizes = sorted(points(of_task, compare=False), key=lambda point: (point.budget or point.n_params, point.method))
        named = [(point.method, point_size(point), _of(point)) for point in sizes]
        named += [(point.method, "", _of(point)) for point in reference_points(of_task, compare=False).values()]
        same = {"task": task, "metric": metric_name(of_task[0])}
        ends = chance(of_task[0]), perfect(of_task[0])
        rows += [
            {"method": label, "size": size, **same, **mean, "gain": gain(mean["mean"], *ends)}
            for label, size, mean in named
        ]
    return rows


def point_size(point: Point) -> str:
    """Return the budget or rank that a sweep asked for, else the number of parameters, as text."""
    return size_text(point.rank, point.budget, short=True) or f"{point.n_params:,}"


def gain(score: float, least: float, largest: float = 1.0) -> float:
    """Return a score as a share of the way from chance to a perfect answer's; NaN where chance is not known."""
    return (score - least) / (largest - least) if least < largest else math.nan


def progress_rows(attempts: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Row]:
    """Return a sweep's events in time, from the attempts of runs: hours since the first, event, run, finished so far.

    Events are "started", "finished", "failed" and "resumed" (started after a start that ended in nothing).
    """
    events = []
    for name, lines in attempts.items():
        for i, line in enumerate(lines):
            again = line["event"] == "started" and i > 0 and lines[i - 1]["event"] == "started"
            events.append((line["time"], "resumed" if again else line["event"], name))
    rows: list[Row] = []
    done, first = 0, min(events, default=(0.0,))[0]
    for at, event, name in sorted(events):
        done += event == "finished"
        rows.append({"hours": (at - first) / 3600, "event": event, "run": name, "finished": done})
    return rows


def read_attempts(runs: Iterable[Run], failed: Iterable[Path] = ()) -> dict[str, list[dict[str, Any]]]:
    """Return the attempts of each run that noted them, as runs of sweeps do; ``failed``: folders without a result.

    A line that is not whole is left out: a full disk or a power cut ends a file anywhere.
    """
    files = [path / "attempts.jsonl" for path in (*(run.path for run in runs), *failed)]
    return {file.parent.name: _attempts(file) for file in files if file.is_file()}


def _attempts(file: Path) -> list[dict[str, Any]]:
    attempts = []
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        with contextlib.suppress(ValueError, KeyError, TypeError):
            attempt = json.loads(line)
            attempts.append({**attempt, "event": str(attempt["event"]), "time": float(attempt["time"])})
    return attempts


def _of(point: Point) -> Row:
    """Return mean, interval and runs of a point, as part of a row."""
    interval = point.interval
    mean = {"mean": interval.mean, "low": interval.low, "high": interval.high, "n": interval.n}
    return {**mean, "at_chance": point.n_at_chance + point.n_diverged, "runs": " ".join(point.runs)}
