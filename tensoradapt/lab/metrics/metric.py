"""One record declares all that is known of a metric: its score, its examples, its range, and what is chance."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tensoradapt.checks import shown, text
from tensoradapt.errors import TensorAdaptError

Score = Callable[[np.ndarray, Any], float]
Examples = Callable[[np.ndarray, Any], np.ndarray]
Parts = Callable[[np.ndarray, Any], tuple[np.ndarray, np.ndarray]]
Chance = Callable[[Score, Any, int], float]
Noise = Callable[[float, Any], float]


def best_constant(score: Score, split: Any, n_labels: int) -> float:
    """Return the score of the best constant answer: a class or the shares of all classes, or the mean of numbers.

    Nan where the labels, (n,), are below 0, as those of classes are that have not been set yet.
    """
    labels = split.labels
    if n_labels == 1:
        return score(np.full(len(labels), labels.mean()), split)
    if (labels < 0).all():
        return math.nan
    shares = np.bincount(labels, minlength=n_labels) / len(labels)
    answers = [*np.eye(n_labels), np.log(shares + 1e-9)]
    return max(score(np.tile(answer, (len(labels), 1)), split) for answer in answers)


def always(value: float) -> Chance:
    """Make a chance that is one number for all data, such as 0.5 for a choice between two."""
    return lambda score, split, n_labels: value


def none(chance: float, split: Any) -> float:
    """Return 0, as if there were no noise: every score above chance counts as learned."""
    return 0.0


def of_share(chance: float, split: Any) -> float:
    """Return the standard error of a share of the examples that are right."""
    return math.sqrt(max(chance * (1 - chance), 0) / len(split))


def of_correlation(chance: float, split: Any) -> float:
    """Return the standard error of a correlation that is 0."""
    return 1 / math.sqrt(len(split))


@dataclass(frozen=True)
class Metric:
    """A number by which predictions are judged (docs/start/your-data.md has one of one's own).

    Its functions get what a run stores, an array (n, ...) with a row for each example as the task's ``predict``
    returns it, and the ``Split`` that it is of, with labels (n,), texts and ids. An example: docs/start/your-data.md.

    Attributes:
        name: what results and figures call it.
        score: (stored, split) -> its value; nan where the split has no example that it judges.
        examples: (stored, split) -> one number for each example, (n,), whose mean is the score, and the variance of
            whose mean is that of the score over test sets. Differences between runs are then paired over examples;
            without it (None) over seeds alone.
        low, high: the range of its values; infinite where there is no end.
        larger_is_better: whether more is better, as of the metric that a task reports; others beside it may be losses.
        chance: (score, split, n_labels) -> its value where nothing was learned; n_labels is 1 for numbers.
        noise: (chance, split) -> the standard error of that value: ``of_share``, ``of_correlation``, ``none``, or
            another function.

    Raises:
        TensorAdaptError: for a name that is no text, a function that cannot be called, and a range without a width.

    >>> import tensoradapt as ta
    >>> share = ta.Metric("share", lambda stored, split: (stored.argmax(1) == split.labels).mean(), low=0, high=1)
    >>> share.name, share.larger_is_better
    ('share', True)
    """

    name: str
    score: Score
    examples: Examples | None = None
    low: float = -math.inf
    high: float = math.inf
    larger_is_better: bool = True
    chance: Chance = best_constant
    noise: Noise = none

    def __post_init__(self) -> None:
        text(self.name, "name of a metric")
        functions = {"score": self.score, "chance": self.chance, "noise": self.noise}
        functions |= {} if self.examples is None else {"examples": self.examples}
        for field, value in functions.items():
            if not callable(value):
                raise TensorAdaptError(f"{field} of metric {self.name!r} is {shown(value)}; expected a function")
        ends = self.low, self.high
        if not all(isinstance(end, int | float) for end in ends) or not self.low < self.high:
            raise TensorAdaptError(
                f"metric {self.name!r} goes from {shown(self.low)} to {shown(self.high)}; expected low below high"
            )

    def at_chance(self, value: float, chance: float, split: Any) -> bool:
        """Say whether a value for a split is at most two standard errors above chance, or nan."""
        return not value > chance + 2 * self.noise(chance, split)


def averaged(name: str, examples: Examples, low: float = 0.0, high: float = 1.0, **more: Any) -> Metric:
    """Make a metric that is the mean of a number of each example; ``more`` are other fields of ``Metric``."""
    return Metric(name, lambda stored, split: float(examples(stored, split).mean()), examples, low, high, **more)


def quotient(name: str, parts: Parts, low: float = 0.0, high: float = 1.0, **more: Any) -> Metric:
    """Make a metric that is a ratio of sums, such as nats for each token; ``more`` are other fields of ``Metric``.

    ``parts``: (stored, split) -> what each example adds to the sum above and to that below, (n,) each; the latter's sum
    is above 0.
    """

    def score(stored: np.ndarray, split: Any) -> float:
        top, bottom = parts(stored, split)
        return float(top.sum() / bottom.sum())

    return Metric(name, score, lambda stored, split: ratio(*parts(stored, split)), low, high, **more)


def ratio(
    top: np.ndarray,  # (n,)
    bottom: np.ndarray,  # (n,), whose sum is above 0
) -> np.ndarray:
    """Return the examples of a ratio of two sums, (n,): their mean is the ratio, and they vary as the ratio does."""
    score = top.sum() / bottom.sum()
    found: np.ndarray = score + (top - score * bottom) / bottom.mean()
    return found
