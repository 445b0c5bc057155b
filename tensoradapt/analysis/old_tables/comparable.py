"""Check that runs compare, score each, and measure how much better one group is than a reference."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from tensoradapt.analysis.statistics.intervals import Floats, Interval, paired_difference, t_interval
from tensoradapt.checks import items, of_kind
from tensoradapt.errors import TensorAdaptError
from tensoradapt.runs.row import REFERENCES as REFERENCES
from tensoradapt.runs.store import Run, read_array
from tensoradapt.text import size_text

MOST_RUNS = 1_000_000


def runs_of(runs: Iterable[Run]) -> list[Run]:
    """Return the runs that were given, as a list; raises TensorAdaptError for anything else."""
    return items(of_kind(Run), runs, "runs", most=MOST_RUNS)


def tuned(run: Run) -> bool:
    """Return whether a run only helped to choose a learning rate."""
    return bool(run.row["tuning"])


def reported(runs: Iterable[Run]) -> list[Run]:
    """Return the runs that means and figures are of: all but those that only helped to choose a learning rate."""
    return [run for run in runs if not tuned(run)]


def run_size(run: Run) -> str:
    """Return the rank or budget that a run was asked for, as text; "" where it has none."""
    return size_text(run.row["rank"], run.row["budget"])


def tuned_where(runs: Iterable[Run]) -> str:
    """Return the sizes at which rates were tuned, as the runs tell.

    "size": at each; "method": at one of each method; "search": at those that a search proposed.

    A search tries other rates at each size and reports one size of each method; a grid has rates that sizes share.
    """
    tried: dict[tuple[str, str], dict[str, set[float]]] = {}
    sizes: dict[tuple[str, str], set[str]] = {}
    for run in runs:
        case = str(run.row["task"]), run.row["method"]
        if tuned(run):
            tried.setdefault(case, {}).setdefault(run_size(run), set()).add(run.row["lr"])
        else:
            sizes.setdefault(case, set()).add(run_size(run))
    several = {case: rates for case, rates in tried.items() if len(rates) > 1}
    if not several:
        return "method"
    apart = all(sum(map(len, rates.values())) == len(set().union(*rates.values())) for rates in several.values())
    return "search" if apart and all(len(sizes.get(case, ())) <= 1 for case in several) else "size"


def by_task(runs: Iterable[Run]) -> dict[str, list[Run]]:
    """Return the runs of each task, tasks by name."""
    every = list(runs)
    tasks = sorted({str(run.row["task"]) for run in every})
    return {task: [run for run in every if run.row["task"] == task] for task in tasks}


def methods(runs: Iterable[Run]) -> list[str]:
    """Return the names of the adapters that are reported."""
    return sorted({run.row["method"] for run in reported(runs) if run.row["kind"] == "adapter"})


def score(run: Run) -> float:
    """Return the test score of a run; a diverged run counts as chance."""
    status = run.row["status"]
    value = chance(run) if status == "diverged" else run.row["test"]
    if value is None:
        raise TensorAdaptError(
            f"run {run.name} ({status}) has no test {metric_name(run)}; expected a number in "
            f"{run.path / 'result.json'}: delete the folder {run.path} to run it again"
        )
    return float(value)


def versus(group: Sequence[Run], reference: Sequence[Run]) -> Interval | None:
    """Return the paired difference of the group to the reference over the seeds that both ran; None without one."""
    other = {run.row["seed"]: run for run in reference}
    pairs = [(run, other[run.row["seed"]]) for run in group if run.row["seed"] in other]
    if not pairs:
        return None
    if (scores := paired_scores(pairs)) is not None:
        return paired_difference(*scores)
    return t_interval([score(a) - score(b) for a, b in pairs])


def paired_scores(pairs: Sequence[tuple[Run, Run]]) -> tuple[Floats, Floats] | None:
    """Return each test example's contribution to the scores of both runs of each pair, (seeds, n_test) of either side.

    None where a run stored none. Runs of other test labels raise TensorAdaptError.
    """
    runs = [run for pair in pairs for run in pair]
    if not all(run.has("scores") and run.has("labels") for run in runs):
        return None
    scores, labels = zip(*map(_examples, runs), strict=True)
    for run, own, run_labels in zip(runs, scores, labels, strict=True):
        if not np.array_equal(run_labels, labels[0]):
            raise TensorAdaptError(
                f"runs {runs[0].name} and {run.name} have different test labels; expected one test set: "
                "analyse runs of different data apart"
            )
        if own.shape != (len(run_labels),) or own.dtype.kind != "f":
            raise TensorAdaptError(
                f"run {run.name} has scores of shape {own.shape} and type {own.dtype}; expected a number for each of "
                f"{len(run_labels)} test examples: delete the folder {run.path} to run it again"
            )
    return np.array(scores[0::2]), np.array(scores[1::2])


def _examples(run: Run) -> tuple[Floats, np.ndarray]:
    """Return the score of each test example, and the labels, (n_test,) each."""
    return _read(run.path, tuple((run.path / f"{name}.npy").stat().st_mtime_ns for name in ("scores", "labels")))


@lru_cache(maxsize=1024)  # a reference is asked for with every method
def _read(folder: Path, written: tuple[int, ...]) -> tuple[Floats, np.ndarray]:
    return read_array(folder, "scores"), read_array(folder, "labels")


def check_comparable(runs: Sequence[Run]) -> None:
    """Raise TensorAdaptError unless the runs share model, task and metric."""
    for key in ("model", "task", "metric"):
        values = {str(run.row[key]) for run in runs}
        if len(values) > 1:
            raise TensorAdaptError(
                f"the runs have {len(values)} {key}s: {', '.join(sorted(values))}; expected one, as scores of "
                f"different {key}s do not compare: select the runs of one first"
            )


def check_group(group: Sequence[Run], what: str) -> None:
    """Raise TensorAdaptError if the runs of a point, named ``what``, have two learning rates or share a seed."""
    seeds = [run.row["seed"] for run in group]
    rates = sorted({run.row["lr"] for run in group}, key=str)
    twice = [run.name for run in group if seeds.count(run.row["seed"]) > 1]
    if len(rates) > 1:
        raise TensorAdaptError(
            f"{what} has runs with learning rates {', '.join(map(str, rates))}; expected one, chosen on validation: "
            "select the runs of that rate first, by --spec FILE or --where"
        )
    if twice:
        raise TensorAdaptError(
            f"{what} has several runs of one seed: {', '.join(twice)}; expected one run per seed: "
            "select the runs that share all other settings first, those of one sweep by --spec FILE, or by --where"
        )


def metric_name(run: Run) -> str:
    """Return the name of the metric that a run reports."""
    return str(run.row["metric"])


def chance(run: Run) -> float:
    """Return the score of a model that has learned nothing; nan where it is not known."""
    return math.nan if run.row["chance"] is None else float(run.row["chance"])


def score_range(run: Run) -> tuple[float, float]:
    """Return the least and the largest value that a run's metric can have; infinite where it has no end."""
    low, high = run.row["metric_low"], run.row["metric_high"]
    return -math.inf if low is None else low, math.inf if high is None else high


def perfect(run: Run) -> float:
    """Return a perfect answer's score: the metric's largest value, or where that is not known 1 (100 in percent)."""
    high = score_range(run)[1]
    return high if math.isfinite(high) else run.row.get("perfect", 1.0)


def percent(scores: Iterable[float]) -> bool:
    """Return whether scores are in percent, as one is far above 1."""
    return max(scores, default=0.0) > 1.5


def score_name(run: Run) -> str:
    """Return what the score of a run is called on an axis and in captions."""
    return str(run.row.get("score_name") or f"test {metric_name(run)}").replace("_", " ")
