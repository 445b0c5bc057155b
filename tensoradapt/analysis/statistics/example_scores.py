"""A metric shared out over the test examples, so that differences can be paired over them.

Accuracy is a mean over examples. The others are not, but to first order each is: a score plus its influence function
at an example is what the example contributes, and the mean of that over the examples is the score itself, exactly.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from tensoradapt.analysis.statistics.intervals import Floats
from tensoradapt.errors import TensorAdaptError, did_you_mean


def example_scores(
    metric: str,
    predictions: ArrayLike,  # (n, n_labels) logits, or (n,) or (n, 1) of a regression
    labels: ArrayLike,  # (n,)
) -> Floats:
    """What each test example contributes to a metric, (n,): its mean is the metric, the variance of its mean that of
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
    return METRICS[metric](given if flat else given.argmax(1), truth)


def _accuracy(predicted: Floats, labels: Floats) -> Floats:
    return (predicted == labels).astype(float)


def _f1(predicted: Floats, labels: Floats) -> Floats:
    """A ratio of means: 2 TP over what is predicted or labelled positive, each counted where it is."""
    top, bottom = 2.0 * ((predicted == 1) & (labels == 1)), 1.0 * (predicted == 1) + (labels == 1)
    if not top.any():
        return np.zeros(len(labels))
    found = top.mean() / bottom.mean()
    return found + (top - found * bottom) / bottom.mean()


def _pearson(x: Floats, y: Floats) -> Floats:
    """r + z_x z_y - r (z_x^2 + z_y^2) / 2, of standardised values z."""
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return np.zeros(len(x))
    a, b = ((v - v.mean()) / v.std() for v in (x, y))
    found = (a * b).mean()
    return a * b - found * (a**2 + b**2) / 2 + found


def _spearman(x: Floats, y: Floats) -> Floats:
    """Pearson's of the ranks f and g, and what an example does to the ranks of those above it."""
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return np.zeros(len(x))
    f, g = (1 - _above(v, np.ones(len(v))) for v in (x, y))  # mid-ranks as shares
    found, spread = np.corrcoef(f, g)[0, 1], np.sqrt(f.var() * g.var())
    joint = f * g + _above(x, g) + _above(y, f)
    squares = [(v**2 + 2 * _above(values, v)) / v.var() for values, v in ((x, f), (y, g))]
    both = squares[0] + squares[1]
    return found + (joint - joint.mean()) / spread - found * (both - both.mean()) / 2


def _above(values: Floats, of: Floats) -> Floats:
    """For each example the mean of ``of`` over all, those counted whose value is above its own, and ties by half."""
    levels, at = np.unique(values, return_inverse=True)
    own = np.bincount(at, of, len(levels))
    return (own.sum() - own.cumsum() + own / 2)[at] / len(values)


METRICS: dict[str, Callable[[Floats, Floats], Floats]] = {
    "accuracy": _accuracy,
    "f1": _f1,
    "matthews": _pearson,  # Matthews' coefficient is Pearson's of two binary variables
    "pearson": _pearson,
    "spearman": _spearman,
}
