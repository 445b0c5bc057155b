"""Metrics by name: of classes, of numbers and of two classes by their margin.

Their examples are influence functions (Hampel, Journal of the American Statistical Association 1974; of Spearman's
correlation Croux and Dehon, Statistical Methods and Applications 2010, here with ties; of the area under the ROC curve
DeLong, DeLong and Clarke-Pearson, Biometrics 1988).
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tensoradapt.errors import TensorAdaptError
from tensoradapt.lab.metrics.metric import Metric, always, averaged, of_correlation, of_share, ratio

Floats = NDArray[np.float64]


def checked(stored: np.ndarray, split: Any) -> tuple[Floats, np.ndarray]:
    """Scores in double precision, (n, n_labels) of classes or (n,) of numbers, and the labels, (n,).

    Raises TensorAdaptError for other shapes, no examples, and scores that are not finite.
    """
    scores, labels = np.asarray(stored, dtype=np.float64), np.asarray(split.labels)
    if scores.ndim == 2 and scores.shape[1] == 1:
        scores = scores[:, 0]
    if scores.ndim not in (1, 2) or labels.ndim != 1 or len(scores) != len(labels) or not len(labels):
        raise TensorAdaptError(
            f"scores of shape {scores.shape} for labels of shape {labels.shape}; expected (n, n_labels) of classes or "
            "(n,) of numbers, for n labels: pass one row of scores per example"
        )
    if bad := int((~np.isfinite(scores)).sum()):
        raise TensorAdaptError(
            f"{bad} of {scores.size} scores are not finite; expected none: training has diverged; lower the learning "
            "rate"
        )
    return scores, labels


def _classes(stored: np.ndarray, split: Any, n_labels: int | None = None) -> tuple[Floats, np.ndarray]:
    """Return the class that each example is given, as a float, and the labels, (n,) each."""
    scores, labels = checked(stored, split)
    if scores.ndim != 2:
        raise TensorAdaptError(f"it is of classes, and scores have shape {scores.shape}; expected (n, n_labels)")
    if n_labels not in (None, scores.shape[1]):
        raise TensorAdaptError(
            f"it is for {n_labels} classes, and there are {scores.shape[1]}; expected accuracy, or f1_macro or "
            "matthews_corrcoef of scikit-learn"
        )
    return scores.argmax(1).astype(float), labels


def _two(stored: np.ndarray, split: Any) -> tuple[Floats, np.ndarray]:
    """Return what ``_classes`` returns where there are two classes; class 1 is the positive one."""
    return _classes(stored, split, 2)


def _numbers(stored: np.ndarray, split: Any) -> tuple[Floats, np.ndarray]:
    """Return the number that each example is given, and the labels, (n,) each."""
    scores, labels = checked(stored, split)
    if scores.ndim != 1:
        raise TensorAdaptError(f"it is of numbers, and scores have shape {scores.shape}; expected (n,) or (n, 1)")
    return scores, labels


def _right(stored: np.ndarray, split: Any) -> Floats:
    predicted, labels = _classes(stored, split)
    return (predicted == labels).astype(float)


def _matthews(stored: np.ndarray, split: Any) -> float:
    predicted, labels = _two(stored, split)
    pairs = [(1, 1), (1, 0), (0, 1), (0, 0)]  # true and false positives, false and true negatives
    tp, fp, fn, tn = (float(((predicted == p) & (labels == q)).sum()) for p, q in pairs)
    product = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
    return (tp * tn - fp * fn) / product**0.5 if product else 0.0


def _f1_examples(stored: np.ndarray, split: Any) -> Floats:
    """F1 is a ratio of means: 2 TP over predicted positives plus labelled positives."""
    predicted, labels = _two(stored, split)
    top, bottom = 2.0 * ((predicted == 1) & (labels == 1)), 1.0 * (predicted == 1) + (labels == 1)
    return ratio(top, bottom) if top.any() else np.zeros(len(labels))


def _correlation(kind: str, stored: np.ndarray, split: Any) -> float:
    """Compute a correlation by scipy's name; 0 where one side is constant or nearly so, as nothing goes together."""
    from scipy import stats

    scores, labels = _numbers(stored, split)
    if len(scores) < 2 or np.ptp(scores) == 0 or np.ptp(labels) == 0:
        return 0.0
    with warnings.catch_warnings():
        # nearly constant predictions: scipy warns and may give nan, which counts as no correlation
        warnings.simplefilter("ignore")
        value = float(getattr(stats, kind)(scores, labels).statistic)
    return value if np.isfinite(value) else 0.0


def _pearson_examples(x: Floats, y: np.ndarray) -> Floats:
    """Return the examples of Pearson's r: r + z_x z_y - r (z_x^2 + z_y^2) / 2, with standardised values z."""
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return np.zeros(len(x))
    a, b = ((v - v.mean()) / v.std() for v in (x, y))
    r = (a * b).mean()
    found: Floats = a * b - r * (a**2 + b**2) / 2 + r
    return found


def _spearman_examples(x: Floats, y: np.ndarray) -> Floats:
    """Return the examples of Spearman's r: Pearson's of the ranks f and g, plus an example's effect on other ranks."""
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return np.zeros(len(x))
    f, g = (1 - _above(v, np.ones(len(v))) for v in (x, y))  # mid-ranks as shares
    correlation, spread = np.corrcoef(f, g)[0, 1], np.sqrt(f.var() * g.var())
    joint = f * g + _above(x, g) + _above(y, f)
    squares = [(v**2 + 2 * _above(values, v)) / v.var() for values, v in ((x, f), (y, g))]
    both = squares[0] + squares[1]
    found: Floats = correlation + (joint - joint.mean()) / spread - correlation * (both - both.mean()) / 2
    return found


def _above(values: np.ndarray, weights: Floats) -> Floats:
    """Return for each example the mean over all of the weights whose value is above its own; ties count half."""
    levels, at = np.unique(values, return_inverse=True)
    sums = np.bincount(at, weights, len(levels))
    found: Floats = (sums.sum() - sums.cumsum() + sums / 2)[at] / len(values)
    return found


def _area_examples(stored: np.ndarray, split: Any) -> Floats:
    """Return the examples of the area under the ROC curve; nan where all labels are equal, as there is no pair.

    Each is the area, plus how far the example's share of well ordered pairs is from it.
    """
    _two(stored, split)
    scores, labels = checked(stored, split)
    margins, positive = scores[:, 1] - scores[:, 0], labels == 1
    share = positive.mean()
    if not 0 < share < 1:
        return np.full(len(labels), math.nan)
    below = 1 - _above(margins, 1.0 - positive) / (1 - share)  # for the negative examples
    ordered = np.where(positive, below, _above(margins, 1.0 * positive) / share)
    area = ordered[positive].mean()
    found: Floats = area + (ordered - area) / np.where(positive, share, 1 - share)
    return found


def _of_area(chance: float, split: Any) -> float:
    """Return the standard error of the area of random scores."""
    # Mann and Whitney, Annals of Mathematical Statistics 18 (1947)
    n, positive = len(split), int((split.labels == 1).sum())
    return math.sqrt((n + 1) / (12 * positive * (n - positive))) if 0 < positive < n else 0.0


def _of_numbers(name: str) -> Metric:
    """Make the metric that is a correlation of numbers with the labels."""
    found = {"pearson": _pearson_examples, "spearman": _spearman_examples}.get(name)
    return Metric(
        name,
        lambda stored, split: _correlation(f"{name}r" if found else "kendalltau", stored, split),
        (lambda stored, split: found(*_numbers(stored, split))) if found else None,
        -1.0,
        1.0,
        chance=always(0.0),
        noise=of_correlation,
    )


TABLE = {
    metric.name: metric
    for metric in (
        averaged("accuracy", _right, noise=of_share),
        averaged("f1", _f1_examples, noise=of_share),
        Metric(  # Matthews' coefficient is Pearson's of two binary variables
            "matthews",
            _matthews,
            lambda stored, split: _pearson_examples(*_two(stored, split)),
            -1.0,
            1.0,
            noise=of_correlation,
        ),
        averaged("roc_auc", _area_examples, chance=always(0.5), noise=_of_area),
        *map(_of_numbers, ("pearson", "spearman", "kendall")),
    )
}
