"""What stands beside a comparison with a reference: the floor, validation, and LoRA of as many parameters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tensoradapt.lab.analysis.statistics.intervals import t_interval

Row = dict[str, Any]


def floor_of(means: Sequence[Row]) -> float:
    """Return the mean score of the head on the frozen base in the rows of one task, of two the better; nan of none."""
    return max((float(row["mean"]) for row in means if row["kind"] == "head"), default=math.nan)


def gains(own: float, reference: float, floor: float, margin: float) -> dict[str, float]:
    """Return which share of the reference's gain over the floor a score keeps, and which the margin is.

    Both are nan without a floor, and where the reference does not gain on it.

    >>> {name: round(value, 3) for name, value in gains(0.84, 0.85, 0.80, 0.01).items()}
    {'floor': 0.8, 'share': 0.8, 'margin_share': 0.2}
    """
    gain = reference - floor
    shares = ((own - floor) / gain, margin / gain) if gain > 0 else (math.nan, math.nan)
    return {"floor": floor, "share": shares[0], "margin_share": shares[1]}


def shared_seeds(*rows: Row) -> list[int]:
    """Return the seeds that all rows have, in the order of the first; runs without a seed are no pair."""
    first, *others = (row["seeds"] for row in rows)
    return [seed for seed in first if seed is not None and all(seed in seeds for seeds in others)]


def on_validation(row: Row, other: Row) -> dict[str, float]:
    """Return the mean difference of validation scores over the seeds that two rows share, with its 95 % t interval."""
    mine, theirs = (dict(zip(one["seeds"], one["validations"], strict=True)) for one in (row, other))
    pairs = [(mine[seed], theirs[seed]) for seed in shared_seeds(row, other)]
    gaps = np.array([a - b for a, b in pairs if a is not None and b is not None])
    if not len(gaps) or not np.isfinite(gaps).all():
        return dict.fromkeys(("validation_difference", "validation_low", "validation_high"), math.nan)
    found = t_interval(gaps)
    return {"validation_difference": found.mean, "validation_low": found.low, "validation_high": found.high}


def control_of(row: Row, reference: Row, sizes: Sequence[Row]) -> Row | None:
    """Return that of the reference's ``sizes_of`` whose count is nearest to a row's.

    None for the reference's own sizes, and where the reference itself is nearest: then it is the control.
    """
    if _alike(row, reference) or not row["n_params"]:
        return None
    nearest = min(sizes, key=lambda one: abs(math.log(one["n_params"] / row["n_params"])), default=None)
    return None if nearest is reference else nearest


def sizes_of(reference: Row, adapters: Sequence[Row]) -> list[Row]:
    """Return the sizes of a reference's parameterization, on any matrices."""
    return [one for one in adapters if one["n_params"] and _alike(one, reference)]


def _alike(row: Row, reference: Row) -> bool:
    if row["parameterization"] is None or reference["parameterization"] is None:
        return bool(row["method"] == reference["method"])
    return bool(row["parameterization"] == reference["parameterization"])
