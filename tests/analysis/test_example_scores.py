"""What test examples contribute to a metric: their mean is the metric, and they vary as the metric does."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tensoradapt.analysis.statistics.intervals import paired_difference
from tensoradapt.analysis.tables.comparable import METRICS, example_scores
from tensoradapt.errors import TensorAdaptError
from tensoradapt.tasks import metrics
from tensoradapt.tasks.classification import Classification, Regression

CLASSES = ("accuracy", "f1", "matthews")


def drawn(metric: str, seed: int, n: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Predictions and labels of a mediocre model, labels with ties."""
    rng = np.random.default_rng(seed)
    if metric in CLASSES:
        labels = rng.integers(0, 2, n)
        return rng.normal(size=(n, 2)) + np.eye(2)[labels], labels
    labels = np.round(rng.normal(size=n), 0)
    return labels + rng.normal(size=n), labels


def scored(metric: str, predictions: np.ndarray, labels: np.ndarray) -> float:
    kind, n_labels = (Classification, 2) if metric in CLASSES else (Regression, 1)
    task = kind("made up", n_labels, "spearman" if metric == "pearson" else metric)
    return metrics.evaluate(task, predictions, labels)[metric]


@settings(max_examples=25)
@given(st.sampled_from(sorted(METRICS)), st.integers(0, 10**6), st.integers(3, 60))
def test_their_mean_is_the_metric(metric: str, seed: int, n: int) -> None:
    predictions, labels = drawn(metric, seed, n)
    assert example_scores(metric, predictions, labels).mean() == pytest.approx(scored(metric, predictions, labels))


@pytest.mark.parametrize("metric", sorted(METRICS))
def test_each_is_the_jackknifes_pseudo_value_to_first_order(metric: str) -> None:
    predictions, labels = drawn(metric, 0, 1000)
    n, whole = len(labels), scored(metric, predictions, labels)
    without = [scored(metric, np.delete(predictions, i, 0), np.delete(labels, i)) for i in range(n)]
    oracle = n * whole - (n - 1) * np.array(without)
    apart = example_scores(metric, predictions, labels) - oracle
    assert np.sqrt((apart**2).mean()) < 0.01 * oracle.std()


@pytest.mark.parametrize("metric", sorted(METRICS))
def test_a_constant_answer_contributes_what_it_scores(metric: str) -> None:
    predictions, labels = drawn(metric, 0)
    same = np.broadcast_to(predictions[:1], predictions.shape)
    assert example_scores(metric, same, labels).mean() == pytest.approx(scored(metric, same, labels))


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["matthews", "spearman", "f1"])
def test_intervals_of_differences_cover_over_new_test_sets_and_seeds(metric: str) -> None:
    """Two models, one noisier, of which every seed has noise of its own; truth from a test set of two million."""
    rng = np.random.default_rng(1)

    def scores(labels: np.ndarray, shared: np.ndarray, noise: float) -> list[np.ndarray]:
        found = [labels + shared + noise * rng.normal(size=len(labels)) + 0.1 * rng.normal() for _ in range(3)]
        return found if metric == "spearman" else [np.stack([-one, one], 1) for one in found]

    def world(n: int) -> list[tuple[np.ndarray, np.ndarray]]:
        truth = rng.normal(size=n)
        labels = truth if metric == "spearman" else (truth > 0).astype(int)
        shared = rng.normal(size=n)
        pairs = zip(scores(truth, shared, 0.3), scores(truth, shared, 1.0), strict=True)
        return [(example_scores(metric, a, labels), example_scores(metric, b, labels)) for a, b in pairs]

    true = np.mean([a.mean() - b.mean() for _ in range(8) for a, b in world(100_000)])
    held = []
    for _ in range(400):
        first, second = zip(*world(200), strict=True)
        found = paired_difference(np.array(first), np.array(second))
        held.append(found.low <= true <= found.high)
    assert 0.92 <= np.mean(held) <= 0.995


def test_what_cannot_be_shared_out_is_refused() -> None:
    with pytest.raises(TensorAdaptError, match="metric is 'acuracy'; did you mean \"accuracy\""):
        example_scores("acuracy", [[0.0, 1.0]], [1])
    with pytest.raises(
        TensorAdaptError, match=r"shape \(2, 2\) for labels of shape \(2,\); expected \(n,\) and \(n,\)"
    ):
        example_scores("pearson", [[0.0, 1.0]] * 2, [1.0, 2.0])
