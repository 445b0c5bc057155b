"""Tasks of own data: classification of texts and of pictures, and regression, with any metric by name."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tensoradapt.tasks import library_metrics, metrics
from tensoradapt.tasks.classification import Classification, Regression
from tensoradapt.tasks.splits import Split
from tensoradapt.tasks.vision.task import Pictures


class _Own(Classification):
    """What both kinds of own tasks do: any metric by name."""

    def evaluate(self, predictions: np.ndarray, split: Split) -> dict[str, float]:
        """The task's metric, and accuracy or both correlations."""
        scores, labels = metrics.checked(self, predictions, split.labels)
        usual = ("accuracy",) if self.kind == "classification" else ("spearman", "pearson")
        own = {self.metric: library_metrics.score(self, scores, labels)}
        return own | {name: metrics.named(name, scores, labels) for name in usual if name != self.metric}

    def chance(self, split: Split) -> float:
        """The metric of the best constant answer."""
        return library_metrics.constant(self, split.labels)

    def at_chance(self, value: float, chance: float, n: int) -> bool:
        """Whether a score is within two standard errors of chance, of a share or a correlation; else no better."""
        if self.metric in ("matthews", *library_metrics.OWN["regression"]):
            spread = 1 / math.sqrt(n)
        else:
            spread = math.sqrt(max(chance * (1 - chance), 0) / n) if self.kind == "classification" else 0.0
        return not value > chance + 2 * spread


@dataclass(frozen=True)
class OwnClassification(_Own):
    """Classes of own data."""


@dataclass(frozen=True)
class OwnRegression(_Own, Regression):
    """Numbers of own data."""


@dataclass(frozen=True)
class OwnPictures(_Own, Pictures):
    """Classes of own pictures."""
