"""Find any metric by name, of the table, of scikit-learn or of one's own, and check that it fits."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from tensoradapt.checks import imported, name_in, shown
from tensoradapt.errors import TensorAdaptError, first_line, of_extra
from tensoradapt.habits import called
from tensoradapt.lab.metrics.metric import Metric, none, of_share
from tensoradapt.lab.metrics.table import TABLE, Floats, checked

Judge = Callable[[Floats, np.ndarray], float]  # called with scores, (n, n_labels) or (n,), and labels

RANGES = dict.fromkeys(("reward_accuracy", "average_precision", "precision", "recall", "jaccard"), (0.0, 1.0))
RANGES |= dict.fromkeys(("balanced_accuracy", "top_k_accuracy"), (0.0, 1.0))
RANGES |= dict.fromkeys(("r2", "explained_variance", "d2_absolute_error_score"), (-math.inf, 1.0))
RANGES |= {"matthews_corrcoef": (-1.0, 1.0)} | {name: (metric.low, metric.high) for name, metric in TABLE.items()}
AVERAGED = re.compile(r"(_(micro|macro|weighted|samples|ovr|ovo))+$")  # how names of scikit-learn end
LESS_IS_BETTER = re.compile(
    r"(?:^|[\W_])(?:loss|perplexity|ppl|error|nll|mse|rmse|mae|wer|cer)(?:$|[\W_])", re.IGNORECASE
)


def resolve(metric: str | Metric) -> Metric:
    """Return the record of a metric: itself, or that of a name such as "f1", "neg_log_loss" or "my_metrics:cost".

    Raises TensorAdaptError for an unknown name, with the closest, and for one that needs scikit-learn without it.
    """
    if isinstance(metric, Metric):
        return metric
    if metric in TABLE:
        return TABLE[metric]
    return _imported(metric) if ":" in metric else _scorer(metric)


def metric_name(metric: Any) -> str:
    """Return the name by which another process finds a metric.

    It is the name itself, or the module and the name of a record or function. Raises TensorAdaptError for a record or
    function that no module holds.
    """
    if isinstance(metric, str) and metric.strip():
        return metric
    if isinstance(metric, Metric):
        return metric.name if TABLE.get(metric.name) is metric else _held(metric)
    module, name = getattr(metric, "__module__", ""), getattr(metric, "__qualname__", "")
    if not callable(metric) or not name:
        raise TensorAdaptError(f"metric is {shown(metric)}; expected the name of a metric, a Metric, or a function")
    if module == "__main__" or not name.isidentifier():
        raise TensorAdaptError(
            f"metric {name!r} of {module} cannot be imported by the processes that compute runs; expected a function "
            "of a module, such as metric=my_metrics.cost"
        )
    return f"{module}:{name}"


def _held(metric: Metric) -> str:
    """Return where a record can be imported from: the module of its score, and its name there."""
    module = getattr(metric.score, "__module__", "")
    name = name_in(module, metric)
    if name is None:
        raise TensorAdaptError(
            f"metric {metric.name!r} is no value of module {module}, from which the processes that compute runs import "
            'it; expected one in the module of its score, or its place, such as metric="my_metrics:COST"'
        )
    return f"{module}:{name}"


def check_reported(metric: Metric) -> None:
    """Raise TensorAdaptError for a metric that cannot be the one that is reported, as less of it is better."""
    if not metric.larger_is_better:
        raise TensorAdaptError(
            f"of metric {metric.name!r} less is better, and rates, means and figures take more to be better; expected "
            "its negative, or another metric before it"
        )


def check_fits(metric: Metric, split: Any, n_labels: int) -> None:
    """Raise TensorAdaptError for a metric that does not fit the labels of a split, (n,).

    It is for labels of another kind, or for another number of classes (``n_labels``, 1 for numbers), has no value for
    these, or is not better for a perfect answer than for a constant one.
    """
    check_reported(metric)
    perfect = 20.0 * np.eye(n_labels)[split.labels] - 10 if n_labels > 1 else split.labels
    try:
        best, chance = metric.score(perfect, split), metric.chance(metric.score, split, n_labels)
    except Exception as error:
        what = f"labels of {n_labels} classes" if n_labels > 1 else "labels that are numbers"
        advice = "" if isinstance(error, TensorAdaptError) else f"; choose a metric for {what}"
        raise TensorAdaptError(f"metric {metric.name!r} does not fit {what}: {first_line(error)}{advice}") from error
    if not (math.isfinite(best) and math.isfinite(chance)):
        raise TensorAdaptError(
            f"metric {metric.name!r} has no finite value for these labels ({best} for a perfect answer, {chance} for a "
            "constant one); expected another"
        )
    if best <= chance:
        raise TensorAdaptError(
            f"metric {metric.name!r} is {best:.4g} for a perfect answer and {chance:.4g} for a constant one; expected "
            "more than that: of an error take the negative, such as neg_mean_squared_error"
        )


def range_of(name: str) -> tuple[float, float]:
    """Return the least and the largest value of a metric that is known by its name alone; infinite where it is not.

    >>> range_of("f1_macro"), range_of("neg_log_loss"), range_of("GLUE")
    ((0.0, 1.0), (-inf, 0.0), (-inf, inf))
    """
    ends = (-math.inf, 0.0 if name.startswith("neg_") else math.inf)
    return RANGES.get(AVERAGED.sub("", name), ends)


def _noise(chance: float, split: Any) -> float:
    """Return the standard error of a share, where labels are classes; for numbers none is known."""
    return of_share(chance, split) if split.labels.dtype.kind in "iu" else none(chance, split)


def _metric(name: str, judge: Judge) -> Metric:
    """Make the record of a function by another library or of one's own, which knows no examples."""

    def score(stored: np.ndarray, split: Any) -> float:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # undefined values of constant answers count as what is returned for them
            return float(judge(*checked(stored, split)))

    low, high = range_of(name)
    return Metric(name, score, None, low, high, noise=_noise)


def _imported(where: str) -> Metric:
    """Import a record, or a function that is called as scikit-learn's are: with labels and classes or numbers."""
    found = imported(where, "metric", "module:function, or module:NAME of a Metric")
    if isinstance(found, Metric):
        return found
    if not callable(found):
        raise TensorAdaptError(f"metric {where!r} is {shown(found)}; expected a Metric or a function")
    return _metric(where, lambda scores, labels: found(labels, scores.argmax(1) if scores.ndim == 2 else scores))


def _scorer(name: str) -> Metric:
    """Make the record of a scorer of scikit-learn, which is asked about given predictions in place of a model's."""
    library = of_extra("sklearn.metrics", "data", f"metric {name!r}", "scikit-learn")
    if name not in (known := library.get_scorer_names()):
        valid = [*TABLE, *known]
        raise TensorAdaptError(f"unknown metric {name!r}{called(name, valid)}")
    scorer = library.get_scorer(name)
    return _metric(name, lambda scores, labels: scorer(_given(scores), scores, labels))


def _given(scores: Floats) -> Any:
    """Make what scikit-learn takes for a fitted model; its inputs are the predictions."""
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin

    class Classes(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
        classes_ = np.arange(scores.shape[-1])

        def predict(self, scores: np.ndarray) -> np.ndarray:
            return scores.argmax(1)

        def predict_proba(self, scores: np.ndarray) -> np.ndarray:
            exponentials = np.exp(scores - scores.max(1, keepdims=True))
            return exponentials / exponentials.sum(1, keepdims=True)

    class Numbers(RegressorMixin, BaseEstimator):  # type: ignore[misc]
        fitted_ = True

        def predict(self, scores: np.ndarray) -> np.ndarray:
            return scores

    return Classes() if scores.ndim == 2 else Numbers()
