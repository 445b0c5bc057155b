"""What the runs of a sweep say, in words: who is on the frontier, which differences are decided and which are not."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence

from tensoradapt.analysis.names import display
from tensoradapt.analysis.old_tables.comparable import by_task, methods
from tensoradapt.analysis.old_tables.contrasts import contrasts
from tensoradapt.analysis.old_tables.frontier import Point, points
from tensoradapt.analysis.statistics.significance import Comparison
from tensoradapt.runs.store import Run
from tensoradapt.text import size_text

LEVEL = 0.05  # the level that Holm's adjusted p is compared with
LISTED = 12


def findings(runs: Sequence[Run], reference: str | None = None) -> list[str]:
    """Return a paragraph for each task with adapters; runs that only chose a rate are left out.

    ``reference``: what others are compared with, in tasks that have it; None means LoRA.
    """
    paragraphs = {task: " ".join(_sentences(of_task, reference)) for task, of_task in by_task(runs).items()}
    return [f"{task}: {said}" for task, said in paragraphs.items() if said]


def _sentences(runs: Sequence[Run], reference: str | None) -> Iterator[str]:
    if not (found := points(runs, compare=False)):
        return
    compared = contrasts(runs, reference) if reference is None or reference in methods(runs) else []
    best = max(found, key=lambda point: point.interval.mean)
    metric = best.metric.replace("_", " ")
    yield f"on the frontier of test {metric} against parameters are {_listed(map(_named, filter(_on, found)))}."
    yield f"The highest mean is {best.interval.mean:.3f}, of {_named(best)}{_width(best)}."
    if lost := [point for point in found if point.all_lost]:
        yield f"All runs ended at chance of {_listed(map(_named, lost))}."
    if compared:
        yield from _decided(compared)


def _on(point: Point) -> bool:
    return point.on_frontier


def _named(point: Point) -> str:
    return f"{display(point.method)} {size_text(point.rank, point.budget)}".strip() + f" ({point.n_params:,})"


def _width(point: Point) -> str:
    low, high = point.interval.low, point.interval.high
    return f" (95 % interval {low:.3f} to {high:.3f})" if low < high else " (one seed)"


def _decided(compared: Sequence[Comparison]) -> Iterator[str]:
    held = [one for one in compared if one.adjusted < LEVEL]
    better, worse = ([one for one in held if (one.difference.mean > 0) is side] for side in (True, False))
    against = display(compared[0].second)
    yield f"Of {len(compared)} differences to {against}, {len(held)} are decided after Holm's correction."
    for how, those in (("Better", better), ("Worse", worse)):
        if those:
            yield f"{how}: {_listed(map(_at, those))}."
    needed = [one.seeds_needed for one in compared if one.adjusted >= LEVEL and one.seeds_needed is not None]
    if needed:
        n = round(statistics.median(needed))
        yield f"With {n} seeds, half of the others would be decided if they stay as they are."


def _at(one: Comparison) -> str:
    at = f" at {one.budget:,.0f}" if one.budget is not None else ""
    return f"{display(one.first)}{at} ({one.difference.mean:+.3f})"


def _listed(texts: Iterator[str]) -> str:
    every = list(texts)
    more = f" and {len(every) - LISTED} more" if len(every) > LISTED else ""
    return ", ".join(every[:LISTED]) + more
