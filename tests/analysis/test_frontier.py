"""From runs to points, the frontier and its table."""

from __future__ import annotations

import csv
import shutil
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from support.checksums import sum_again
from support.synthetic_runs import write_many, write_synthetic

import tensoradapt.analysis.old_tables.frontier as analysis
from tensoradapt.analysis.old_tables.comparable import versus
from tensoradapt.analysis.statistics.intervals import t_interval
from tensoradapt.errors import TensorAdaptError
from tensoradapt.runs.row import COLUMNS
from tensoradapt.runs.store import Run, load_runs

CURVES = {"cp": [(1, 100, 0.69), (2, 200, 0.80)], "lora": [(1, 1000, 0.78), (2, 2000, 0.85)]}


def run(seed: int, n_params: int, score: float, label: str = "CP") -> Run:
    """A run that exists in memory only and stored no predictions."""
    config = {"kind": "adapter", "method": label, "rank": 1, "seed": seed, "model": "m", "task": "t", "lr": 0.1}
    result = {"status": "finished", "n_params": n_params, "metric": "mcc", "chance": 0.0, "test": score}
    return Run(f"{label}-{n_params}-{seed}", Path("absent"), {**dict.fromkeys(COLUMNS), **config, **result})


def test_runs_of_one_configuration_become_one_point_over_seeds(tmp_path: Path) -> None:
    runs = write_many(tmp_path, CURVES)
    found = analysis.points(reversed(runs))
    assert [(point.method, point.n_params) for point in found] == [
        ("CP (LoRTA)", 100), ("CP (LoRTA)", 200), ("LoRA", 1000), ("LoRA", 2000),
    ]  # fmt: skip
    for point in found:
        scores = [r.row["test"] for r in runs if r.row["n_params"] == point.n_params]
        assert astuple(point.interval) == pytest.approx(astuple(t_interval(scores)))
        assert (point.seeds, point.metric, point.lr) == ((0, 1, 2), "accuracy", 1e-3)
        assert point.layout == "layer proj : head dim : model"


def test_the_frontier_is_what_no_other_point_beats(tmp_path: Path) -> None:
    runs = write_many(tmp_path, CURVES, spread=0.001)
    assert [(point.method, point.rank) for point in analysis.frontier(runs)] == [
        ("CP (LoRTA)", 1), ("CP (LoRTA)", 2), ("LoRA", 2),
    ]  # fmt: skip
    beaten = next(point for point in analysis.points(runs) if not point.on_frontier)
    assert (beaten.method, beaten.rank) == ("LoRA", 1)
    assert beaten.p_frontier < 0.05


@settings(max_examples=30)
@given(st.permutations(range(6)), st.lists(st.sampled_from([0.1, 0.2, 0.3]), min_size=6, max_size=6))
def test_the_order_of_the_runs_does_not_matter(order: list[int], values: list[float]) -> None:
    runs = [run(i % 2, 10 * (1 + i // 2), value) for i, value in enumerate(values)]
    assert analysis.table(runs) == analysis.table([runs[i] for i in order])


def test_equal_points_share_the_frontier_and_equal_scores_go_to_fewer_parameters() -> None:
    found = analysis.frontier([run(0, 10, 0.5, "A"), run(0, 10, 0.5, "B"), run(0, 20, 0.5, "C")])
    assert [point.method for point in found] == ["A", "B"]


def test_lost_runs_are_results_and_are_counted(tmp_path: Path) -> None:
    for seed, accuracy, status in ((0, 0.8, "finished"), (1, 0.51, "at chance"), (2, 0.9, "diverged")):
        write_synthetic(tmp_path, seed=seed, accuracy=accuracy, status=status)
    (point,) = analysis.points(load_runs(tmp_path))
    assert point.interval.mean == pytest.approx((0.8 + 0.51 + 0.5) / 3)  # diverged: chance, whatever it predicted
    assert (point.n_at_chance, point.n_diverged, point.interval.n) == (1, 1, 3)


def test_a_diverged_run_counts_as_chance_example_by_example(tmp_path: Path) -> None:
    write_synthetic(tmp_path, kind="head", accuracy=0.7)
    write_synthetic(tmp_path, accuracy=0.9, status="diverged")
    (point,) = analysis.points(load_runs(tmp_path))
    assert point.vs_head is not None
    assert point.vs_head.mean == pytest.approx(0.5 - 0.7)


def test_the_difference_to_the_head_is_paired_by_example(tmp_path: Path) -> None:
    write_synthetic(tmp_path, kind="head", accuracy=0.7)
    write_synthetic(tmp_path, accuracy=0.8)
    runs = load_runs(tmp_path)
    (point,) = analysis.points(runs)
    head, adapter = sorted(runs, key=lambda r: r.row["n_params"])
    right = [(r.predictions().argmax(1) == r.labels()).astype(float) for r in (adapter, head)]
    oracle = scipy.stats.ttest_rel(*right)
    assert point.vs_head is not None
    np.testing.assert_allclose([point.vs_head.low, point.vs_head.high], oracle.confidence_interval())
    assert point.vs_head.mean == pytest.approx(0.1)
    assert point.vs_full is None


def test_runs_of_one_name_in_two_folders_are_two_runs(tmp_path: Path) -> None:
    """As of one configuration with two versions: each has its own answers, also once they are rewritten."""
    for folder, accuracy in (("old", 0.7), ("new", 0.8), ("new", 0.9)):
        shutil.rmtree(tmp_path / folder, ignore_errors=True)
        write_synthetic(tmp_path / folder, accuracy=accuracy)
        old, new = (load_runs(tmp_path / name) for name in ("old", folder))
        found = versus(new, old)
        assert found is not None and [run.name for run in old] == [run.name for run in new]
        assert found.mean == pytest.approx(accuracy - 0.7)


def test_without_predictions_the_difference_is_paired_by_seed(tmp_path: Path) -> None:
    for seed, head, adapter in ((0, 0.70, 0.80), (1, 0.71, 0.79), (2, 0.69, 0.83), (3, 0.7, None)):
        write_synthetic(tmp_path, kind="head", seed=seed, accuracy=head, predictions=False)
        if adapter is not None:
            write_synthetic(tmp_path, seed=seed, accuracy=adapter, predictions=False)
    (point,) = analysis.points(load_runs(tmp_path))
    oracle = scipy.stats.ttest_rel([0.80, 0.79, 0.83], [0.70, 0.71, 0.69]).confidence_interval()
    assert point.vs_head is not None
    np.testing.assert_allclose([point.vs_head.low, point.vs_head.high], oracle, rtol=1e-9)


def test_seeds_the_reference_did_not_run_are_not_compared(tmp_path: Path) -> None:
    write_synthetic(tmp_path, kind="full", seed=1, accuracy=0.9)
    for seed in (0, 1):
        write_synthetic(tmp_path, seed=seed, accuracy=0.8, n_params=10)
    write_synthetic(tmp_path, seed=0, n_params=20)
    shared, none = analysis.points(load_runs(tmp_path))
    assert shared.vs_full is not None
    assert (shared.vs_full.n, shared.vs_full.mean) == (1, pytest.approx(-0.1))
    assert none.vs_full is None


def test_references_are_intervals_of_the_runs_that_exist(tmp_path: Path) -> None:
    runs = write_many(tmp_path, {}, full=None)
    assert list(analysis.references(runs)) == ["head"]
    assert analysis.references(runs)["head"].n == 3
    assert analysis.points(runs) == analysis.frontier(runs) == []


def test_the_table_has_every_point_and_then_the_references(tmp_path: Path) -> None:
    rows = analysis.table(write_many(tmp_path, CURVES, spread=0.001))
    assert [row["method"] for row in rows] == ["CP (LoRTA)"] * 2 + ["LoRA"] * 2 + [
        "frozen base + head",
        "full fine-tuning",
    ]
    assert [row["n_params"] for row in rows] == [100, 200, 1000, 2000, 0, 10_000_000]
    assert all(tuple(row) == analysis.COLUMNS for row in rows)
    assert [row["above_head"] for row in rows] == [False, True, True, True, None, True]
    assert [row["diff_head"] for row in rows][-2:] == [None, pytest.approx(0.2, abs=0.01)]
    assert all(row["mean"] == float(f"{row['mean']:.6g}") for row in rows)


def test_the_csv_reads_back_as_the_table_and_is_the_same_every_time(tmp_path: Path) -> None:
    runs = write_many(tmp_path / "runs", {"tucker": [({"head": 2, "dim": 4}, 10, 0.8)]}, seeds=[0], full=None)
    first = analysis.write_csv(runs, tmp_path / "out" / "a.csv")
    second = analysis.write_csv(runs[::-1], tmp_path / "out" / "b.csv")
    assert first.read_bytes() == second.read_bytes()
    with first.open(newline="") as file:
        rows = list(csv.DictReader(file))
    expected = [{k: "" if v is None else str(v) for k, v in row.items()} for row in analysis.table(runs)]
    assert rows == expected
    assert (rows[0]["rank"], rows[0]["low"], rows[0]["p_frontier"]) == ("dim=4 head=2", "", "")


def test_a_measured_cost_is_the_median_over_seeds_and_decides_the_frontier(tmp_path: Path) -> None:
    for label, n_params, accuracy, seconds in (("cp", 100, 0.8, (9, 1, 8)), ("lora", 1000, 0.7, (1, 2, 3))):
        for seed, own in enumerate(seconds):
            write_synthetic(
                tmp_path, parameterization=label, n_params=n_params, seed=seed, accuracy=accuracy, seconds=own
            )
    found = analysis.points(load_runs(tmp_path), "seconds")
    assert [(point.method, point.cost, point.on_frontier) for point in found] == [
        ("LoRA", 2, True), ("CP (LoRTA)", 8, True),
    ]  # fmt: skip
    assert [point.method for point in analysis.frontier(load_runs(tmp_path))] == ["CP (LoRTA)"]
    assert [row["cost"] for row in analysis.table(load_runs(tmp_path), "seconds")] == [2, 8]


def test_every_point_leads_back_to_its_runs(tmp_path: Path) -> None:
    runs = write_many(tmp_path, CURVES)
    by_name = {run.name: run for run in runs}
    for row in analysis.table(runs):
        behind = [by_name[name] for name in row["runs"].split()]
        assert len(behind) == row["n_seeds"]
        mean = sum(run.row["test"] for run in behind) / 3
        assert (row["mean"], row["budget"]) == (pytest.approx(mean, rel=1e-5), behind[0].row["budget"])


def test_a_cost_that_is_unknown_or_was_not_measured_is_refused(tmp_path: Path) -> None:
    runs = write_many(tmp_path, CURVES)
    with pytest.raises(TensorAdaptError, match="cost is 'second'; did you mean \"seconds\""):
        analysis.points(runs, "second")
    with pytest.raises(TensorAdaptError, match=r"has no peak_device_bytes; expected it in .*measurements\.json"):
        analysis.points(runs, "peak_device_bytes")


def test_runs_that_do_not_compare_are_refused(tmp_path: Path) -> None:
    write_synthetic(tmp_path)
    write_synthetic(tmp_path, task="sst2", seed=1)
    with pytest.raises(TensorAdaptError, match="the runs have 2 tasks: rte, sst2; expected one"):
        analysis.points(load_runs(tmp_path))


def test_two_learning_rates_in_one_point_are_refused(tmp_path: Path) -> None:
    write_synthetic(tmp_path)
    write_synthetic(tmp_path, lr=3e-3, seed=1)
    with pytest.raises(TensorAdaptError, match=r"CP \(LoRTA\) r=4 has runs with learning rates 0.001, 0.003; expected"):
        analysis.points(load_runs(tmp_path))


def test_two_runs_of_one_seed_are_refused_by_name(tmp_path: Path) -> None:
    first, second = write_synthetic(tmp_path), write_synthetic(tmp_path, steps=200)
    with pytest.raises(TensorAdaptError, match="several runs of one seed: ") as caught:
        analysis.points(load_runs(tmp_path))
    assert first.name in str(caught.value)
    assert second.name in str(caught.value)


def test_a_run_without_a_score_is_named() -> None:
    broken = run(0, 10, 0.5)
    broken.row["test"] = None
    with pytest.raises(TensorAdaptError, match=r"run CP-10-0 \(finished\) has no test mcc; expected a number in"):
        analysis.points([broken])


def test_different_test_sets_are_refused(tmp_path: Path) -> None:
    write_synthetic(tmp_path, kind="head")
    path = write_synthetic(tmp_path)
    np.save(path / "labels.npy", np.zeros(200, int))
    sum_again(path)
    with pytest.raises(TensorAdaptError, match="have different test labels; expected one test set"):
        analysis.points(load_runs(tmp_path))
