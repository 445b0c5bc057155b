"""Which runs may be compared, what each scores, and how much better one group is than a reference."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from tensoradapt.analysis.statistics.example_scores import METRICS, example_scores
from tensoradapt.analysis.statistics.intervals import Floats, Interval, paired_difference, t_interval
from tensoradapt.errors import TensorAdaptError
from tensoradapt.runs.store import Run, read_array


def tuned(run: Run) -> bool:
    """Whether a run only helped to choose a learning rate."""
    return bool(run.config.get("tuning"))


def reported(runs: Iterable[Run]) -> list[Run]:
    """The runs without those that only helped to choose a learning rate: what means and figures are of."""
    return [run for run in runs if not tuned(run)]


def methods(runs: Iterable[Run]) -> list[str]:
    """The names of the adapters that are reported."""
    return sorted({str(run.config["label"]) for run in reported(runs) if run.config["kind"] == "adapter"})


def score(run: Run) -> float:
    """Test score; a diverged run has none of its own and counts as chance."""
    result = run.result
    value = result["chance"] if result["status"] == "diverged" else result["test"].get(result["metric"])
    if value is None:
        raise TensorAdaptError(
            f"run {run.name} ({result['status']}) has no test {result['metric']}; expected a number in "
            f"{run.path / 'result.json'}: delete the folder {run.path} to run it again"
        )
    return float(value)


def versus(group: Sequence[Run], reference: Sequence[Run]) -> Interval | None:
    """Paired difference of the group to the reference over the seeds both ran; None if there is none."""
    other = {run.config["seed"]: run for run in reference}
    pairs = [(run, other[run.config["seed"]]) for run in group if run.config["seed"] in other]
    if not pairs:
        return None
    if (scores := paired_scores(pairs)) is not None:
        return paired_difference(*scores)
    return t_interval([score(a) - score(b) for a, b in pairs])


def paired_scores(pairs: Sequence[tuple[Run, Run]]) -> tuple[Floats, Floats] | None:
    """What each test example contributes to the scores of both runs of each pair, (seeds, n_test) of either side; None
    where a run stored no predictions. Runs of other test labels raise TensorAdaptError.
    """
    runs = [run for pair in pairs for run in pair]
    if runs[0].result["metric"] not in METRICS or not all(run.has("predictions") and run.has("labels") for run in runs):
        return None
    scores, labels = zip(*map(_answers, runs), strict=True)
    for run, own in zip(runs, labels, strict=True):
        if not np.array_equal(own, labels[0]):
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
    """TensorAdaptError unless the runs are complete and share model, task and metric."""
    _check_complete(runs)
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


def _check_complete(runs: Sequence[Run]) -> None:
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


def check_group(group: Sequence[Run], what: str) -> None:
    """TensorAdaptError unless the runs of one point, named ``what``, differ in the seed alone as far as one can see."""
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
