"""Compare each method with a reference method at equal numbers of parameters: paired, corrected, never extrapolated."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from tensoradapt.analysis.old_tables.comparable import paired_scores, score, versus
from tensoradapt.analysis.old_tables.frontier import Point, points
from tensoradapt.analysis.statistics.bootstrap import two_way_bootstrap
from tensoradapt.analysis.statistics.intervals import Floats, crossed_p, paired_difference, t_interval
from tensoradapt.analysis.statistics.significance import (
    Comparison,
    crossed_paired_p,
    holm,
    mcnemar,
    paired_p,
    seeds_needed,
)
from tensoradapt.errors import TensorAdaptError, did_you_mean
from tensoradapt.parameterizations import spelling
from tensoradapt.runs.store import Run
from tensoradapt.text import size_text


def contrasts(runs: Iterable[Run], reference: str | None = None) -> list[Comparison]:
    """Compare every method with ``reference`` (default: "lora", else the method with the most sizes), on one task.

    Where both ran at a budget, their runs at it are paired over seeds and, from stored predictions, over test examples
    (``paired_difference``, beside it the two-way bootstrap, p from ``crossed_paired_p``; of one seed McNemar's test).
    Else the method's scores are interpolated at each of the reference's sizes within its own and paired over seeds;
    not where that takes two sizes with one number of parameters, as neither is the method's score there. p values are
    corrected together (Holm), and ``seeds_needed`` says how many seeds the same difference would take. No
    comparison: an empty list. An unknown reference raises TensorAdaptError.
    """
    every = list(runs)
    methods: dict[str, list[Point]] = {}
    for point in points(every, compare=False):
        methods.setdefault(point.method, []).append(point)
    if len(methods) < 2:
        return []
    chosen = reference_of({name: len(sizes) for name, sizes in methods.items()}, reference)
    by_name, others = {run.name: run for run in every}, sorted(set(methods) - {chosen})
    every_pair = [pair for name in others for pair in _contrasts(methods[name], methods[chosen], by_name)]
    tested = [pair for pair in every_pair if math.isfinite(pair.p)]
    adjusted = holm([pair.p for pair in tested])
    return [
        replace(pair, adjusted=float(p), seeds_needed=seeds_needed(pair.difference, len(tested)))
        for pair, p in zip(tested, adjusted, strict=True)
    ]


def decided_best(found: Sequence[Point], by_name: Mapping[str, Run], level: float = 0.05) -> Point | None:
    """Return the point with the best mean, if it is better than each of the others.

    The difference of their runs, paired over the seeds that both have and, from stored predictions, over test examples,
    has to hold after Holm's correction. None else, and where there is one point, or two have no seed in common.
    ``by_name``: the runs of all points.
    """
    if len(found) < 2:
        return None
    best, *others = sorted(found, key=lambda point: -point.interval.mean)
    p = [_paired_p(best, other, by_name) for other in others]
    held = best.interval.mean > others[0].interval.mean and all(map(math.isfinite, p))
    return best if held and max(holm(p)) < level else None


def _paired_p(own: Point, other: Point, by_name: Mapping[str, Run]) -> float:
    pairs = [(by_name[own.run_of(seed)], by_name[other.run_of(seed)]) for seed in own.seeds if seed in other.seeds]
    scores = paired_scores(pairs) if pairs else None
    if len(pairs) > 1:
        return crossed_paired_p(*scores) if scores else paired_p(np.array([score(a) - score(b) for a, b in pairs]))
    if not scores:
        return math.nan
    exact = all(set(np.unique(side)) <= {0.0, 1.0} for side in scores)
    return mcnemar(scores[0][0], scores[1][0]) if exact else crossed_p(*scores)


def reference_of(sizes: Mapping[str, int], wanted: str | None = None) -> str:
    """Return the method that others are compared with: ``wanted``, else LoRA, else the method with the most sizes."""
    if wanted is not None:
        return named_reference(wanted, sizes)
    usual = [label for label in sizes if label.lower() == "lora"]
    return usual[0] if usual else min(sizes, key=lambda label: (-sizes[label], label))


def named_reference(wanted: str, labels: Iterable[str]) -> str:
    """Return the label that ``wanted`` is or spells in another way. Raises TensorAdaptError for an unknown method."""
    names = list(labels)
    alike = [name for name in names if spelling(name) == spelling(wanted)]
    if wanted not in names and len(alike) != 1:
        raise TensorAdaptError(f"reference is {wanted!r}{did_you_mean(wanted, names)}")
    return wanted if wanted in names else alike[0]


def _contrasts(method: Sequence[Point], reference: Sequence[Point], by_name: dict[str, Run]) -> Iterator[Comparison]:
    by_budget, other = ({point.budget: point for point in side if point.budget} for side in (method, reference))
    if shared := sorted(set(by_budget) & set(other)):
        for budget in shared:
            yield from _at_budget(by_budget[budget], other[budget], by_name)
        return
    alone = Counter(point.n_params for point in reference)
    for point in reference:
        if alone[point.n_params] == 1:
            yield from _between(_beside(method, point.n_params), point, by_name)


def _at_budget(own: Point, other: Point, by_name: dict[str, Run]) -> Iterator[Comparison]:
    seeds = [seed for seed in own.seeds if seed in other.seeds]
    pairs = [(by_name[own.run_of(seed)], by_name[other.run_of(seed)]) for seed in seeds]
    if not pairs:
        return
    names = tuple(run.name for pair in pairs for run in pair)
    apart = np.array([score(a) - score(b) for a, b in pairs])
    comparison = Comparison(own.method, other.method, t_interval(apart), math.nan, math.nan, own.budget, runs=names)
    scores = paired_scores(pairs)
    if scores is None:
        yield replace(comparison, p=paired_p(apart) if len(pairs) > 1 else math.nan)
    elif len(pairs) == 1:
        exact = all(set(np.unique(side)) <= {0.0, 1.0} for side in scores)
        p = mcnemar(scores[0][0], scores[1][0]) if exact else crossed_p(*scores)
        yield replace(comparison, difference=paired_difference(*scores), p=p, over="test examples of one seed")
    else:
        drawn = two_way_bootstrap(*scores) if len(pairs) > 2 else None
        difference, p = paired_difference(*scores), crossed_paired_p(*scores)
        yield replace(comparison, difference=difference, p=p, over="seeds and test examples", drawn=drawn)


def _beside(method: Sequence[Point], n_params: int) -> list[Point]:
    """Return the sizes next to a number of parameters, or that of as many; none where there is no one such size."""
    sizes = [point.n_params for point in method]
    if not min(sizes) <= n_params <= max(sizes):
        return []
    ends = max(size for size in sizes if size <= n_params), min(size for size in sizes if size >= n_params)
    nearest = [point for point in method if point.n_params in ends]
    return nearest if len(nearest) == len(set(ends)) else []


def _between(method: Sequence[Point], other: Point, by_name: dict[str, Run]) -> Iterator[Comparison]:
    """Yield the comparison at a size of the reference, over seeds that the method's nearest sizes share with it."""
    seeds = sorted(set(other.seeds).intersection(*(point.seeds for point in method)))
    if not method or len(seeds) < 2:
        return
    *scores, reached = [[score(by_name[point.run_of(seed)]) for seed in seeds] for point in (*method, other)]
    mine = interpolated([point.n_params for point in method], scores, other.n_params)
    apart = mine - reached
    names = (*(name for point in method for name in point.runs), *other.runs)
    yield Comparison(
        method[0].method, other.method, t_interval(apart), paired_p(apart), math.nan, other.n_params, runs=names
    )


def layout_rows(runs: Iterable[Run], reference: str | None = None) -> list[dict[str, Any]]:
    """Return each parameterization over each layout and size: mean score, and paired difference to ``reference`` there.

    Rows are in the order of their parameters. The reference, as in ``contrasts``, is compared at its own size of the
    same budget or rank; the difference is None where it has none, and of itself. Empty unless there are several
    layouts. An unknown reference raises TensorAdaptError.
    """
    every = list(runs)
    known = [point for point in points(every, compare=False) if point.parameterization and point.layout]
    if len({point.layout for point in known}) < 2:
        return []
    by_name, counts = {run.name: run for run in every}, Counter(point.method for point in known)
    chosen = reference_of(counts, reference)
    other = {_asked(point): point for point in known if point.method == chosen}
    return [_layout_row(point, other.get(_asked(point)), by_name) for point in known]


def _asked(point: Point) -> str:
    """Return the size that a point was asked for, as text."""
    return size_text(point.rank, None) if point.budget is None else size_text(None, point.budget)


def _layout_row(point: Point, other: Point | None, by_name: Mapping[str, Run]) -> dict[str, Any]:
    own = [by_name[name] for name in point.runs]
    gap = None if other is None or other is point else versus(own, [by_name[name] for name in other.runs])
    row = {key: getattr(point, key) for key in ("method", "parameterization", "layout", "n_params")}
    row |= {"size": _asked(point), "mean": point.interval.mean, "n_seeds": point.interval.n}
    row |= {"reference": other is point, "n_at_chance": point.n_at_chance + point.n_diverged}
    ends = ("mean", "low", "high")
    return row | {f"difference_{end}".removesuffix("_mean"): gap and getattr(gap, end) for end in ends}


def contrast_row(one: Comparison) -> dict[str, Any]:
    """Return a comparison as a row of plain values."""
    drawn = {"drawn_low": one.drawn.low, "drawn_high": one.drawn.high} if one.drawn else {}
    row = {key: value for key, value in asdict(one).items() if key not in ("difference", "drawn", "runs")}
    return {**row, **asdict(one.difference), **drawn, "runs": " ".join(one.runs)}


def interpolated(
    cost: ArrayLike,  # (sizes,)
    scores: ArrayLike,  # (sizes, seeds)
    budget: float,
) -> Floats:
    """Return each seed's score at a budget, (seeds,), linear in log cost between the sizes.

    Nothing is extrapolated: a budget outside the sizes raises TensorAdaptError with their range.
    """
    size, data = np.asarray(cost, float), np.asarray(scores, float)
    if size.ndim != 1 or data.ndim != 2 or len(data) != len(size) or len(size) == 0 or size.min() <= 0:
        raise TensorAdaptError(
            f"costs have shape {size.shape} and scores {data.shape}; expected (sizes,) above 0 and (sizes, seeds)"
        )
    if len(np.unique(size)) < len(size):
        raise TensorAdaptError("two sizes have one cost; give the scores of one of them")
    if not size.min() <= budget <= size.max():
        raise TensorAdaptError(
            f"budget {budget:g} is outside the sizes that were run, {size.min():g} to {size.max():g}; nothing is "
            "extrapolated"
        )
    order = np.argsort(size)
    return np.array([np.interp(np.log(budget), np.log(size[order]), seed_scores) for seed_scores in data[order].T])
