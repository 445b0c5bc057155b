"""Statistics over tasks, seeds and examples, against independent references and by coverage."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats
from support.refusals import refused

from tensoradapt.lab.analysis.statistics import bootstrap, significance
from tensoradapt.lab.analysis.statistics.intervals import t_interval

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


def test_ranks_and_cliques_are_those_of_the_definition() -> None:
    rng = np.random.default_rng(3)
    base = rng.normal(0, 0.05, 20)
    scores = {name: base + level + rng.normal(0, 0.01, 20) for name, level in LEVELS.items()}
    found = significance.ranking(scores)
    assert list(found.ranks)[2:] == ["c", "d"]
    assert sum(found.ranks.values()) == pytest.approx(10)
    assert found.friedman_p == pytest.approx(stats.friedmanchisquare(*scores.values()).pvalue)
    assert [set(clique) for clique in found.cliques] == [{"a", "b"}]
    alike = {name: base + rng.normal(0, 0.01, 20) for name in "abcd"}
    assert [set(clique) for clique in significance.ranking(alike, alpha=1e-9).cliques] == [set("abcd")]


@given(st.integers(2, 6), st.sets(st.tuples(st.integers(0, 5), st.integers(0, 5)).filter(lambda p: p[0] < p[1])))
def test_cliques_are_the_largest_runs_without_a_pair_apart(n: int, apart: set[tuple[int, int]]) -> None:
    runs = [range(i, j) for i, j in product(range(n), range(2, n + 1)) if j - i > 1]
    whole = [run for run in runs if not any((a, b) in apart for a in run for b in run)]
    largest = [run for run in whole if not any(set(run) < set(other) for other in whole)]
    assert list(significance.runs_together(n, apart)) == largest


REFUSED = {
    "one task": (lambda: bootstrap.stratified_bootstrap(bootstrap.iqm, [[1, 2, 3]]), "at least 2 tasks and 3 seeds"),
    "two seeds": (lambda: bootstrap.stratified_bootstrap(bootstrap.iqm, np.ones((3, 2))), "3 seeds"),
    "other tasks": (lambda: bootstrap.improvement([[1.0]], [[1.0], [2.0]]), "1 and 2 tasks"),
    "a nan": (lambda: bootstrap.improvement([[np.nan]], [[1.0]]), "expected finite"),
    "other examples": (lambda: significance.mcnemar([1], [1, 0]), "the same"),
    "few blocks": (lambda: significance.ranking({"a": [1], "b": [1], "c": [1]}), "on 5 blocks"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_has_no_answer_is_refused(case: str) -> None:
    refused(*REFUSED[case])
