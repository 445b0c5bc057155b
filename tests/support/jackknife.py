"""What a metric's numbers of single examples should be, by leaving each example out."""

from __future__ import annotations

import numpy as np
import pytest

from tensoradapt.lab.metrics.metric import Metric
from tensoradapt.lab.tasks.splits import Split
from tensoradapt.lab.tasks.task import Task


def split_of(labels: np.ndarray, name: str = "made") -> Split:
    return Split(tuple(("p", "a") for _ in labels), labels, tuple(f"{name}-{i}" for i in range(len(labels))))


def check_jackknife(metric: Metric, stored: np.ndarray, split: Split) -> None:
    """Each is the jackknife's pseudo-value, but for terms of higher order."""
    assert metric.examples is not None
    n, whole = len(split), metric.score(stored, split)
    without = [metric.score(np.delete(stored, i, 0), left_out(split, i)) for i in range(n)]
    oracle = n * whole - (n - 1) * np.array(without)
    apart = metric.examples(stored, split) - oracle
    assert np.sqrt((apart**2).mean()) < 0.01 * oracle.std()


def left_out(split: Split, i: int) -> Split:
    rest = [row for row in range(len(split)) if row != i]
    texts = split.texts or ()
    return Split(tuple(texts[row] for row in rest), split.labels[rest], tuple(split.ids[row] for row in rest))


def stored_of(n: int, columns: int, divisor: int) -> np.ndarray:
    """What a task might store of n examples: sums in its columns, and numbers above 0 in the one that divides."""
    rng = np.random.default_rng(0)
    stored = rng.normal(size=(n, columns))
    stored[:, divisor] = rng.integers(1, 30, n)
    return stored


def check_metrics_of(task: Task, stored: np.ndarray, split: Split) -> None:
    """The reported metric has examples; of all that have, their mean is the score and each is the pseudo-value."""
    with_examples = [metric for metric in task.all_metrics if metric.examples]
    assert task.metric in with_examples
    for metric in with_examples:
        assert metric.examples is not None
        assert metric.examples(stored, split).mean() == pytest.approx(metric.score(stored, split), abs=1e-12)
        check_jackknife(metric, stored, split)
