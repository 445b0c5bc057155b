"""Figures of curves: means stand at their rank or steps, rates that are kept have rings, what is decided is said."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from support.drawings import drawn, lines
from support.refusals import refused
from support.synthetic_runs import write_synthetic
from support.synthetic_sweep import LEVELS, tuned_apart
from support.texts import faults

from tensoradapt.lab.analysis import plots
from tensoradapt.lab.analysis.names import display
from tensoradapt.lab.analysis.results import table_of

curves = importlib.import_module("tensoradapt.lab.analysis.plots.curves")
BEST = {1: 1e-3, 4: 3e-3, 16: 1e-2}  # the best of all but lora at rank 1
SEEDS = range(4)


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    return table_of(tuned_apart(tmp_path_factory.mktemp("runs")))


def grows(x: str = "rank", gain: float = 0.05, **columns: object) -> pd.DataFrame:
    """CP gains so much by each value of x, LoRA does not."""
    rng = np.random.default_rng(0)
    made = [
        {"task": "sst2", "method": method, "rank": 8, "steps": 100, "n_params": 900, "seed": seed, x: value}
        | {"score": 0.7 + more * i + 0.002 * rng.normal(), "metric": "accuracy", **columns}
        for method, more in (("lora", 0.0), ("cp", gain))
        for i, value in enumerate((2, 8, 32))
        for seed in SEEDS
    ]
    return table_of(pd.DataFrame(made))


def marks(ax: Axes, gid: str) -> list[tuple[float, float]]:
    return sorted(tuple(map(float, xy)) for line in lines(ax, gid) for xy in line)


@pytest.mark.parametrize("x", ["rank", "steps", "budget", "seconds"])
def test_a_mean_stands_at_its_x_and_height(x: str) -> None:
    runs = grows(x) if x != "seconds" else grows("steps").assign(seconds=lambda table: 2.0 * table["steps"])
    rows = curves.rows(runs, x=x)
    assert set(rows["x"]) == {x}
    wanted = runs.groupby(["method", x])["score"].mean()
    assert {(row["method"], row["cost"]): row["mean"] for _, row in rows.iterrows()} == pytest.approx(wanted.to_dict())
    ax = drawn(curves, rows)
    assert marks(ax, "mean") == sorted(zip(rows["cost"], rows["mean"], strict=True))
    assert (ax.get_xscale(), ax.get_xlabel(), ax.get_ylabel()) == ("log", curves.X[x], "test accuracy")
    assert [text.get_text() for text in ax.texts] == ["LoRA", "CP"]


def test_the_headline_names_what_more_rank_is_decided_to_help() -> None:
    rows = curves.rows(grows())
    assert curves.headline(rows) == "A larger rank helps CP (+0.103); 1 of 2 is undecided"
    assert curves.headline(curves.rows(grows(gain=0.0))) == "Nothing is decided between the least and the largest rank"
    one = grows().query("seed == 0")
    assert curves.headline(curves.rows(one)).startswith("Nothing is decided")
    assert curves.caption(one, curves.rows(one)).startswith("One seed, so without intervals.")


def test_sizes_of_a_method_are_lines_of_their_own_over_steps() -> None:
    runs = pd.concat([grows("steps"), grows("steps").assign(rank=4, n_params=450)])
    rows = curves.rows(table_of(runs), x="steps")
    assert set(rows["setting"]) == {"r=4", "r=8"}
    ax = drawn(curves, rows)
    assert {text.get_text() for text in ax.texts} == {"LoRA r=4", "LoRA r=8", "CP r=4", "CP r=8"}
    dashes = {(line.get_color(), str(line.get_linestyle())) for line in ax.lines if line.get_gid() == "line"}
    assert len(dashes) == 4, "no two lines look alike"


def test_lines_of_a_method_are_named_by_their_budgets_and_stand_from_the_smallest() -> None:
    """Also beside a method that has ranks, as the column of budgets then holds floats."""
    made = [
        {"method": method, "rank": rank, "budget": budget, "n_params": n, "seed": seed, "lr": lr, "tuning": seed == 9}
        | {"validation": 0.7 + lr, "score": None if seed == 9 else 0.7, "metric": "accuracy", "task": "sst2"}
        for method, rank, budget, n in (
            ("cp", None, 18_600, 18_576),
            ("cp", None, 6_400, 6_192),
            ("lora", 8, None, 900),
        )
        for seed, lr in ((9, 1e-3), (9, 2e-3), (0, 2e-3))
    ]
    rows = curves.rows(table_of(pd.DataFrame(made)), x="lr")
    named = [text.get_text() for text in drawn(curves, rows).get_legend().get_texts()]
    assert named == ["CP n≤6,400", "CP n≤18,600", "LoRA", "rate kept"]


def test_a_row_of_rates_is_a_run_with_the_mean_over_seeds_of_its_size(tuned: pd.DataFrame) -> None:
    rows = curves.rows(tuned, x="lr")
    assert set(rows["id"]) == set(tuned.loc[tuned["tuning"], "id"])
    for _, alike in rows.groupby(["method", "setting", "lr"]):
        assert set(alike["seed"]) == {1000, 1001}
        assert set(alike["mean"]) == {alike["validation"].mean()}
    kept = rows[rows["chosen"]]
    wanted = {(name, f"r={rank}", BEST[rank]) for name in LEVELS for rank in BEST}
    wanted = wanted - {("lora", "r=1", 1e-3)} | {("lora", "r=1", 1e-2), ("frozen base + head", "", 1e-3)}
    assert set(zip(kept["method"], kept["setting"], kept["lr"], strict=True)) == wanted
    ends = "LoRA, LoRTA, MetaTT-4D and VeRA"
    kept_rates = "Rates kept go from 0.001 to 0.01 over 5 methods"
    assert curves.headline(rows) == f"{kept_rates}; the lowest or highest tried for {ends}"
    few = curves.headline(rows[rows["method"].isin(["vera", "frozen base + head"])])
    assert few == "Rates kept: frozen base + head 0.001, VeRA 0.001 to 0.01; the lowest or highest tried for VeRA"


@pytest.mark.thorough
@pytest.mark.parametrize("width", [3.3, 7])
def test_each_size_is_a_line_or_with_col_a_panel_of_its_means_runs_and_rings(tuned: pd.DataFrame, width: float) -> None:
    rows = curves.rows(tuned, x="lr")
    kept = rows[rows["chosen"]].drop_duplicates(["method", "setting"])
    ax = drawn(curves, rows, width)
    assert not faults(ax.figure)
    named = {text.get_text() for text in ax.get_legend().get_texts()}
    sizes = {f"{display(name)} r={rank}" for name in LEVELS for rank in BEST}
    assert named == {*sizes, "frozen base + head", "rate kept"}
    panels = plots.curves(tuned, x="lr", figsize=width, col="rank")
    assert [part.get_title(loc="left") for part in panels] == ["r=1", "r=4", "r=16"]
    for parts, of in (([ax], rows), *(([part], rows[rows["rank"].isin([rank]) | rows["rank"].isna()])
                      for part, rank in zip(panels, BEST, strict=True))):  # fmt: skip
        rings = kept[kept["id"].isin(of["id"])]
        assert marks(parts[0], "seed") == sorted(zip(of["lr"], of["validation"], strict=True))
        assert marks(parts[0], "chosen") == sorted(zip(rings["lr"], rings["mean"], strict=True)) != []


def test_a_rate_without_a_score_is_a_cross_on_the_edge_and_one_bad_seed_is_hollow(tmp_path: Path) -> None:
    rates = (1e-3, 3e-3, 1e-2)
    for i, lr in enumerate(rates):
        for seed in (1000, 1001):
            bad = i == 2 or (i == 1 and seed == 1001)
            same = {"rank": 4, "named": "cp", "status": "diverged" if bad else "finished"}
            write_synthetic(tmp_path, lr=lr, seed=seed, tuning=True, **same)
    runs = table_of(tmp_path)
    runs.loc[runs["lr"] == rates[2], "validation"] = math.nan
    rows = curves.rows(runs, x="lr")
    ax = drawn(curves, rows)
    means = {line.get_xdata()[0]: line for line in ax.lines if str(line.get_gid()).startswith("mean")}
    faces = {lr: line.get_markerfacecolor() for lr, line in means.items() if line.get_marker() != "x"}
    assert list(faces) == list(rates[:2]) and faces[rates[0]] != faces[rates[1]] == "#ffffff"
    edge = ax.get_ylim()[0]
    assert [y for line in ax.lines if line.get_marker() == "x" for x, y in line.get_xydata() if x == rates[2]] == [edge]
    assert curves.headline(rows) == "No rate is kept yet: no run that is reported has ended"


@pytest.mark.parametrize("ranks", [(1, 2, 4, 8, 16, 32, 64, 128), (60, 64, 120, 128), (1, 256)])
@pytest.mark.parametrize("width", [3.3, 7])
def test_numbers_on_the_axis_of_ranks_do_not_touch(ranks: tuple[int, ...], width: float) -> None:
    made = [
        {"task": "sst2", "method": "cp", "rank": rank, "n_params": 10 * rank, "seed": seed, "score": 0.7 + 0.01 * seed}
        for rank in ranks
        for seed in SEEDS
    ]
    ax = drawn(curves, curves.rows(table_of(pd.DataFrame(made))), width)
    assert len(ax.get_xticklabels()) > 1 and not faults(ax.figure)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: curves.rows(grows(), x="ranks"), "x is 'ranks'; did you mean \"rank\""),
        (lambda: curves.rows(grows().query("rank == 8")), "every adapter has rank 8; expected runs with two values"),
        (lambda: curves.rows(grows().assign(rank="layer=2 out=4")), "LoRA has layer=2 out=4; expected methods"),
        (lambda: curves.rows(grows(), x="budget"), "LoRA has no budget; expected methods with a budget"),
        (lambda: curves.rows(grows(), x="lr"), "no learning rate was tuned; expected runs of a sweep"),
        (
            lambda: curves.rows(pd.concat([grows(layout="a"), grows(layout="b")])),
            "CP has 2 configurations at rank 2, which differ in layout; expected one",
        ),
        (lambda: plots.curves(grows(), x="steps", col="budget"), "no run has a budget; expected runs of several"),
    ],
)
def test_what_cannot_be_drawn_says_why(call: Callable[[], object], says: str) -> None:
    refused(call, says)
