"""Runs to points, points to the frontier of score against trainable parameters, and the table behind the plot."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tensoradapt.analysis.statistics import (
    Floats,
    Interval,
    non_dominated,
    on_frontier_probability,
    paired_difference,
    t_interval,
)
from tensoradapt.errors import TensorAdaptError
from tensoradapt.sweep.store import Run, replace_file

Rank = int | Mapping[str, int] | None
REFERENCES = ("head", "full")
COLUMNS = (
    *("label", "parameterization", "layout", "rank", "n_params", "metric", "mean", "low", "high", "sd", "n_seeds"),
    *("n_collapsed", "n_diverged", "lr", "diff_head", "diff_head_low", "diff_head_high"),
    *("diff_full", "diff_full_low", "diff_full_high", "above_head", "p_frontier", "on_frontier"),
)


@dataclass(frozen=True)
class Point:
    """One configuration over its seeds.

    ``interval`` is of the test score; ``vs_head`` and ``vs_full`` of the paired difference to the references, None
    where no seed is shared. ``p_frontier`` is NaN for one seed.
    """

    label: str
    parameterization: str | None
    layout: str | None
    rank: Rank
    n_params: int
    metric: str
    interval: Interval
    n_collapsed: int
    n_diverged: int
    seeds: tuple[int, ...]
    lr: float | None
    vs_head: Interval | None = None
    vs_full: Interval | None = None
    p_frontier: float = math.nan
    on_frontier: bool = False


def points(runs: Iterable[Run]) -> list[Point]:
    """The adapter runs as points, one per (label, layout, rank, n_params), fewest parameters first.

    Collapsed runs are results and stay in the mean; diverged runs count as chance; both are counted. Runs of two
    tasks, models or metrics, two runs of one seed and two learning rates in one point raise TensorAdaptError.
    """
    every = list(runs)
    _check_comparable(every)
    against = {kind: _of_kind(every, kind) for kind in REFERENCES}
    groups: dict[tuple[Any, ...], list[Run]] = {}
    for run in _of_kind(every, "adapter"):
        groups.setdefault(_key(run), []).append(run)
    found = sorted((_point(group, against) for group in groups.values()), key=_order)
    return _with_frontier(found)


def frontier(runs: Iterable[Run]) -> list[Point]:
    """The non-dominated points, fewest parameters first: no other has as good a mean score with as few parameters."""
    return [point for point in points(runs) if point.on_frontier]


def references(runs: Iterable[Run]) -> dict[str, Interval]:
    """Test score of the references that were run: "head" (no adapter) and "full" (full fine-tuning)."""
    return {kind: point.interval for kind, point in _reference_points(list(runs)).items()}


def table(runs: Iterable[Run]) -> list[dict[str, Any]]:
    """One row per point, then one per reference; keys are ``COLUMNS``, numbers have 6 significant digits.

    ``above_head`` is True if the lower limit of the difference to the head alone is above 0. None where a number
    does not exist: no reference, or no interval from one seed.
    """
    every = list(runs)
    return [_row(point) for point in (*points(every), *_reference_points(every).values())]


def write_csv(runs: Iterable[Run], path: Path) -> Path:
    """Write ``table(runs)`` to ``path``, whole or not at all, the same runs as the same bytes; returns ``path``."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(table(runs))
    return replace_file(Path(path), text.getvalue().encode())


def rank_text(rank: Rank) -> str:
    """A rank in the space of a label.

    >>> rank_text(8), rank_text({"head": 2, "dim": 16}), rank_text(None)
    ('r=8', 'r≤16', '')
    """
    if isinstance(rank, Mapping):
        largest = max(rank.values(), default=0)
        return f"r{'=' if set(rank.values()) == {largest} else '≤'}{largest}"
    return "" if rank is None else f"r={rank}"


def _reference_points(runs: Sequence[Run]) -> dict[str, Point]:
    _check_comparable(runs)
    against = {kind: _of_kind(runs, kind) for kind in REFERENCES}
    return {kind: _point(group, against, kind) for kind, group in against.items() if group}


def _of_kind(runs: Sequence[Run], kind: str) -> list[Run]:
    return sorted((run for run in runs if run.config["kind"] == kind), key=lambda run: run.config["seed"])


def _key(run: Run) -> tuple[Any, ...]:
    config = run.config
    return config["label"], config.get("layout"), json.dumps(config.get("rank"), sort_keys=True), run.result["n_params"]


def _order(point: Point) -> tuple[Any, ...]:
    return point.n_params, point.label, str(point.layout), json.dumps(point.rank, sort_keys=True)


def _point(group: list[Run], against: Mapping[str, list[Run]], kind: str | None = None) -> Point:
    group = sorted(group, key=lambda run: run.config["seed"])
    first = group[0]
    _check_group(group)
    statuses = [run.result["status"] for run in group]
    versus = {other: None if other == kind else _versus(group, runs) for other, runs in against.items()}
    return Point(
        label=first.config["label"],
        parameterization=first.config.get("parameterization"),
        layout=first.config.get("layout"),
        rank=first.config.get("rank"),
        n_params=first.result["n_params"],
        metric=first.result["metric"],
        interval=t_interval([_score(run) for run in group]),
        n_collapsed=statuses.count("collapsed"),
        n_diverged=statuses.count("diverged"),
        seeds=tuple(run.config["seed"] for run in group),
        lr=first.config.get("lr"),
        vs_head=versus["head"],
        vs_full=versus["full"],
    )


def _with_frontier(found: list[Point]) -> list[Point]:
    if not found:
        return []
    sizes = [point.n_params for point in found]
    means = [point.interval.mean for point in found]
    chances = on_frontier_probability(
        sizes, means, [point.interval.sd for point in found], [point.interval.n for point in found]
    )
    mask = non_dominated(sizes, means)
    return [
        replace(point, p_frontier=float(p), on_frontier=bool(on))
        for point, p, on in zip(found, chances, mask, strict=True)
    ]


def _score(run: Run) -> float:
    """Test score; a diverged run has none of its own and counts as chance."""
    result = run.result
    value = result["chance"] if result["status"] == "diverged" else result["test"].get(result["metric"])
    if value is None:
        raise TensorAdaptError(
            f"run {run.name} has no test {result['metric']}; expected a number in {run.path / 'result.json'}: "
            f"delete the folder {run.path} to run it again"
        )
    return float(value)


def _versus(group: Sequence[Run], reference: Sequence[Run]) -> Interval | None:
    """Paired difference of the group to the reference over the seeds both ran; None if there is none."""
    other = {run.config["seed"]: run for run in reference}
    pairs = [(run, other[run.config["seed"]]) for run in group if run.config["seed"] in other]
    if not pairs:
        return None
    if _has_examples([run for pair in pairs for run in pair]):
        scores = [[_correct(run) for run in side] for side in zip(*pairs, strict=True)]
        return paired_difference(np.array(scores[0]), np.array(scores[1]))
    return t_interval([_score(a) - _score(b) for a, b in pairs])


def _has_examples(runs: Sequence[Run]) -> bool:
    """True if the score is a mean over test examples that every run stored; then the labels must be the same."""
    if runs[0].result["metric"] != "accuracy" or not all(run.has("predictions") and run.has("labels") for run in runs):
        return False
    labels = runs[0].labels()
    for run in runs[1:]:
        if not np.array_equal(run.labels(), labels):
            raise TensorAdaptError(
                f"runs {runs[0].name} and {run.name} have different test labels; expected one test set: "
                "analyse runs of different data apart"
            )
    return True


def _correct(run: Run) -> Floats:
    """Score of each test example, (n_test,): 1 if right, 0 if wrong, chance throughout for a diverged run."""
    labels = run.labels()
    if run.result["status"] == "diverged":
        return np.full(len(labels), float(run.result["chance"]))
    predictions = run.predictions()
    if predictions.ndim != 2 or len(predictions) != len(labels):
        raise TensorAdaptError(
            f"run {run.name} has predictions of shape {predictions.shape} for {len(labels)} labels; expected "
            f"(n_test, n_labels): delete the folder {run.path} to run it again"
        )
    return (predictions.argmax(1) == labels).astype(float)


def _check_comparable(runs: Sequence[Run]) -> None:
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


def _check_group(group: Sequence[Run]) -> None:
    seeds = [run.config["seed"] for run in group]
    rates = sorted({run.config.get("lr") for run in group}, key=str)
    twice = [run.name for run in group if seeds.count(run.config["seed"]) > 1]
    what = f"{group[0].config['label']} {rank_text(group[0].config.get('rank'))}".strip()
    if len(rates) > 1:
        raise TensorAdaptError(
            f"{what} has runs with learning rates {', '.join(map(str, rates))}; expected one, chosen on validation: "
            "select the runs of that rate first"
        )
    if twice:
        raise TensorAdaptError(
            f"{what} has several runs of one seed: {', '.join(twice)}; expected one run per seed: "
            "select the runs that share all other settings first"
        )


def _row(point: Point) -> dict[str, Any]:
    interval, head, full = point.interval, point.vs_head, point.vs_full
    values = (
        *(point.label, point.parameterization, point.layout, _rank_cell(point.rank), point.n_params, point.metric),
        *(interval.mean, interval.low, interval.high, interval.sd, interval.n),
        *(point.n_collapsed, point.n_diverged, point.lr),
        *((head.mean, head.low, head.high) if head else (None, None, None)),
        *((full.mean, full.low, full.high) if full else (None, None, None)),
        head.low > 0 if head and math.isfinite(head.low) else None,
        *(point.p_frontier, point.on_frontier),
    )
    return dict(zip(COLUMNS, map(_cell, values), strict=True))


def _cell(value: Any) -> Any:
    """Six significant digits; None for NaN, which tables cannot sort."""
    if not isinstance(value, float):
        return value
    return float(f"{value:.6g}") if math.isfinite(value) else None


def _rank_cell(rank: Rank) -> int | str | None:
    return " ".join(f"{name}={size}" for name, size in rank.items()) if isinstance(rank, Mapping) else rank
