"""Metrics by name: this package's, scipy's correlations, scikit-learn's scorers, and functions of one's own."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from tensoradapt.checks import shown
from tensoradapt.errors import TensorAdaptError, did_you_mean, missing_extra
from tensoradapt.tasks import metrics
from tensoradapt.tasks.task import imported

if TYPE_CHECKING:
    from tensoradapt.tasks.classification import Classification

Score = Callable[[np.ndarray, np.ndarray], float]  # called with scores, as ``metrics.evaluate`` takes them, and labels
OWN = {"classification": ("accuracy", "f1", "matthews"), "regression": ("spearman", "pearson", "kendall")}
BINARY = {"f1": "f1_macro", "matthews": "matthews_corrcoef"}  # for more classes: scikit-learn's
DEFAULT = {"classification": "accuracy", "regression": "spearman"}


def metric_name(metric: Any) -> str:
    """The name of a metric: itself, or module and name of a function, by which another process finds it."""
    if isinstance(metric, str) and metric.strip():
        return metric
    module, name = getattr(metric, "__module__", ""), getattr(metric, "__qualname__", "")
    if not callable(metric) or not name:
        raise TensorAdaptError(f"metric is {shown(metric)}; expected the name of a metric, or a function")
    if module == "__main__" or not name.isidentifier():
        raise TensorAdaptError(
            f"metric {name!r} of {module} cannot be imported by the processes that compute runs; expected a function "
            "of a module, such as metric=my_metrics.cost"
        )
    return f"{module}:{name}"


def check_metric(task: Classification, labels: np.ndarray) -> None:
    """Raise TensorAdaptError for a metric that does not fit a task's labels: unknown, for labels of another kind or
    number, without a value, or one of which less is better.
    """
    if task.n_labels > 2 and task.metric in BINARY:
        raise TensorAdaptError(
            f"metric {task.metric!r} is for two classes, and task {task.name!r} has {task.n_labels}; expected "
            f"{BINARY[task.metric]!r} or accuracy"
        )
    perfect = labels if task.kind == "regression" else 20.0 * np.eye(task.n_labels)[labels] - 10
    best, chance = score(task, perfect, labels), constant(task, labels)
    if not (math.isfinite(best) and math.isfinite(chance)):
        raise TensorAdaptError(
            f"metric {task.metric!r} has no finite value for the labels of task {task.name!r} ({best} for a perfect "
            f"answer, {chance} for a constant one); expected another"
        )
    if best <= chance:
        raise TensorAdaptError(
            f"metric {task.metric!r} is {best:.4g} for a perfect answer to task {task.name!r} and {chance:.4g} for a "
            "constant one; expected more than that: of an error take the negative, such as neg_mean_squared_error"
        )


def score(task: Classification, scores: np.ndarray, labels: np.ndarray) -> float:
    """The task's metric. Raises TensorAdaptError where it is not known or does not fit."""
    if task.metric in OWN[task.kind] and task.metric != "kendall":
        return metrics.named(task.metric, scores, labels)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # undefined values of constant answers count as what is returned for them
            return float(_found(task)(scores, labels))
    except TensorAdaptError:
        raise
    except Exception as error:
        raise TensorAdaptError(
            f"metric {task.metric!r} does not fit the labels of task {task.name!r}, a {task.kind}"
            f"{f' of {task.n_labels} classes' if task.kind == 'classification' else ''} "
            f"({(str(error).strip().splitlines() or [type(error).__name__])[0][:150]}); expected another"
        ) from error


def constant(task: Classification, labels: np.ndarray) -> float:
    """The metric of the best constant answer to ``labels``: a class or the shares of all, or the mean; 0 of a
    correlation.
    """
    if task.kind == "classification":
        shares = np.bincount(labels, minlength=task.n_labels) / len(labels)
        answers = [*np.eye(task.n_labels), np.log(shares + 1e-9)]
        return max(score(task, np.tile(answer, (len(labels), 1)), labels) for answer in answers)
    if task.metric in OWN["regression"]:
        return 0.0
    return score(task, np.full(len(labels), labels.mean()), labels)


def _found(task: Classification) -> Score:
    if task.metric == "kendall":
        return _kendall
    if task.metric in {name for names in OWN.values() for name in names}:
        raise TensorAdaptError(
            f"metric {task.metric!r} does not fit task {task.name!r}, a {task.kind}; expected "
            f"{', '.join(OWN[task.kind])}, a scorer of scikit-learn, or a function"
        )
    if ":" in task.metric:
        return _imported(task)
    return _scorer(task)


def _kendall(scores: np.ndarray, labels: np.ndarray) -> float:
    from scipy import stats

    value = float(stats.kendalltau(scores, labels).statistic)
    return value if math.isfinite(value) else 0.0


def _imported(task: Classification) -> Score:
    """A function, called as scikit-learn's are: with the labels and the predicted classes or numbers."""
    function = imported(task.metric, "metric", "module:function")
    return lambda scores, labels: function(labels, scores.argmax(1) if task.kind == "classification" else scores)


def _scorer(task: Classification) -> Score:
    """A scorer of scikit-learn, asked about predictions that are given in place of a model's."""
    try:
        from sklearn.metrics import get_scorer, get_scorer_names
    except ImportError:
        raise missing_extra("scikit-learn", "data", f"metric {task.metric!r}") from None
    if task.metric not in get_scorer_names():
        valid = [*OWN[task.kind], *get_scorer_names()]
        raise TensorAdaptError(f"unknown metric {task.metric!r}{did_you_mean(task.metric, valid)}")
    scorer = get_scorer(task.metric)
    given = _given(task.kind, task.n_labels)
    return lambda scores, labels: scorer(given, scores, labels)


def _given(kind: str, n_labels: int) -> Any:
    """What scikit-learn takes for a fitted model; its inputs are the predictions."""
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin

    class Classes(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
        classes_ = np.arange(n_labels)

        def predict(self, scores: np.ndarray) -> np.ndarray:
            return scores.argmax(1)

        def predict_proba(self, scores: np.ndarray) -> np.ndarray:
            exponentials = np.exp(scores - scores.max(1, keepdims=True))
            return exponentials / exponentials.sum(1, keepdims=True)

    class Numbers(RegressorMixin, BaseEstimator):  # type: ignore[misc]
        fitted_ = True

        def predict(self, scores: np.ndarray) -> np.ndarray:
            return scores

    return Classes() if kind == "classification" else Numbers()
