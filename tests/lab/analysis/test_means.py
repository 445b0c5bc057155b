"""From runs to means over seeds and the frontier: what a configuration is, what counts, and what is refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.refusals import refused
from support.synthetic_runs import write_many, write_synthetic

from tensoradapt.errors import TensorAdaptError
from tensoradapt.lab.analysis import plots
from tensoradapt.lab.analysis.column_types import TYPES
from tensoradapt.lab.analysis.comparisons import compare
from tensoradapt.lab.analysis.paper import paper_table
from tensoradapt.lab.analysis.results import MEANS, complete, frame
from tensoradapt.lab.analysis.statistics.intervals import t_interval
from tensoradapt.lab.analysis.tables import frontier, summarise
from tensoradapt.lab.analysis.verdict import lines
from tensoradapt.lab.sweeps.results import results

CURVES = {"cp": [(1, 100, 0.69), (2, 200, 0.80)], "lora": [(1, 1000, 0.78), (2, 2000, 0.85)]}
CP = "CP (LoRTA)"


def own(*rows: tuple[Any, ...], columns: Sequence[str] = ("seed", "n_params", "score", "method")) -> pd.DataFrame:
    """A table of somebody's runs."""
    return pd.DataFrame(rows, columns=list(columns))


def test_runs_of_one_configuration_are_one_row_over_seeds(tmp_path: Path) -> None:
    runs = write_many(tmp_path, CURVES)
    means = summarise(list(reversed(runs)))
    assert tuple(means.columns) == tuple(MEANS)
    adapters = means[means["kind"] == "adapter"]
    assert list(zip(adapters["method"], adapters["n_params"], strict=True)) == [
        (CP, 100), (CP, 200), ("LoRA", 1000), ("LoRA", 2000),
    ]  # fmt: skip
    for row in adapters.itertuples():
        behind = sorted((run for run in runs if run.row["n_params"] == row.n_params), key=lambda run: run.row["seed"])
        scores = [run.row["score"] for run in behind]
        found = t_interval(scores)
        assert (row.mean, row.low, row.high, row.sd) == pytest.approx((found.mean, found.low, found.high, found.sd))
        assert (row.seeds, row.scores, row.lr) == ((0, 1, 2), tuple(scores), 1e-3)
        assert [run.name for run in behind] == list(row.runs) and [str(run.path) for run in behind] == list(row.paths)


def test_a_folder_runs_and_a_table_give_the_same(tmp_path: Path) -> None:
    runs = write_many(tmp_path, CURVES)
    for source in (tmp_path, str(tmp_path), runs, frame(runs), pd.concat([frame(runs[:7]), frame(runs[7:])])):
        pd.testing.assert_frame_equal(summarise(source), summarise(runs))


def test_the_frontier_is_what_no_other_mean_beats(tmp_path: Path) -> None:
    runs = write_many(tmp_path, CURVES, spread=0.001)
    best = frontier(runs)
    assert list(zip(best["method"], best["rank"], strict=True)) == [(CP, 1), (CP, 2), ("LoRA", 2)]
    means = summarise(runs)
    beaten = means[(means["kind"] == "adapter") & ~means["on_frontier"]].iloc[0]
    assert (beaten["method"], beaten["rank"]) == ("LoRA", 1) and beaten["p_frontier"] < 0.05


@pytest.mark.thorough
@settings(max_examples=20)
@given(st.permutations(range(6)), st.lists(st.sampled_from([0.1, 0.2, 0.3]), min_size=6, max_size=6))
def test_the_order_of_the_runs_does_not_matter(order: list[int], values: list[float]) -> None:
    table = own(*((i % 2, 10 * (1 + i // 2), value, "CP") for i, value in enumerate(values)))
    pd.testing.assert_frame_equal(summarise(table), summarise(table.iloc[order]), check_exact=True)


def test_equal_means_share_the_frontier_and_equal_scores_go_to_fewer_parameters() -> None:
    found = frontier(own((0, 10, 0.5, "A"), (0, 10, 0.5, "B"), (0, 20, 0.5, "C")))
    assert list(found["method"]) == ["A", "B"]


def test_lost_runs_are_results_and_are_counted(tmp_path: Path) -> None:
    for seed, accuracy, status in ((0, 0.8, "finished"), (1, 0.51, "at chance"), (2, 0.9, "diverged")):
        write_synthetic(tmp_path, seed=seed, accuracy=accuracy, status=status)
    (row,) = summarise(tmp_path).itertuples()
    assert row.mean == pytest.approx((0.8 + 0.51 + 0.5) / 3)  # diverged: chance, whatever it predicted
    assert (row.n_lost, row.lost, row.n_seeds) == (2, (False, True, True), 3)


def test_a_configuration_of_lost_runs_is_on_no_frontier(tmp_path: Path) -> None:
    write_synthetic(tmp_path, status="at chance", accuracy=0.9)
    assert frontier(tmp_path).empty and not summarise(tmp_path)["on_frontier"].any()


def test_one_seed_has_no_interval() -> None:
    (row,) = summarise(own((0, 10, 0.5, "A"))).itertuples()
    assert np.isnan([row.low, row.high, row.sd, row.p_frontier]).all() and row.mean == 0.5


def test_a_measured_cost_is_the_median_over_seeds_and_decides_the_frontier(tmp_path: Path) -> None:
    for name, n_params, accuracy, seconds in (("cp", 100, 0.8, (9, 1, 8)), ("lora", 1000, 0.7, (1, 2, 3))):
        for seed, each in enumerate(seconds):
            write_synthetic(
                tmp_path, parameterization=name, n_params=n_params, seed=seed, accuracy=accuracy, seconds=each
            )
    means = summarise(tmp_path, "seconds")
    assert list(zip(means["method"], means["cost"], means["on_frontier"], strict=True)) == [
        ("LoRA", 2, True), (CP, 8, True),
    ]  # fmt: skip
    assert list(frontier(tmp_path)["method"]) == [CP]


def test_runs_that_tuned_are_no_part_of_means(tmp_path: Path) -> None:
    write_synthetic(tmp_path, accuracy=0.8)
    write_synthetic(tmp_path, accuracy=0.7, lr=3e-3, tuning=True)
    assert list(summarise(tmp_path)["mean"]) == [pytest.approx(0.8)]
    every = results(tmp_path, tuning=True)  # runs that tuned have no test score; other runs without one are refused
    assert list(summarise(every)["mean"]) == [pytest.approx(0.8)]
    refused(lambda: summarise(every.assign(tuning=False)), "has score nan; expected a finite number")


def test_a_table_of_ones_own_is_completed() -> None:
    table = complete(
        own((10, 50.0, "full fine-tuning"), (10, 60.0, "A"), (10, 70.0, "A"), columns=("n_params", "test", "method"))
    )
    assert list(table["kind"]) == ["full", "adapter", "adapter"] and table["seed"].isna().all()
    assert list(table["metric"]) == ["score"] * 3 and not table["lost"].any()
    ranked = complete(own((8.0, 1, 0.5, "A"), columns=("rank", "n_params", "score", "method")))
    assert list(ranked["rank"]) == [8] and list(complete(ranked.assign(rank="layer=2 out=4"))["rank"]) == [
        "layer=2 out=4"
    ]


@pytest.mark.parametrize(
    ("table", "says"),
    [
        (
            own((0, 10, 0.5, "A")).rename(columns={"score": "scor"}),
            r"no column 'score'; found .*scor.* meant: table\.rename\(columns=\{'scor': 'score'\}\)",
        ),
        (
            own((0, 10, 0.5, "A")).rename(columns={"n_params": "parameters"}),
            r"no column 'n_params'; found .*rename\(columns=\{'parameters': 'n_params'\}\)",
        ),
        (own((0, 10, 0.5, "A"), (1, 10, None, "A")), "row 1 has score nan; expected a finite number"),
        (own((0, 10, 0.5, " ")), "row 0 has method ' '; expected the name of a method"),
        (own((0, 10, 0.5, "A"), (1, 0.3, 0.5, "A")), "row 1 has n_params 0.3; .* such as 300000 for 0.3 million"),
        (own((0, 10, True, "A")), "row 0 has score True; expected a finite number"),
        (own((0, 10, 0.5, "A")).assign(status="lost"), "row 0 has status 'lost'; expected one of finished, at chance"),
        (own(), "the table has 0 rows; expected one for each run"),
        (own((0, 10, 0.5, "A")).assign(metric="perplexity"), "of 'perplexity' less is better, by its name"),
        (own((0, 10, 0.5, "A"), (0, 10, 0.6, "A")), "A has several runs of one seed: row 0, row 1; expected one run"),
        (own((0, 10, 0.5, "A"), (1, 10, 0.6, "A")).assign(lr=[0.1, 0.2]), "A has runs with learning rates 0.1, 0.2"),
        (own((0, 10, 0.5, "A"), (1, 10, 0.6, "A")).assign(model=["a", "b"]), "have 2 models: a, b; expected one"),
        (pd.concat([own((0, 10, 0.5, "A"))] * 2, axis=1), "the table has two columns 'seed'"),
    ],
)  # fmt: skip
def test_a_table_that_is_none_is_refused_in_one_line(table: pd.DataFrame, says: str) -> None:
    refused(lambda: summarise(table), says)


ODD = (
    *(None, float("nan"), float("inf"), -1, 0, 0.3, 2**70, 1e300, "", "a", "²", "False", "\x00\n$_{", True, 1j, b"x"),
    *(pd.Timestamp("2026"), pd.NaT, pd.NA, [1], (1,), {}, {1: 2}, np.ones(2), np.float64(3), np.timedelta64(1, "s")),
    *(Decimal("0.5"), Decimal("NaN"), Path("x"), pd.Interval(0, 1), object()),
)
USUAL: dict[str, tuple[Any, ...]] = {
    **{
        "method": ("lora", "cp", "frozen base + head"),
        "score": (0.5, 0.6, 0.7),
        "n_params": (10, 20),
        "seed": (0, 1, 2),
    },
    **{"status": ("finished", "at chance", "diverged", "failed"), "kind": ("adapter", "head", "full")},
    **{"rank": (1, 8, "layer=2 out=4"), "task": ("a", "b"), "lr": (1e-3, 1e-2), "tuning": (True, False)},
    **{"steps": (10, 100), "budget": (100, 200), "seconds": (1.0, 2.5), "validation": (0.5, 0.6), "chance": (0.5,)},
    **{"layout": (": out : in", "layer : out : in"), "parameterization": ("lora", "cp"), "losses": ("1 2", "1 x")},
    **{"id": tuple("abcdef"), "forgetting": (0.1, 0.2), "path": ("nowhere",), "sweep": ("", "x")},
}


@st.composite
def tables(draw: st.DrawFn) -> pd.DataFrame:
    """A table of runs, of which any cell may be anything."""
    n = draw(st.integers(1, 6))
    names = ["method", "score", "n_params", *draw(st.sets(st.sampled_from([*TYPES, *USUAL]), max_size=8))]
    columns = {}
    for name in dict.fromkeys(names):
        usual = st.sampled_from(USUAL.get(name, (0.5, 1, "x")))
        cell = draw(st.sampled_from((usual, usual, usual | st.sampled_from(ODD))))
        columns[name] = pd.Series(draw(st.lists(cell, min_size=n, max_size=n)), dtype=object)
    table = pd.DataFrame(columns)
    table = table.infer_objects() if draw(st.booleans()) else table
    return table.set_axis(draw(st.sampled_from(([0] * n, [*range(n)]))))


def _answered(call: Callable[[], object]) -> None:
    """Check that a call gives a result, or one error of one line."""
    try:
        call()
    except TensorAdaptError as error:
        assert "\n" not in str(error)


@settings(deadline=None, max_examples=30)
@given(tables())
def test_any_table_has_an_answer_or_one_clear_line(table: pd.DataFrame) -> None:
    for call in (
        summarise,
        frontier,
        compare,
        paper_table,
        plots.allowed,
        lines,
        lambda own: compare(own, at="n_params"),
    ):
        _answered(lambda call=call: call(table))


def test_a_cost_that_is_unknown_or_was_not_measured_is_refused(tmp_path: Path) -> None:
    runs = write_many(tmp_path, CURVES)
    refused(lambda: summarise(runs, "second"), "cost is 'second'; did you mean \"seconds\"")
    refused(lambda: summarise(runs, "peak_device_bytes"), r"run \w+ has no peak_device_bytes that is a number")
    refused(lambda: summarise(3), "runs is 3; expected a list")


def test_means_of_two_tasks_are_apart(tmp_path: Path) -> None:
    for task, accuracy in (("rte", 0.7), ("sst2", 0.8)):
        for name, n_params in (("cp", 10), ("lora", 100)):
            write_synthetic(tmp_path, task=task, parameterization=name, n_params=n_params, accuracy=accuracy)
    means = summarise(tmp_path)
    assert list(zip(means["task"], means["method"], means["on_frontier"], strict=True)) == [
        ("rte", CP, True), ("rte", "LoRA", False), ("sst2", CP, True), ("sst2", "LoRA", False),
    ]  # fmt: skip
