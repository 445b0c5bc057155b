"""Check that runs compare, score each, and measure how much better one group is than a reference."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from tensoradapt.analysis.statistics.intervals import Floats, Interval, paired_difference, t_interval
from tensoradapt.checks import items, of_kind
from tensoradapt.errors import TensorAdaptError, did_you_mean
from tensoradapt.runs.store import HEAD_LABEL, Run, read_array
from tensoradapt.text import size_text

MOST_RUNS = 1_000_000
REFERENCES = {"head": HEAD_LABEL, "full": "full fine-tuning"}  # kinds of runs that are no adapter


def runs_of(runs: Iterable[Run]) -> list[Run]:
    """The runs that were given, as a list; raises TensorAdaptError for anything else."""
    return items(of_kind(Run), runs, "runs", most=MOST_RUNS)


def tuned(run: Run) -> bool:
    """Whether a run only helped to choose a learning rate."""
    return bool(run.config.get("tuning"))


def reported(runs: Iterable[Run]) -> list[Run]:
    """The runs that means and figures are of: all but those that only helped to choose a learning rate."""
    return [run for run in runs if not tuned(run)]


def run_size(run: Run) -> str:
    """The rank or budget that a run was asked for, as text; "" where it has none."""
    return size_text(run.config.get("rank"), run.config.get("budget"))


def tuned_where(runs: Iterable[Run]) -> str:
    """The sizes at which rates were tuned, as the runs tell: "size", at each; "method", at one of each method;
    "search", at those that a search proposed.

    A search tries other rates at each size and reports one size of each method; a grid has rates that sizes share.
    """
    tried: dict[tuple[str, str], dict[str, set[float]]] = {}
    sizes: dict[tuple[str, str], set[str]] = {}
    for run in runs:
        case = str(run.config["task"]), str(run.config["label"])
        if tuned(run):
            tried.setdefault(case, {}).setdefault(run_size(run), set()).add(run.config["lr"])
        else:
            sizes.setdefault(case, set()).add(run_size(run))
    several = {case: rates for case, rates in tried.items() if len(rates) > 1}
    if not several:
        return "method"
    apart = all(sum(map(len, rates.values())) == len(set().union(*rates.values())) for rates in several.values())
    return "search" if apart and all(len(sizes.get(case, ())) <= 1 for case in several) else "size"


def by_task(runs: Iterable[Run]) -> dict[str, list[Run]]:
    """The runs of each task, tasks by name."""
    every = list(runs)
    tasks = sorted({str(run.config["task"]) for run in every})
    return {task: [run for run in every if run.config["task"] == task] for task in tasks}


def methods(runs: Iterable[Run]) -> list[str]:
    """The names of the adapters that are reported."""
    return sorted({str(run.config["label"]) for run in reported(runs) if run.config["kind"] == "adapter"})


def score(run: Run) -> float:
    """Test score of a run; a diverged run counts as chance."""
    result = run.result
    value = result["chance"] if result["status"] == "diverged" else result["test"].get(result["metric"])
    if value is None:
        raise TensorAdaptError(
            f"run {run.name} ({result['status']}) has no test {result['metric']}; expected a number in "
            f"{run.path / 'result.json'}: delete the folder {run.path} to run it again"
        )
    return float(value)


def versus(group: Sequence[Run], reference: Sequence[Run]) -> Interval | None:
    """Paired difference of the group to the reference over the seeds that both ran; None without such a seed."""
    other = {run.config["seed"]: run for run in reference}
    pairs = [(run, other[run.config["seed"]]) for run in group if run.config["seed"] in other]
    if not pairs:
        return None
    if (scores := paired_scores(pairs)) is not None:
        return paired_difference(*scores)
    return t_interval([score(a) - score(b) for a, b in pairs])


def paired_scores(pairs: Sequence[tuple[Run, Run]]) -> tuple[Floats, Floats] | None:
    """Each test example's contribution to the scores of both runs of each pair, (seeds, n_test) of either side; None
    where a run stored no predictions. Runs of other test labels raise TensorAdaptError.
    """
    runs = [run for pair in pairs for run in pair]
    if runs[0].result["metric"] not in METRICS or not all(run.has("predictions") and run.has("labels") for run in runs):
        return None
    scores, labels = zip(*map(_answers, runs), strict=True)
    for run, run_labels in zip(runs, labels, strict=True):
        if not np.array_equal(run_labels, labels[0]):
            raise TensorAdaptError(
                f"runs {runs[0].name} and {run.name} have different test labels; expected one test set: "
                "analyse runs of different data apart"
            )
    return np.array(scores[0::2]), np.array(scores[1::2])


def _answers(run: Run) -> tuple[Floats, np.ndarray]:
    """Score of each test example, chance throughout for a diverged run, and the labels, (n_test,) each."""
    chance = float(run.result["chance"]) if run.result["status"] == "diverged" else None
    written = tuple((run.path / f"{name}.npy").stat().st_mtime_ns for name in ("predictions", "labels"))
    return _read(run.path, run.result["metric"], chance, written)


@lru_cache(maxsize=1024)  # a reference is asked for with every method
def _read(folder: Path, metric: str, chance: float | None, written: tuple[int, ...]) -> tuple[Floats, np.ndarray]:
    labels = read_array(folder, "labels")
    if chance is not None:
        return np.full(len(labels), chance), labels
    predictions = read_array(folder, "predictions")
    try:
        return example_scores(metric, predictions, labels), labels
    except TensorAdaptError as error:
        raise TensorAdaptError(f"run {folder.name}: {error}; delete the folder {folder} to run it again") from None


def check_comparable(runs: Sequence[Run]) -> None:
    """Raise TensorAdaptError unless the runs are complete and share model, task and metric."""
    for run in runs:
        for name, record, keys in (
            ("config", run.config, ("kind", "label", "seed")),
            ("result", run.result, ("status", "n_params", "metric", "chance", "test")),
        ):
            if missing := [key for key in keys if key not in record]:
                raise TensorAdaptError(
                    f"run {run.name} has no {missing[0]!r}; expected it in {run.path / name}.json: "
                    f"delete the folder {run.path} to run it again"
                )
    for key, values in (
        ("model", {str(run.config.get("model")) for run in runs}),
        ("task", {str(run.config.get("task")) for run in runs}),
        ("metric", {str(run.result["metric"]) for run in runs}),
    ):
        if len(values) > 1:
            raise TensorAdaptError(
                f"the runs have {len(values)} {key}s: {', '.join(sorted(values))}; expected one, as scores of "
                f"different {key}s do not compare: select the runs of one first"
            )


def check_group(group: Sequence[Run], what: str) -> None:
    """Raise TensorAdaptError if the runs of a point, named ``what``, have two learning rates or share a seed."""
    seeds = [run.config["seed"] for run in group]
    rates = sorted({run.config.get("lr") for run in group}, key=str)
    twice = [run.name for run in group if seeds.count(run.config["seed"]) > 1]
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


def example_scores(
    metric: str,
    predictions: ArrayLike,  # (n, n_labels) logits, or (n,) or (n, 1) of a regression
    labels: ArrayLike,  # (n,)
) -> Floats:
    """Each test example's contribution to a metric, (n,): its mean is the metric, the variance of its mean that of
    the metric over test sets (Hampel, Journal of the American Statistical Association 1974; for Spearman's correlation
    Croux and Dehon, Statistical Methods and Applications 2010, here with ties).

    ``metric``: accuracy, f1 (of class 1), matthews, pearson or spearman. A constant answer, whose correlation is
    counted as 0, contributes 0 everywhere. Raises TensorAdaptError for another metric or other shapes.

    >>> example_scores("accuracy", [[2.0, 1.0], [0.0, 1.0], [3.0, 1.0]], [0, 1, 1])
    array([1., 1., 0.])
    """
    given, truth = np.asarray(predictions, float), np.asarray(labels)
    if metric not in METRICS:
        raise TensorAdaptError(f"metric is {metric!r}{did_you_mean(metric, METRICS)}")
    flat = metric in ("pearson", "spearman")
    if flat and given.shape == (len(truth), 1):
        given = given[:, 0]
    if given.ndim != (1 if flat else 2) or len(given) != len(truth) or truth.ndim != 1:
        raise TensorAdaptError(
            f"predictions have shape {given.shape} for labels of shape {truth.shape}; expected "
            f"{'(n,)' if flat else '(n, n_labels)'} and (n,) for {metric}"
        )
    answers: Floats = given if flat else given.argmax(1).astype(float)
    return METRICS[metric](answers, truth)


def _f1(predicted: Floats, labels: Floats) -> Floats:
    """F1 is a ratio of means: 2 TP over predicted positives plus labelled positives."""
    top, bottom = 2.0 * ((predicted == 1) & (labels == 1)), 1.0 * (predicted == 1) + (labels == 1)
    if not top.any():
        return np.zeros(len(labels))
    score = top.mean() / bottom.mean()
    return score + (top - score * bottom) / bottom.mean()


def _pearson(x: Floats, y: Floats) -> Floats:
    """r + z_x z_y - r (z_x^2 + z_y^2) / 2, of standardised values z."""
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return np.zeros(len(x))
    a, b = ((v - v.mean()) / v.std() for v in (x, y))
    r = (a * b).mean()
    return a * b - r * (a**2 + b**2) / 2 + r


def _spearman(x: Floats, y: Floats) -> Floats:
    """Pearson's of the ranks f and g, plus the effect of an example on the ranks of those above it."""
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return np.zeros(len(x))
    f, g = (1 - _above(v, np.ones(len(v))) for v in (x, y))  # mid-ranks as shares
    correlation, spread = np.corrcoef(f, g)[0, 1], np.sqrt(f.var() * g.var())
    joint = f * g + _above(x, g) + _above(y, f)
    squares = [(v**2 + 2 * _above(values, v)) / v.var() for values, v in ((x, f), (y, g))]
    both = squares[0] + squares[1]
    return correlation + (joint - joint.mean()) / spread - correlation * (both - both.mean()) / 2


def _above(values: Floats, of: Floats) -> Floats:
    """For each example the mean over all of ``of`` where their value is above its own; ties count half."""
    levels, at = np.unique(values, return_inverse=True)
    sums = np.bincount(at, of, len(levels))
    return (sums.sum() - sums.cumsum() + sums / 2)[at] / len(values)


METRICS: dict[str, Callable[[Floats, Floats], Floats]] = {
    "accuracy": lambda predicted, labels: (predicted == labels).astype(float),
    "f1": _f1,
    "matthews": _pearson,  # Matthews' coefficient is Pearson's of two binary variables
    "pearson": _pearson,
    "spearman": _spearman,
}
RANGES = dict.fromkeys(("accuracy", "f1", "reward_accuracy", "roc_auc"), (0.0, 1.0))
RANGES |= dict.fromkeys(("matthews", "pearson", "spearman"), (-1.0, 1.0))


def score_range(metric: str, scores: Iterable[float] = ()) -> tuple[float, float]:
    """The least and the largest value that a metric can have; infinite for one that is not known. ``scores`` tell
    whether it is in percent.

    >>> score_range("accuracy"), score_range("spearman"), score_range("accuracy", [78.3])
    ((0.0, 1.0), (-1.0, 1.0), (0.0, 100.0))
    """
    low, high = RANGES.get(metric.replace(" ", "_").removeprefix("test_").lower(), (-np.inf, np.inf))
    return (100 * low, 100 * high) if percent(scores) else (low, high)


def percent(scores: Iterable[float]) -> bool:
    """Whether scores are in percent, as one is far above 1."""
    return max(scores, default=0.0) > 1.5


def score_name(run: Run) -> str:
    """What the score of a run is called on an axis and in captions."""
    return str(run.result.get("score_name") or f"test {run.result['metric']}").replace("_", " ")
