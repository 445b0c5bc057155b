"""Figures over tasks: gains, interquartile means and mean ranks follow their definitions, and say what is decided."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from support.figures import drawn, faults, lines, shown
from support.refusals import refused

from tensoradapt.lab.analysis.results import table_of

aggregates, ranking = (
    importlib.import_module(f"tensoradapt.lab.analysis.plots.{name}") for name in ("aggregates", "ranking")
)
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


def test_what_is_decided_is_said_and_bold() -> None:
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
    assert aggregates.headline(same) == "Over 5 tasks nothing is decided against LoRA"


def test_ranks_are_means_over_tasks_and_cliques_join_what_is_not_told_apart() -> None:
    runs = made(tasks=9)
    rows = ranking.rows(runs)
    means = np.array([np.mean([gains(runs, m, r).mean(1) for r in (2, 8)], axis=0) for m in LEVELS])
    wanted = dict(zip(LEVELS, stats.rankdata(-means, axis=0).mean(1), strict=True))
    assert dict(zip(rows["method"], rows["rank"], strict=True)) == pytest.approx(wanted)
    assert rows["friedman_p"].iloc[0] == pytest.approx(stats.friedmanchisquare(*means).pvalue)
    assert [[rows["method"][at] for at in clique] for clique in ranking.cliques(rows)] in (
        [["lora", "metatt-4d"]],
        [["metatt-4d", "lora"]],
    )
    assert ranking.headline(rows).startswith("CP ranks before ") and ranking.headline(rows).endswith("over 9 tasks")
    ax = drawn(ranking, rows)
    at = [tuple(line[0]) for line in lines(ax, "mean")]
    assert at == list(zip(rows["rank"], range(4), strict=True))
    (bar,) = [line for line in ax.lines if line.get_gid() == "clique"]
    assert list(bar.get_ydata()) == [0.7, 2.3]


@pytest.mark.parametrize("width", [3.3, 7])
@pytest.mark.parametrize("module", [aggregates, ranking])
def test_no_text_overlaps_or_is_cut(module: object, width: float) -> None:
    ax = drawn(module, module.rows(made(tasks=9)), width)  # type: ignore[attr-defined, arg-type]
    assert not faults(ax.figure)
    bars = [line.get_window_extent() for line in ax.lines if line.get_gid() == "clique"]
    assert not [text for text in shown(ax) for bar in bars if bar.overlaps(text.get_window_extent())]


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: aggregates.rows(made(tasks=1)), "the runs are of task 0; expected those of two tasks or more"),
        (lambda: aggregates.rows(made(), reference="cpp"), "reference is 'cpp'; did you mean \"cp\""),
        (lambda: aggregates.rows(made().assign(chance=None)), "task task 0 has no chance, the score of a constant"),
        (lambda: ranking.rows(made(tasks=4)), "4 methods have three seeds on each of 4 tasks; expected 3"),
    ],
)
def test_what_has_no_answer_is_refused(call: Callable[[], object], says: str) -> None:
    refused(call, says)
