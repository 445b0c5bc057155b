"""The metric of each task, and the second one that is usually reported with it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from tensoradapt.errors import TensorAdaptError
from tensoradapt.tasks.splits import UNLABELLED

if TYPE_CHECKING:
    from tensoradapt.tasks.classification import Classification


def evaluate(task: Classification, scores: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Metric values by name: the task's metric, then accuracy for classification or pearson for regression.

    `scores` are logits (n, n_labels), or predictions (n,) or (n, 1) for regression; `labels` (n,). Constant
    predictions give 0.0 for matthews, f1 and correlations (f1 unless the constant is the positive class).
    Raises TensorAdaptError for other shapes, no examples, and scores that are not finite.
    """
    scores, labels = checked(task, scores, labels)
    if task.kind == "regression":
        return {name: _correlation(f"{name}r", scores, labels) for name in ("spearman", "pearson")}
    predicted = scores.argmax(axis=1)
    return {name: _CLASSIFICATION[name](predicted, labels) for name in dict.fromkeys((task.metric, "accuracy"))}


def named(metric: str, scores: np.ndarray, labels: np.ndarray) -> float:
    """One of this file's metrics by name, of logits (n, 2) or predictions (n,)."""
    if metric in _CLASSIFICATION:
        return _CLASSIFICATION[metric](scores.argmax(axis=1), labels)
    return _correlation(f"{metric}r", scores, labels)


def chance(task: Classification, labels: np.ndarray) -> float:
    """The task's metric for the best constant answer to `labels`; 0.0 for a correlation, nan without labels."""
    if task.kind == "regression":
        return 0.0
    if (labels == UNLABELLED).all():
        return float("nan")
    answers = np.eye(task.n_labels)
    return max(evaluate(task, np.tile(answer, (len(labels), 1)), labels)[task.metric] for answer in answers)


def checked(task: Classification, scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores in double precision and labels, in the shapes that ``evaluate`` takes; raises as it does."""
    scores, labels = np.asarray(scores, dtype=np.float64), np.asarray(labels)
    if task.kind == "regression" and scores.shape == (len(labels), 1):
        scores = scores[:, 0]
    shape = (len(labels),) if task.kind == "regression" else (len(labels), task.n_labels)
    if scores.shape != shape or labels.ndim != 1 or not len(labels):
        raise TensorAdaptError(
            f'task "{task.name}": scores of shape {scores.shape} for labels of shape {labels.shape}, '
            f"expected scores {shape} for at least one label: pass one row of scores per example"
        )
    if bad := int((~np.isfinite(scores)).sum()):
        raise TensorAdaptError(
            f'task "{task.name}": {bad} of {scores.size} scores are not finite, expected none: '
            "training has diverged; lower the learning rate"
        )
    return scores, labels


def _accuracy(predicted: np.ndarray, labels: np.ndarray) -> float:
    return float((predicted == labels).mean())


def _counts(predicted: np.ndarray, labels: np.ndarray) -> tuple[float, float, float, float]:
    """True positives, false positives, false negatives, true negatives; class 1 is the positive one."""
    pairs = [(1, 1), (1, 0), (0, 1), (0, 0)]
    tp, fp, fn, tn = (float(((predicted == p) & (labels == q)).sum()) for p, q in pairs)
    return tp, fp, fn, tn


def _matthews(predicted: np.ndarray, labels: np.ndarray) -> float:
    tp, fp, fn, tn = _counts(predicted, labels)
    product = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
    return (tp * tn - fp * fn) / product**0.5 if product else 0.0


def _f1(predicted: np.ndarray, labels: np.ndarray) -> float:
    tp, fp, fn, _ = _counts(predicted, labels)
    return 2 * tp / (2 * tp + fp + fn) if tp else 0.0


def _correlation(kind: str, scores: np.ndarray, labels: np.ndarray) -> float:
    from scipy import stats

    if len(scores) < 2 or np.ptp(scores) == 0 or np.ptp(labels) == 0:
        return 0.0
    with warnings.catch_warnings():
        # nearly constant predictions: scipy warns and may give nan, which counts as no correlation
        warnings.simplefilter("ignore")
        value = float(getattr(stats, kind)(scores, labels).statistic)
    return value if np.isfinite(value) else 0.0


_CLASSIFICATION: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "accuracy": _accuracy,
    "matthews": _matthews,
    "f1": _f1,
}
