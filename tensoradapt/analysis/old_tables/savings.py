"""Savings: how few parameters a method needs to score as the reference does, up to a margin that is given up."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from tensoradapt.analysis.old_tables.comparable import versus
from tensoradapt.analysis.old_tables.contrasts import reference_of
from tensoradapt.analysis.old_tables.frames import as_runs
from tensoradapt.analysis.old_tables.frontier import Point, points
from tensoradapt.checks import is_number, items, shown
from tensoradapt.errors import TensorAdaptError
from tensoradapt.runs.store import Run
from tensoradapt.text import size_text

MARGINS = (0.01, 0.02)
LORA_RANK = 8


def savings(runs: Iterable[Run] | Any, margins: Sequence[float] = MARGINS) -> list[dict[str, Any]]:
    """Return for each method and margin the smallest size that is not worse than LoRA r=8 by more than the margin.

    A size is within a margin if the lower limit of its paired difference (95 %, over seeds and test examples) is above
    minus the margin: a test of non-inferiority (Piaggio et al., JAMA 308, 2012). Of LoRA with other ranks its rank 8 is
    the reference, else its largest size; without LoRA the largest size of the method with the most sizes.
    Measured in docs/figures/README.md.

    Args:
        runs: from ``load_runs``, or a DataFrame (``ta.results``), of one task.
        margins: in the unit of the score, each above 0.

    Returns:
        Rows with method, margin, size, n_params, ``times_fewer`` than the reference, difference, low, high and the
        number of seeds. Where no size is within the margin, that with the highest lower limit, and ``within`` False.

    Raises:
        TensorAdaptError: for runs that do not compare, and margins that are not above 0.
    """
    margins, every = items(_margin, margins, "margins"), as_runs(runs)
    by_name, sizes = {run.name: run for run in every}, points(every, compare=False)
    if not sizes:
        return []
    reference = _reference(sizes)
    others: dict[str, list[Point]] = {}
    for point in sizes:
        if point is not reference:
            others.setdefault(point.method, []).append(point)
    of = {id(point): [by_name[name] for name in point.runs] for point in sizes}
    compared = {
        method: [(point, versus(of[id(point)], of[id(reference)])) for point in own] for method, own in others.items()
    }
    return [
        row
        for method in sorted(compared)
        for margin in margins
        for row in _smallest(compared[method], reference, margin)
    ]


def _margin(value: Any, where: str) -> Any:
    if not is_number(value, above=0):
        raise TensorAdaptError(f"{where} is {shown(value)}; expected a difference in score above 0, such as 0.01")
    return value


def _reference(sizes: Sequence[Point]) -> Point:
    counts = {point.method: sum(other.method == point.method for other in sizes) for point in sizes}
    own = [point for point in sizes if point.method == reference_of(counts)]
    return next((point for point in own if point.rank == LORA_RANK), own[-1])


def _smallest(compared: Sequence[tuple[Point, Any]], reference: Point, margin: float) -> list[dict[str, Any]]:
    known = [(point, gap) for point, gap in compared if gap is not None]
    if not known:
        return []
    inside = [(point, gap) for point, gap in known if gap.low > -margin]
    point, gap = inside[0] if inside else max(known, key=lambda pair: (pair[1].low == pair[1].low, pair[1].low))
    return [
        {
            "method": point.method,
            "margin": margin,
            "within": bool(inside),
            "size": size_text(point.rank, point.budget, short=True),
            "n_params": point.n_params,
            "times_fewer": reference.n_params / point.n_params if point.n_params else None,
            "reference": f"{reference.method} {size_text(reference.rank, reference.budget, short=True)}",
            "difference": gap.mean,
            "low": gap.low,
            "high": gap.high,
            "n_seeds": gap.n,
        }
    ]
