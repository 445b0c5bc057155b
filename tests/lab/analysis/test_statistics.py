"""Statistics against scipy, simulation and independent references: intervals, crossed designs, the bootstrap."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats
from support.refusals import refused

from tensoradapt.lab.analysis.statistics import bootstrap, significance
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


TRUE, TASKS = 0.8, 7
LEVELS = {"a": 0.9, "b": 0.9, "c": 0.7, "d": 0.5}
small = st.integers(0, 6).map(lambda n: n / 6)


def coverage(interval, n: int, repeats: int = 400) -> float:
    """How often the interval of n normal seeds holds their mean."""
    rng = np.random.default_rng(n)
    found = [interval(rng.normal(TRUE, 0.03, n)) for _ in range(repeats)]
    return float(np.mean([one.low <= TRUE <= one.high for one in found]))


@pytest.mark.parametrize("n", [3, 5, 10])
def test_t_intervals_cover_what_they_claim_at_few_seeds(n: int) -> None:
    assert coverage(t_interval, n, 1500) == pytest.approx(0.95, abs=0.02)


def test_a_bootstrap_of_three_seeds_does_not() -> None:
    def percentile(values: np.ndarray) -> object:
        found = stats.bootstrap((values,), np.mean, n_resamples=300, method="percentile", rng=0).confidence_interval
        return found

    assert coverage(percentile, 3) < 0.85


@given(arrays(float, st.tuples(st.integers(1, 4), st.integers(1, 6)), elements=small))
def test_the_interquartile_mean_is_of_the_middle_half(scores: np.ndarray) -> None:
    ordered = np.sort(scores.ravel())
    cut = len(ordered) // 4
    assert bootstrap.iqm(scores) == pytest.approx(ordered[cut : len(ordered) - cut].mean())


@given(
    arrays(float, st.tuples(st.just(3), st.integers(1, 5)), elements=small),
    arrays(float, st.tuples(st.just(3), st.integers(1, 5)), elements=small),
)
def test_improvement_is_mann_and_whitneys_share_averaged_over_tasks(a: np.ndarray, b: np.ndarray) -> None:
    u = [stats.mannwhitneyu(x, y).statistic / (len(x) * len(y)) for x, y in zip(a, b, strict=True)]
    assert bootstrap.improvement(a, b) == pytest.approx(np.mean(u))
    assert bootstrap.improvement(b, a) == pytest.approx(1 - np.mean(u))


@pytest.mark.slow
@pytest.mark.parametrize(("seeds", "least"), [(3, 0.89), (5, 0.9), (10, 0.91)])
def test_a_stratified_bootstrap_covers_at_few_seeds(seeds: int, least: float) -> None:
    """The statistics are the interquartile mean and the probability of improvement between two that are alike."""
    rng, means, hits = np.random.default_rng(seeds), np.linspace(0.5, 0.9, TASKS)[:, None], []
    truth = bootstrap.iqm(rng.normal(means, 0.03, (TASKS, 20_000)))
    for seed in range(500):
        one, other = rng.normal(means, 0.03, (2, TASKS, seeds))
        middle = bootstrap.stratified_bootstrap(bootstrap.iqm, one, draws=300, seed=seed)
        better = bootstrap.stratified_bootstrap(bootstrap.improvement, one, other, draws=300, seed=seed)
        hits.append((middle.low <= truth <= middle.high, better.low <= 0.5 <= better.high))
    covered, improved = np.mean(hits, axis=0)
    assert least <= covered <= 0.98 and 0.93 <= improved <= 0.99


@pytest.mark.parametrize("seeds", [3, 5])
def test_a_stratified_bootstrap_has_the_variance_of_a_mean_without_bias(seeds: int) -> None:
    scores = np.random.default_rng(0).normal(0.7, 0.05, (4, seeds))
    found = bootstrap.stratified_bootstrap(lambda drawn: drawn.mean((-2, -1)), scores, draws=20_000)
    assert found.sd == pytest.approx(np.sqrt((scores.var(axis=1, ddof=1) / seeds).sum()) / 4, rel=0.02)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=7))
def test_holm_rejects_what_the_step_down_procedure_does(p: list[float]) -> None:
    for alpha in (0.01, 0.05, 0.3):
        rejected, m = set(), len(p)
        for k, i in enumerate(sorted(range(m), key=lambda i: p[i])):
            if p[i] * (m - k) > alpha:
                break
            rejected.add(i)
        assert {i for i, value in enumerate(significance.holm(p)) if value <= alpha} == rejected


def test_mcnemar_is_the_binomial_tail_of_the_examples_one_alone_gets_right() -> None:
    a, b = np.array([1] * 9 + [0] * 2 + [1] * 5), np.array([0] * 9 + [1] * 2 + [1] * 5)
    tail = sum(stats.binom.pmf(k, 11, 0.5) for k in range(3))
    assert significance.mcnemar(a, b) == pytest.approx(2 * tail)
    assert significance.mcnemar(a, a) == 1


REFUSED = {
    "one task": (lambda: bootstrap.stratified_bootstrap(bootstrap.iqm, [[1, 2, 3]]), "at least 2 tasks and 3 seeds"),
    "two seeds": (lambda: bootstrap.stratified_bootstrap(bootstrap.iqm, np.ones((3, 2))), "3 seeds"),
    "other tasks": (lambda: bootstrap.improvement([[1.0]], [[1.0], [2.0]]), "1 and 2 tasks"),
    "a nan": (lambda: bootstrap.improvement([[np.nan]], [[1.0]]), "expected finite"),
    "other examples": (lambda: significance.mcnemar([1], [1, 0]), "the same"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_has_no_answer_is_refused(case: str) -> None:
    refused(*REFUSED[case])
