"""Every configuration against a reference: paired as the runs allow, corrected together, never beyond what was run."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from support.refusals import refused
from support.synthetic_runs import sum_again, write_many, write_synthetic

from tensoradapt.lab.analysis.comparisons import compare
from tensoradapt.lab.analysis.results import COMPARED
from tensoradapt.lab.analysis.statistics.intervals import crossed_p, paired_difference, t_interval
from tensoradapt.lab.analysis.statistics.significance import crossed_paired_p, holm, mcnemar, seeds_needed
from tensoradapt.lab.runs.store import load_runs

CP = "CP (LoRTA)"


def at_budgets(root: Path, seeds: tuple[int, ...] = (0, 1, 2), **changes: object) -> None:
    for name, n_params, level in (("lora", 90, 0.7), ("cp", 100, 0.8), ("lora", 900, 0.75), ("cp", 1000, 0.76)):
        for seed in seeds:
            budget, accuracy = 100 if n_params <= 100 else 1000, level + 0.01 * seed
            more = {"budget": budget, "accuracy": accuracy, **changes}
            write_synthetic(root, parameterization=name, n_params=n_params, seed=seed, **more)


def right(root: Path, method: str, budget: int) -> np.ndarray:
    runs = sorted(load_runs(root), key=lambda run: run.row["seed"])
    chosen = [run for run in runs if (run.row["method"], run.row["budget"]) == (method, budget)]
    return np.array([run.array("predictions").argmax(1) == run.array("labels") for run in chosen], float)


def scored(**levels: tuple[float, ...]) -> pd.DataFrame:
    """A table of somebody's runs, one size of each method; LoRA has rank 8."""
    rows = [
        (m, 8 if m == "lora" else 1, 80 if m == "lora" else 10, s, x)
        for m, own in levels.items()
        for s, x in enumerate(own)
    ]
    return pd.DataFrame(rows, columns=["method", "rank", "n_params", "seed", "score"])


def test_at_a_shared_budget_runs_are_paired_over_seeds_and_examples(tmp_path: Path) -> None:
    at_budgets(tmp_path)
    found = compare(tmp_path)
    assert tuple(found.columns) == tuple(COMPARED)
    assert list(zip(found["method"], found["reference"], found["budget"], strict=True)) == [
        (CP, "LoRA", 100), (CP, "LoRA", 1000),
    ]  # fmt: skip
    for one in found.itertuples():
        sides = right(tmp_path, one.method, one.budget), right(tmp_path, one.reference, one.budget)
        expected = paired_difference(*sides)
        assert (one.difference, one.low, one.high, one.sd) == (expected.mean, expected.low, expected.high, expected.sd)
        assert (one.p, one.over, len(one.runs)) == (crossed_paired_p(*sides), "seeds and test examples", 6)
    assert list(found["p_holm"]) == pytest.approx(holm(found["p"]).tolist())
    assert list(found["decided"]) == [True, False]
    assert list(found["times_fewer"]) == [90 / 100, 900 / 1000]


def test_holms_correction_is_over_all_comparisons_of_a_task_and_no_others(tmp_path: Path) -> None:
    for task in ("rte", "sst2"):
        at_budgets(tmp_path, task=task)
    found = compare(tmp_path)
    for _, own in found.groupby("task"):
        assert list(own["p_holm"]) == pytest.approx(holm(own["p"]).tolist()) and len(own) == 2


def test_one_seed_is_mcnemars_test(tmp_path: Path) -> None:
    at_budgets(tmp_path, seeds=(0,))
    for one in compare(tmp_path).itertuples():
        sides = right(tmp_path, one.method, one.budget)[0], right(tmp_path, one.reference, one.budget)[0]
        assert (one.p, one.over) == (mcnemar(*sides), "test examples of one seed")


def test_without_test_examples_the_p_value_is_the_paired_t_tests() -> None:
    levels = {"lora": (0.70, 0.72, 0.71), "cp": (0.75, 0.74, 0.79)}
    (one,) = compare(scored(**levels)).itertuples()
    assert one.p == pytest.approx(stats.ttest_rel(levels["cp"], levels["lora"]).pvalue) and one.over == "seeds"


@pytest.mark.parametrize("margin", [0.001, 0.01, 0.1])
def test_within_the_margin_is_the_one_sided_test_of_non_inferiority(margin: float) -> None:
    levels = {"lora": (0.70, 0.72, 0.71), "cp": (0.71, 0.70, 0.71), "vera": (0.5, 0.5, 0.6)}
    for one in compare(scored(**levels), margin=margin).itertuples():
        shifted = np.subtract(levels[one.method], levels["lora"]) + margin
        assert one.p_within == pytest.approx(stats.ttest_1samp(shifted, 0, alternative="greater").pvalue)
    (alone,) = compare(scored(lora=levels["lora"], cp=levels["cp"]), margin=margin).itertuples()
    assert alone.within == (alone.low > -margin)  # one comparison: the interval's lower end


def test_seeds_that_one_side_did_not_run_are_not_compared(tmp_path: Path) -> None:
    write_synthetic(tmp_path, kind="full", seed=1, accuracy=0.9)
    for seed in (0, 1):
        write_synthetic(tmp_path, seed=seed, accuracy=0.8, n_params=10)
    write_synthetic(tmp_path, seed=0, n_params=20)
    (one,) = compare(tmp_path, "full").itertuples()
    assert (one.n_seeds, one.difference, one.n_params) == (1, pytest.approx(-0.1), 10)


@pytest.mark.parametrize("named", ["head", "frozen base + head", "Frozen Base + Head"])
def test_a_reference_may_be_no_adapter(tmp_path: Path, named: str) -> None:
    write_many(tmp_path, {"cp": [(1, 10, 0.7), (2, 20, 0.8)]})
    found = compare(tmp_path, named)
    assert list(found["n_params"]) == [10, 20] and set(found["reference"]) == {"frozen base + head"}


def test_other_sizes_are_interpolated_in_the_logarithm_and_never_extrapolated(tmp_path: Path) -> None:
    curves = {"lora": [(1, 10, 0.6), (2, 1000, 0.7), (4, 10**6, 0.8)], "cp": [(1, 100, 0.7), (2, 10_000, 0.9)]}
    runs = write_many(tmp_path, curves, spread=0.02)
    (one,) = compare(runs, at="n_params").itertuples()
    assert one.n_params == 1000  # 10 and 10**6 are beyond what CP ran
    by = {(run.row["method"], run.row["n_params"], run.row["seed"]): run.row["score"] for run in runs}
    apart = [(by[CP, 100, s] + by[CP, 10_000, s]) / 2 - by["LoRA", 1000, s] for s in range(3)]
    assert one.difference == pytest.approx(np.mean(apart))
    assert one.p == pytest.approx(stats.ttest_1samp(apart, 0).pvalue)


def test_a_diverged_run_counts_as_chance(tmp_path: Path) -> None:
    at_budgets(tmp_path, status="diverged")
    for one in compare(tmp_path).itertuples():
        assert (one.difference, one.p) == (0, 1)


def test_the_reference_is_lora_or_the_method_with_the_most_sizes_or_the_one_named(tmp_path: Path) -> None:
    at_budgets(tmp_path / "a")
    for spelling in (CP, "cp (lorta)", "CP(LoRTA)"):
        assert set(compare(tmp_path / "a", spelling)["reference"]) == {CP}
    refused(lambda: compare(tmp_path / "a", "LoRAs"), "reference is 'LoRAs'; did you mean \"LoRA\"")
    curves = {"tt": [(1, 10, 0.6), (2, 100, 0.7)], "cp": [(1, 10, 0.7), (2, 50, 0.7), (4, 100, 0.9)]}
    assert set(compare(write_many(tmp_path / "b", curves))["reference"]) == {CP}


@pytest.mark.parametrize(("wrong", "says"), [
    ({"at": "rank"}, "at is 'rank'; expected a rank, or one of auto, budget, size, n_params"),
    ({"at": 0}, "at is 0; expected a rank"),
    ({"margin": 0}, "margin is 0; expected a difference in score above 0"),
])  # fmt: skip
def test_what_cannot_be_compared_is_refused(wrong: dict[str, object], says: str) -> None:
    refused(lambda: compare(scored(lora=(0.7, 0.8), cp=(0.8, 0.9)), **wrong), says)  # type: ignore[arg-type]


def test_runs_of_other_test_labels_are_refused(tmp_path: Path) -> None:
    write_synthetic(tmp_path, kind="head")
    path = write_synthetic(tmp_path)
    np.save(path / "labels.npy", np.zeros(200, int))
    sum_again(path)
    refused(lambda: compare(tmp_path, "head"), "have different test labels; expected one test set")


def test_a_p_value_is_below_a_level_where_the_interval_leaves_nothing_out() -> None:
    for seed in range(40):
        own = np.random.default_rng(seed)
        a, b = (own.random((3, 40)) < level for level in (0.6 + 0.01 * seed, 0.6))
        found = paired_difference(a, b)
        assert (crossed_p(a, b) < 0.05) == (not found.low <= 0 <= found.high)
    assert crossed_p([[1.0, 1.0]], [[0.0, 0.0]]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("between_seeds", [0, 0.02, 0.05, 0.1])
def test_p_values_keep_their_level_far_in_the_tail(between_seeds: float) -> None:
    """Three seeds, 300 examples, no difference: whatever the share of the seeds, and where Holm's correction looks."""
    own = np.random.default_rng(1)
    found, model = [], []
    for _ in range(5000):
        seeds, examples = between_seeds * own.normal(size=(3, 1)), 0.3 * own.normal(size=(1, 300))
        apart = seeds + examples + 0.4 * own.normal(size=(3, 300))
        found.append(crossed_paired_p(apart, np.zeros_like(apart)))
        model.append(crossed_p(apart, np.zeros_like(apart)))
    for level in (0.05, 0.01, 0.0024):
        assert np.mean(np.array(found) < level) < level + 3 * np.sqrt(level / 5000)
    if between_seeds == 0.1:  # the model alone does not
        assert np.mean(np.array(model) < 0.0024) > 4 * 0.0024


@pytest.mark.parametrize("n_comparisons", [1, 21])
def test_as_many_seeds_as_are_needed_hold_and_one_fewer_do_not(n_comparisons: int) -> None:
    needed = seeds_needed(t_interval([0.01, 0.02, 0.03]), n_comparisons)
    assert needed is not None and needed > 3
    for n, holds in ((needed - 1, False), (needed, True)):
        spread = np.linspace(-1, 1, n)
        same = 0.02 + 0.01 * spread / spread.std(ddof=1)  # the same mean and deviation from n seeds
        assert (stats.ttest_1samp(same, 0).pvalue < 0.05 / n_comparisons) == holds


def _spread(sd: float, n: int) -> np.ndarray:
    """n numbers of mean 0 with a standard deviation."""
    line = np.linspace(-1, 1, n)
    return sd * line / line.std(ddof=1)


def _apart(mean: float, seeds: int) -> np.ndarray:
    """Differences of (seeds, examples) that deviate by 0.01 over seeds and by 0.3 over 4,000 examples."""
    return mean + _spread(0.01, seeds)[:, None] + _spread(0.3, 4000)


@pytest.mark.parametrize(("mean", "n_comparisons"), [(0.012, 1), (0.0165, 21)])
def test_as_many_seeds_as_are_needed_hold_over_new_examples_too(mean: float, n_comparisons: int) -> None:
    measured = paired_difference(_apart(mean, 3), np.zeros((3, 4000)))
    assert measured.sd_examples == pytest.approx(0.3 / math.sqrt(4000))
    needed = seeds_needed(measured, n_comparisons)
    alone = seeds_needed(replace(measured, sd_examples=0.0), n_comparisons)
    assert needed is not None and alone is not None and needed > alone
    for n, holds in ((needed - 1, False), (needed, True)):
        found = crossed_paired_p(_apart(mean, n), np.zeros((n, 4000)))
        assert (found < 0.05 / n_comparisons) == holds


def _at(mean: float, n: int) -> pd.DataFrame:
    """Runs of LoRA without spread and of CP, whose n seeds have this mean difference and the deviation 0.004."""
    spread = np.linspace(-1, 1, n)
    cp = 0.8 + mean + 0.004 * spread / spread.std(ddof=1)
    columns = {"method": ["lora"] * n + ["cp"] * n, "seed": [*range(n)] * 2, "n_params": [9000] * n + [1000] * n}
    return pd.DataFrame({**columns, "score": [*[0.8] * n, *cp]})


@pytest.mark.parametrize("margin", [0.005, 0.01])
def test_as_many_seeds_as_within_takes_are_within_the_margin_and_one_fewer_are_not(margin: float) -> None:
    (gap,) = compare(_at(-0.6 * margin, 3), margin=margin).itertuples()
    assert gap.seeds_within > 3
    for n, within in ((gap.seeds_within - 1, False), (gap.seeds_within, True)):
        (one,) = compare(_at(-0.6 * margin, n), margin=margin).itertuples()
        assert one.within == within and one.seeds_within == gap.seeds_within


@pytest.mark.parametrize(
    ("reference", "same"),
    [
        ((0.75, 0.5), (0.8125, 0.5625)),
        ((0.75, 0.5, 0.625), (0.8125, 0.5625, 0.6875)),
        ((0.81, 0.83, 0.82), (0.84, 0.86, 0.85)),  # equal but for rounding
    ],
)
def test_seeds_that_differ_by_just_the_same_have_the_sign_tests_p(
    reference: tuple[float, ...], same: tuple[float, ...]
) -> None:
    """Scores of few examples often do by chance, where the t test would find p = 0."""
    (one,) = compare(scored(lora=reference, cp=same)).itertuples()
    assert one.p == stats.binomtest(0, len(same)).pvalue and not one.decided and one.seeds_needed == 6
    assert one.p_within == stats.binomtest(0, len(same), alternative="less").pvalue and not one.within


@pytest.mark.parametrize("margin", [0.01, 0.02, 0.05])
@pytest.mark.parametrize("reference", [0.57, 0.5, 0.7])
def test_a_difference_of_rounding_alone_is_none_and_a_loss_of_just_the_margin_is_not_within_it(
    margin: float, reference: float
) -> None:
    lost = (reference - margin,) * 8
    same, just = compare(
        scored(lora=(reference,) * 8, cp=(reference + 1e-16,) * 8, vera=lost), margin=margin
    ).itertuples()
    assert same.p == 1 and not same.decided and same.within
    assert just.p_within >= 0.5 and not just.within


def test_nothing_is_within_a_reference_at_chance_nor_is_a_method_at_chance_within_one(tmp_path: Path) -> None:
    for seed in range(8):
        write_synthetic(tmp_path, parameterization="lora", seed=seed, accuracy=0.5, n_params=9000, status="at chance")
        write_synthetic(tmp_path, seed=seed, accuracy=0.5, n_params=100, status="at chance")
    (one,) = compare(tmp_path, margin=0.3).itertuples()
    assert one.p_within == 1 and not one.within and one.seeds_within is pd.NA


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: holm([0.1, 1.2]), r"p is \[0.1, 1.2\]; expected p values \(m,\), each between 0 and 1"),
        (lambda: holm([0.1, math.nan]), r"p is \[0.1, nan\]; expected p values \(m,\), each between 0 and 1"),
        (lambda: holm([[0.1]]), r"expected p values \(m,\)"),
        (lambda: seeds_needed(t_interval([0.1, 0.2]), 0), "n_comparisons is 0 and level 0.05; expected 1 or more"),
        (lambda: seeds_needed(t_interval([0.1, 0.2]), level=5), "level 5; expected .* a share such as 0.05"),
    ],
)
def test_what_is_no_p_value_or_level_is_refused(call: Callable[[], object], says: str) -> None:
    refused(call, says)
