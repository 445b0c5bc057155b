"""Intervals against scipy, the crossed design against simulation, the frontier against brute force."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from support.refusals import refused

from tensoradapt.lab.analysis.statistics.intervals import (
    non_dominated,
    on_frontier_probability,
    paired_difference,
    t_interval,
)

scores = st.lists(st.floats(0, 1), min_size=2, max_size=8)
few = st.integers(0, 4)  # few values, so that ties are common


@given(scores, st.sampled_from([0.5, 0.9, 0.95]))
def test_the_interval_is_scipys_t_interval(values: list[float], confidence: float) -> None:
    found = t_interval(values, confidence)
    error = np.std(values, ddof=1) / np.sqrt(len(values))
    half = scipy.stats.t.ppf((1 + confidence) / 2, len(values) - 1) * error
    np.testing.assert_allclose([found.low, found.high], [np.mean(values) - half, np.mean(values) + half], atol=1e-9)
    assert (found.mean, found.n) == (pytest.approx(np.mean(values)), len(values))
    assert found.sd == pytest.approx(np.std(values, ddof=1))


def test_one_seed_has_a_mean_and_no_limits() -> None:
    found = t_interval([0.7])
    assert (found.mean, found.n) == (0.7, 1)
    assert np.isnan([found.low, found.high, found.sd]).all()


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: t_interval([]), r"values has shape \(0,\); expected \(seeds\)"),
        (lambda: t_interval([0.5, np.nan]), "not finite; expected scores: count a diverged run as chance"),
        (lambda: t_interval([[0.5]]), r"shape \(1, 1\)"),
        (lambda: t_interval([0.1, 0.2], 95), "confidence is 95; expected a share between 0 and 1"),
        (
            lambda: paired_difference(np.zeros((2, 3)), np.zeros((3, 3))),
            r"shapes \(2, 3\) and \(3, 3\); expected the same seeds and examples",
        ),
    ],
)
def test_scores_without_an_interval_are_refused(call: Callable[[], object], says: str) -> None:
    refused(call, says)


@given(st.integers(2, 6), st.integers(0, 1000))
def test_with_one_seed_the_paired_difference_is_a_paired_t_test_over_examples(n: int, seed: int) -> None:
    a, b = np.random.default_rng(seed).normal(size=(2, n))
    found, oracle = paired_difference([a], [b]), scipy.stats.ttest_rel(a, b).confidence_interval()
    np.testing.assert_allclose([found.low, found.high], oracle, rtol=1e-9)
    assert found.n == 1


@given(st.integers(2, 6), st.integers(0, 1000))
def test_with_one_example_it_is_a_paired_t_test_over_seeds(n: int, seed: int) -> None:
    a, b = np.random.default_rng(seed).normal(size=(2, n))
    found, oracle = paired_difference(a[:, None], b[:, None]), scipy.stats.ttest_rel(a, b).confidence_interval()
    np.testing.assert_allclose([found.low, found.high], oracle, rtol=1e-9)
    assert found.n == n


@given(st.integers(2, 5), st.integers(2, 8), st.integers(0, 1000))
def test_swapping_the_methods_mirrors_the_interval(seeds: int, examples: int, seed: int) -> None:
    a, b = np.random.default_rng(seed).normal(size=(2, seeds, examples))
    there, back = paired_difference(a, b), paired_difference(b, a)
    np.testing.assert_allclose([there.mean, there.low, there.high], [-back.mean, -back.high, -back.low])


def test_methods_that_answer_alike_differ_by_exactly_nothing() -> None:
    same = np.random.default_rng(0).random((3, 20)) < 0.5
    found = paired_difference(same, same)
    assert (found.mean, found.low, found.high, found.sd) == (0, 0, 0, 0)


@pytest.mark.parametrize(("seed_sd", "rest_sd"), [(0.0, 1.0), (0.1, 1.0), (1.0, 0.1)])
def test_the_interval_covers_the_true_difference_over_new_seeds_and_examples(seed_sd: float, rest_sd: float) -> None:
    rng, hits, seeds, examples = np.random.default_rng(3), 0, 3, 200
    for _ in range(400):
        effects = seed_sd * rng.normal(size=(seeds, 1)) + rng.normal(size=(1, examples))
        found = paired_difference(0.3 + effects + rest_sd * rng.normal(size=(seeds, examples)), np.zeros_like(effects))
        hits += found.low <= 0.3 <= found.high
    assert 0.92 <= hits / 400 < 1


def test_examples_that_all_seeds_share_are_not_counted_as_new_ones() -> None:
    difficulty = np.random.default_rng(0).normal(size=200)
    once = paired_difference([difficulty], [np.zeros(200)])
    often = paired_difference([difficulty] * 5, np.zeros((5, 200)))
    assert often.high - often.low == pytest.approx(once.high - once.low, rel=1e-9)


@given(st.lists(st.tuples(few, few), max_size=12))
def test_the_mask_is_the_definition_of_not_dominated(pairs: list[tuple[int, int]]) -> None:
    def beats(p: tuple[int, int], q: tuple[int, int]) -> bool:
        return p[0] <= q[0] and p[1] >= q[1] and p != q

    expected = [not any(beats(other, pair) for other in pairs) for pair in pairs]
    assert non_dominated([x for x, _ in pairs], [y for _, y in pairs]).tolist() == expected


@given(st.lists(st.tuples(few, few, few), min_size=1, max_size=8))
def test_many_draws_at_once_are_as_each_alone(rows: list[tuple[int, int, int]]) -> None:
    x, *draws = np.array(rows).T
    together = non_dominated(x, np.stack(draws))
    np.testing.assert_array_equal(together, [non_dominated(x, draw) for draw in draws])


def test_a_clear_frontier_is_certain_and_a_close_race_is_even() -> None:
    clear = on_frontier_probability([1, 2, 3], [0.5, 0.9, 0.7], [0.001] * 3, [3] * 3)
    np.testing.assert_allclose(clear, [1, 1, 0], atol=0.01)
    close = on_frontier_probability([1, 1], [0.8, 0.8], [0.01, 0.01], [3, 3])
    np.testing.assert_allclose(close, 0.5, atol=0.03)
    assert close.sum() == pytest.approx(1)


def test_the_race_of_two_has_the_probability_of_their_t_difference() -> None:
    """One rival without noise leaves P(m + t s / sqrt(n) > rival), which scipy knows."""
    found = on_frontier_probability([1, 2], [0.80, 0.81], [0.0, 0.02], [3, 3], draws=40_000)
    assert found[1] == pytest.approx(scipy.stats.t.cdf(0.01 / (0.02 / np.sqrt(3)), 2), abs=0.01)


def test_one_seed_competes_at_its_mean_but_has_no_probability() -> None:
    found = on_frontier_probability([1, 2], [0.9, 0.5], [np.nan, 0.01], [1, 3])
    assert np.isnan(found[0])
    assert found[1] < 0.01


def test_configurations_of_unequal_number_are_refused() -> None:
    says = r"have shapes \(2,\), \(2,\), \(1,\) and \(2,\); expected \(k,\)"
    refused(lambda: on_frontier_probability([1, 2], [0.8, 0.9], [0.01], [3, 3]), says)
