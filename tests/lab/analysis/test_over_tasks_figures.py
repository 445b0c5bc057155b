"""The figure over tasks: gains and interquartile means follow their definitions, and its words what is shown."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from support.figures import drawn, faults
from support.refusals import refused

from tensoradapt.lab.analysis.results import table_of

aggregates = importlib.import_module("tensoradapt.lab.analysis.plots.aggregates")
LEVELS = {"lora": 0.70, "cp": 0.74, "metatt-4d": 0.701, "vera": 0.6}
SEEDS = range(4)


def made(tasks: int = 5, levels: Mapping[str, float] = LEVELS, noise: float = 0.01) -> pd.DataFrame:
    """Two sizes of each method on each task; chance differs between tasks."""
    rng = np.random.default_rng(0)
    rows = [
        {"task": f"task {t}", "method": method, "rank": rank, "n_params": 100 * rank + len(method), "seed": seed}
        | {"score": level + 0.02 * i + 0.03 * np.sin(t) + noise * rng.normal(), "metric": "accuracy", "chance": t / 10}
        for t in range(tasks)
        for method, level in levels.items()
        for i, rank in enumerate((2, 8))
        for seed in SEEDS
    ]
    return table_of(pd.DataFrame(rows))


def gains(runs: pd.DataFrame, method: str, rank: int) -> np.ndarray:
    """(score - chance) / (1 - chance), (tasks, seeds)."""
    own = runs[(runs["method"] == method) & (runs["rank"] == rank)].sort_values(["task", "seed"])
    shares = (own["score"] - own["chance"]) / (1 - own["chance"])
    return shares.to_numpy(float).reshape(-1, len(SEEDS))


def test_a_row_is_the_middle_half_of_all_gains_and_the_share_of_pairs_that_are_won() -> None:
    runs = made()
    rows = aggregates.rows(runs)
    assert len(rows) == 8 and set(rows["reference"]) == {"lora"} and set(rows["tasks"]) == {5}
    for _, row in rows.iterrows():
        rank = int(row["size"].removeprefix("r="))
        own, other = gains(runs, row["method"], rank), gains(runs, "lora", rank)
        assert row["iqm"] == pytest.approx(stats.trim_mean(own, 0.25, axis=None))
        assert row["low"] < row["iqm"] < row["high"]
        if row["method"] == "lora":
            assert np.isnan(row["better"]) and not row["decided"]
        else:
            won = [stats.mannwhitneyu(a, b).statistic / len(SEEDS) ** 2 for a, b in zip(own, other, strict=True)]
            assert row["better"] == pytest.approx(np.mean(won))
        assert len(row["runs"]) == own.size


def test_what_differs_measurably_is_said_and_bold() -> None:
    rows = aggregates.rows(made())
    assert set(rows.loc[rows["decided"], "method"]) == {"cp", "vera"}, "MetaTT-4D is as good as LoRA"
    said = aggregates.headline(rows)
    assert (
        said.startswith("Runs of CP r=2 (")
        and " beat those of LoRA, and runs of VeRA r=2 (0 %) and VeRA r=8 (0 %) lose" in said
    )
    ax = drawn(aggregates, rows)
    assert sum(text.get_weight() == "bold" for text in ax.texts) == rows["decided"].sum() == 4
    same = aggregates.rows(made(levels=dict.fromkeys(LEVELS, 0.7)))
    assert aggregates.headline(same) == "Over 5 tasks no method differs measurably from LoRA of its size"


@pytest.mark.parametrize("width", [3.3, 7])
def test_no_text_overlaps_or_is_cut(width: float) -> None:
    ax = drawn(aggregates, aggregates.rows(made(tasks=9)), width)
    assert not faults(ax.figure)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: aggregates.rows(made(tasks=1)), "the runs are of task 0; expected those of two tasks or more"),
        (lambda: aggregates.rows(made(), reference="cpp"), "reference is 'cpp'; did you mean \"cp\""),
        (lambda: aggregates.rows(made().assign(chance=None)), "task task 0 has no chance, the score of a constant"),
    ],
)
def test_what_has_no_answer_is_refused(call: Callable[[], object], says: str) -> None:
    refused(call, says)
