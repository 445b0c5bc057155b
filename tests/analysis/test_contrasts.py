"""Methods at equal budget: paired as their runs allow, corrected together, never beyond what was run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from support.synthetic_runs import write_many, write_synthetic

from tensoradapt.analysis.old_tables import frontier
from tensoradapt.analysis.old_tables.contrasts import contrasts
from tensoradapt.analysis.statistics.intervals import crossed_p, paired_difference, t_interval
from tensoradapt.analysis.statistics.significance import crossed_paired_p, holm, mcnemar, seeds_needed
from tensoradapt.errors import TensorAdaptError
from tensoradapt.runs.store import load_runs

rng = np.random.default_rng(0)


def at_budgets(root: Path, seeds: tuple[int, ...] = (0, 1, 2), **changes: object) -> None:
    for name, n_params, level in (("lora", 90, 0.7), ("cp", 100, 0.8), ("lora", 900, 0.75), ("cp", 1000, 0.76)):
        for seed in seeds:
            budget, accuracy = 100 if n_params <= 100 else 1000, level + 0.01 * seed
            more = {"budget": budget, "accuracy": accuracy, **changes}
            write_synthetic(root, parameterization=name, n_params=n_params, seed=seed, **more)


def right(root: Path, label: str, budget: int) -> np.ndarray:
    runs = sorted(load_runs(root), key=lambda run: run.row["seed"])
    chosen = [run for run in runs if (run.row["method"], run.row["budget"]) == (label, budget)]
    return np.array([run.predictions().argmax(1) == run.labels() for run in chosen], float)


def test_at_a_shared_budget_runs_are_paired_over_seeds_and_examples(tmp_path: Path) -> None:
    at_budgets(tmp_path)
    found = contrasts(load_runs(tmp_path))
    assert [(one.first, one.second, one.budget) for one in found] == [
        ("CP (LoRTA)", "LoRA", 100), ("CP (LoRTA)", "LoRA", 1000),
    ]  # fmt: skip
    for one in found:
        sides = right(tmp_path, one.first, one.budget), right(tmp_path, one.second, one.budget)
        assert (one.difference, one.p) == (paired_difference(*sides), crossed_paired_p(*sides))
        assert (one.over, len(one.runs)) == ("seeds and test examples", 6)
        assert one.drawn is not None and one.drawn.low < one.difference.mean < one.drawn.high
    assert [one.adjusted for one in found] == pytest.approx(holm([one.p for one in found]).tolist())
    assert found[0].adjusted < 0.05 < found[1].adjusted


def test_one_seed_is_mcnemars_test(tmp_path: Path) -> None:
    at_budgets(tmp_path, seeds=(0,))
    for one in contrasts(load_runs(tmp_path)):
        sides = right(tmp_path, one.first, one.budget)[0], right(tmp_path, one.second, one.budget)[0]
        assert (one.p, one.over) == (mcnemar(*sides), "test examples of one seed")


def test_without_predictions_the_p_value_is_the_paired_t_tests(tmp_path: Path) -> None:
    levels = {"lora": (0.70, 0.72, 0.71), "cp": (0.75, 0.74, 0.79)}
    for name, scores in levels.items():
        for seed, accuracy in enumerate(scores):
            write_synthetic(tmp_path, parameterization=name, seed=seed, accuracy=accuracy, predictions=False)
    (one,) = contrasts(load_runs(tmp_path))
    assert one.p == pytest.approx(stats.ttest_rel(levels["cp"], levels["lora"]).pvalue)
    assert (one.over, one.drawn) == ("seeds", None)


def test_other_sizes_are_interpolated_in_the_log_and_never_extrapolated(tmp_path: Path) -> None:
    curves = {"lora": [(1, 10, 0.6), (2, 1000, 0.7), (4, 10**6, 0.8)], "cp": [(1, 100, 0.7), (2, 10_000, 0.9)]}
    runs = write_many(tmp_path, curves, spread=0.02)
    (one,) = contrasts(runs)
    assert one.budget == 1000  # 10 and 10**6 are beyond what CP ran
    by = {(run.row["method"], run.result["n_params"], run.row["seed"]): run for run in runs}
    apart = [
        (by["CP (LoRTA)", 100, s].result["test"]["accuracy"] + by["CP (LoRTA)", 10_000, s].result["test"]["accuracy"])
        / 2
        - by["LoRA", 1000, s].result["test"]["accuracy"]
        for s in range(3)
    ]
    assert one.difference.mean == pytest.approx(np.mean(apart))
    assert one.p == pytest.approx(stats.ttest_1samp(apart, 0).pvalue)


def test_two_sizes_with_one_number_of_parameters_are_compared_with_nothing_and_stop_nothing(tmp_path: Path) -> None:
    curves = {
        "lora": [(1, 10, 0.6), (2, 50, 0.7), (4, 500, 0.8), (8, 5000, 0.8)],
        "tucker": [({"in": 1}, 10, 0.6), ({"in": 2}, 100, 0.6), ({"out": 2}, 100, 0.8), ({"in": 4}, 900, 0.9),
                   ({"in": 8}, 9000, 0.9)],
    }  # fmt: skip
    for name, rank, n_params, level in ((name, *one) for name, curve in curves.items() for one in curve):
        for seed in range(3):
            same = {"rank": rank, "n_params": n_params, "budget": None, "seed": seed}
            write_synthetic(tmp_path, parameterization=name, accuracy=level + 0.01 * seed, **same)
    runs = load_runs(tmp_path)
    assert [one.budget for one in contrasts(runs)] == [10, 5000]  # 50 and 500 are beside the two of 100
    labels = {run.name: run.result["n_params"] for run in runs}
    assert {labels[name] for name in contrasts(runs)[-1].runs} == {900, 9000, 5000}
    assert [one.budget for one in contrasts(runs, "Tucker")] == [10, 900]


def test_a_diverged_run_counts_as_chance(tmp_path: Path) -> None:
    at_budgets(tmp_path)
    at_budgets(tmp_path / "lost", status="diverged")
    for one in contrasts([*load_runs(tmp_path / "lost")]):
        assert (one.difference.mean, one.p) == (0, 1)


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


def test_the_reference_is_lora_or_the_method_with_the_most_sizes_or_the_one_named(tmp_path: Path) -> None:
    at_budgets(tmp_path / "a")
    for spelling in ("CP (LoRTA)", "cp", "CP"):
        assert {one.second for one in contrasts(load_runs(tmp_path / "a"), spelling)} == {"CP (LoRTA)"}
    with pytest.raises(TensorAdaptError, match="reference is 'LoRAs'; did you mean \"LoRA\""):
        contrasts(load_runs(tmp_path / "a"), "LoRAs")
    curves = {"tt": [(1, 10, 0.6), (2, 100, 0.7)], "cp": [(1, 10, 0.7), (2, 50, 0.7), (4, 100, 0.9)]}
    assert {one.second for one in contrasts(write_many(tmp_path / "b", curves))} == {"CP (LoRTA)"}


def test_one_method_is_compared_with_nothing(tmp_path: Path) -> None:
    runs = write_many(tmp_path, {"cp": [(1, 10, 0.7)]})
    assert contrasts(runs) == [] != frontier.points(runs)


@pytest.mark.parametrize("n_comparisons", [1, 21])
def test_as_many_seeds_as_are_needed_hold_and_one_fewer_do_not(n_comparisons: int) -> None:
    needed = seeds_needed(t_interval([0.01, 0.02, 0.03]), n_comparisons)
    assert needed is not None and needed > 3
    for n, holds in ((needed - 1, False), (needed, True)):
        spread = np.linspace(-1, 1, n)
        same = 0.02 + 0.01 * spread / spread.std(ddof=1)  # the same mean and deviation from n seeds
        assert (stats.ttest_1samp(same, 0).pvalue < 0.05 / n_comparisons) == holds


def test_no_number_of_seeds_decides_a_difference_of_nothing() -> None:
    assert seeds_needed(t_interval([-0.01, 0.0, 0.01])) is None
    assert seeds_needed(t_interval([0.5])) is None
    assert seeds_needed(t_interval([0.5, 0.5, 0.5])) == 2
