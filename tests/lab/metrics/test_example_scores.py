"""What test examples contribute to a metric: their mean is the metric, and they vary as the metric does."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from support.jackknife import check_jackknife, split_of

from tensoradapt.lab.analysis.statistics.intervals import paired_difference
from tensoradapt.lab.metrics.table import TABLE

NAMES = sorted(name for name, metric in TABLE.items() if metric.examples)
CLASSES = ("accuracy", "f1", "matthews", "roc_auc")


def drawn(metric: str, seed: int, n: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Predictions and labels of a mediocre model, labels with ties."""
    rng = np.random.default_rng(seed)
    if metric in CLASSES:
        labels = rng.integers(0, 2, n)
        labels[:2] = 0, 1
        return rng.normal(size=(n, 2)) + np.eye(2)[labels], labels
    labels = np.round(rng.normal(size=n), 0)
    return labels + rng.normal(size=n), labels


def scored(metric: str, predictions: np.ndarray, labels: np.ndarray) -> float:
    return TABLE[metric].score(predictions, split_of(labels))


def examples(metric: str, predictions: np.ndarray, labels: np.ndarray) -> np.ndarray:
    found = TABLE[metric].examples
    assert found is not None
    return found(predictions, split_of(labels))


@settings(max_examples=25)
@given(st.sampled_from(NAMES), st.integers(0, 10**6), st.integers(3, 60))
def test_their_mean_is_the_metric(metric: str, seed: int, n: int) -> None:
    predictions, labels = drawn(metric, seed, n)
    assert examples(metric, predictions, labels).mean() == pytest.approx(scored(metric, predictions, labels))


@pytest.mark.thorough
@pytest.mark.parametrize("metric", NAMES)
def test_each_is_the_jackknifes_pseudo_value_to_first_order(metric: str) -> None:
    predictions, labels = drawn(metric, 0, 1000)
    check_jackknife(TABLE[metric], predictions, split_of(labels))


@pytest.mark.parametrize("metric", NAMES)
def test_a_constant_answer_contributes_what_it_scores(metric: str) -> None:
    predictions, labels = drawn(metric, 0)
    same = np.broadcast_to(predictions[:1], predictions.shape)
    assert examples(metric, same, labels).mean() == pytest.approx(scored(metric, same, labels))


def test_the_area_under_the_roc_curve_is_scikit_learns_also_with_ties() -> None:
    predictions, labels = drawn("roc_auc", 3, 80)
    for logits in (predictions, np.round(predictions)):
        margins = logits[:, 1] - logits[:, 0]
        assert scored("roc_auc", logits, labels) == pytest.approx(roc_auc_score(labels, margins), abs=1e-12)
    assert np.isnan(scored("roc_auc", predictions, np.ones(80, dtype=int)))


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["matthews", "spearman", "f1", "roc_auc"])
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
        return [(examples(metric, a, labels), examples(metric, b, labels)) for a, b in pairs]

    true = np.mean([a.mean() - b.mean() for _ in range(8) for a, b in world(100_000)])
    held = []
    for _ in range(400):
        first, second = zip(*world(200), strict=True)
        found = paired_difference(np.array(first), np.array(second))
        held.append(found.low <= true <= found.high)
    assert 0.92 <= np.mean(held) <= 0.995
