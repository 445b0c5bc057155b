"""Methods at an equal budget, and a frontier in one number."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from tensoradapt.analysis.statistics.intervals import Floats, Interval, t_interval
from tensoradapt.errors import TensorAdaptError, missing_extra


def at_budget(
    cost: ArrayLike,  # (sizes,), such as trainable parameters
    scores: ArrayLike,  # (sizes, seeds)
    budget: float,
    confidence: float = 0.95,
) -> Interval:
    """One method's score at a budget between its own sizes: Student's t interval over seeds of what ``interpolated``
    gives.

    >>> at_budget([100, 10_000], [[0.6], [0.8]], 1000).mean.__round__(6)
    0.7
    """
    return t_interval(interpolated(cost, scores, budget), confidence)


def interpolated(
    cost: ArrayLike,  # (sizes,)
    scores: ArrayLike,  # (sizes, seeds)
    budget: float,
) -> Floats:
    """Each seed's score at a budget, (seeds,), linear in log cost between the sizes.

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
    return np.array([np.interp(np.log(budget), np.log(size[order]), one) for one in data[order].T])


def hypervolume(
    cost: ArrayLike,  # (points,)
    score: ArrayLike,  # (points,)
    reference: tuple[float, float],  # the largest cost and the least score that count
) -> float:
    """The area that a frontier dominates, in decades of cost times score, up to a reference point; by moocore
    (Fonseca et al., CEC 2006).

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
