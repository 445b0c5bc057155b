"""Methods over several tasks in one number each, and frontiers as areas."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from tensoradapt.analysis.old_tables.comparable import by_task, chance, methods, perfect, reported, score
from tensoradapt.analysis.old_tables.contrasts import named_reference, reference_of
from tensoradapt.analysis.old_tables.curves import gain, point_size
from tensoradapt.analysis.old_tables.frontier import Point, points
from tensoradapt.analysis.statistics.bootstrap import improvement, iqm, stratified_bootstrap
from tensoradapt.analysis.statistics.intervals import Floats
from tensoradapt.analysis.statistics.significance import Ranking, ranking
from tensoradapt.errors import TensorAdaptError, missing_extra
from tensoradapt.runs.store import Run

Row = dict[str, Any]
Key = tuple[str, str]  # method, size
SEEDS = 3  # fewer give a bootstrap nothing to draw from


def summary_rows(runs: Iterable[Run], reference: str | None = None) -> list[Row]:
    """Return each method at each size over all tasks, of (score - chance) / (perfect - chance).

    Columns: method, size, tasks, seeds, iqm, low, high, better, better_low, better_high, reference, runs.

    ``iqm`` is the interquartile mean over tasks and seeds with its stratified bootstrap interval, ``better`` the
    probability that a run beats one of the reference's at the same size (None for the reference). A method that lacks a
    task, or has fewer than three seeds on one, has no row, and as reference is None; nothing has a row where there is
    one task. A reference that no run has raises TensorAdaptError.
    """
    every = list(runs)
    if reference is not None:
        reference = named_reference(reference, methods(every))
    behind = _compared(every)
    if not behind:
        return []
    gains = {key: _gains(table) for key, table in behind.items()}
    sizes = Counter(label for label, _ in gains)
    against = reference_of(sizes, reference) if reference is None or reference in sizes else None
    rows = []
    for (label, size), table in gains.items():
        other = gains.get((against, size)) if against and label != against else None
        middle = stratified_bootstrap(iqm, table)
        better = stratified_bootstrap(improvement, table, other) if other is not None else None
        between = (better.mean, better.low, better.high) if better else (None, None, None)
        rows.append(
            {"method": label, "size": size, "tasks": table.shape[0], "seeds": table.shape[1]}
            | {"iqm": middle.mean, "low": middle.low, "high": middle.high}
            | dict(zip(("better", "better_low", "better_high"), between, strict=True))
            | {"reference": against, "runs": " ".join(run.name for row in behind[label, size] for run in row)}
        )
    return rows


def _gains(runs: Sequence[Sequence[Run]]) -> Floats:
    """Return scores as shares of the way from chance to perfect, (tasks, seeds)."""
    return np.array([[_gain(run) for run in row] for row in runs])


def _gain(run: Run) -> float:
    return gain(score(run), chance(run), perfect(run))


def _compared(runs: Iterable[Run]) -> dict[Key, list[list[Run]]]:
    """Return the runs of each method and size by task and seed.

    Only those that ran on every one of two tasks or more, with at least three seeds on each: the seeds that they have
    everywhere.
    """
    every = reported(runs)
    tasks, by_name = by_task(every), {run.name: run for run in every}
    groups: dict[Key, list[Point]] = {}
    for of_task in tasks.values() if len(tasks) > 1 else ():
        for point in points(of_task, compare=False):
            groups.setdefault((point.method, point_size(point)), []).append(point)
    whole: dict[Key, list[list[Run]]] = {}
    for key, group in groups.items():
        seeds = sorted(set(group[0].seeds).intersection(*(point.seeds for point in group)))
        if len(group) == len(tasks) and len(seeds) >= SEEDS:
            whole[key] = [[by_name[point.run_of(seed)] for seed in seeds] for point in group]
    return whole


def task_ranking(runs: Iterable[Run]) -> Ranking | None:
    """Return the methods' ranks over tasks, by their means over sizes; None below five tasks or three methods.

    With many methods it takes more tasks than five to find a difference (``significance.least_p``).
    """
    gains: dict[str, list[Floats]] = {}
    for (label, _), table in _compared(runs).items():
        gains.setdefault(label, []).append(_gains(table).mean(1))
    if len(gains) < 3 or len(next(iter(gains.values()))[0]) < 5:
        return None
    return ranking({label: np.mean(table, axis=0) for label, table in gains.items()})


def ranking_rows(found: Ranking) -> list[Row]:
    """Return mean ranks as rows, with the cliques that each method is in, by number."""
    cliques = {name: [i for i, clique in enumerate(found.cliques) if name in clique] for name in found.ranks}
    return [
        {"method": name, "rank": rank, "cliques": " ".join(map(str, cliques[name])), "friedman_p": found.friedman_p}
        for name, rank in found.ranks.items()
    ]


def volume_rows(runs: Iterable[Run]) -> list[Row]:
    """Return the area that each method's own sizes dominate on each task, in decades of parameters times score.

    Columns: method, task, volume, reference_cost (twice the largest of the task), reference_score (chance), runs.
    Raises TensorAdaptError without moocore.
    """
    rows = []
    for task, of_task in by_task(reported(runs)).items():
        adapters, least = points(of_task, compare=False), chance(of_task[0])
        most = 2 * max((point.n_params for point in adapters), default=0)
        for label in sorted({point.method for point in adapters}):
            mine = [point for point in adapters if point.method == label]
            area = hypervolume([p.n_params for p in mine], [p.interval.mean for p in mine], (most, least))
            at = {"reference_cost": most, "reference_score": least}
            names = " ".join(name for point in mine for name in point.runs)
            rows.append({"method": label, "task": task, "volume": area, **at, "runs": names})
    return rows


def hypervolume(
    cost: ArrayLike,  # (points,)
    score: ArrayLike,  # (points,)
    reference: tuple[float, float],  # the largest cost and the least score that count
) -> float:
    """Return the area that a frontier dominates, in decades of cost times score, up to a reference point.

    The area is computed by moocore (Fonseca et al., CEC 2006).

    Points beyond the reference add nothing. Raises TensorAdaptError where moocore is not installed.

    >>> round(hypervolume([100, 1000], [0.6, 0.8], (10_000, 0.5)), 6)
    0.4
    """
    try:
        import moocore
    except ImportError:
        raise missing_extra("moocore", "stats", "the hypervolume of a frontier") from None
    size, value = np.asarray(cost, float), np.asarray(score, float)
    if size.shape != value.shape or size.ndim != 1 or not len(size) or size.min() <= 0 or reference[0] <= 0:
        raise TensorAdaptError(
            f"costs have shape {size.shape} and scores {value.shape}; expected points, costs above 0"
        )
    points = np.column_stack([np.log10(size), -value])
    return float(moocore.hypervolume(points, ref=np.array([np.log10(reference[0]), -reference[1]])))
