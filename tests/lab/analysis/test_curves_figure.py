"""Figures of curves: means stand at their rank or steps, rates that are kept have rings, what is shown is said."""

from __future__ import annotations

import importlib
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from support.figures import drawn, faults, lines
from support.refusals import refused
from support.synthetic_runs import LEVELS, tuned_apart

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


def test_the_headline_names_what_more_rank_is_shown_to_help() -> None:
    rows = curves.rows(grows())
    assert curves.headline(rows) == "A larger rank helps CP (+0.103); 1 of 2 does not differ measurably"
    alike = "The least and the largest rank do not differ measurably"
    assert curves.headline(curves.rows(grows(gain=0.0))) == alike
    one = grows().query("seed == 0")
    assert curves.headline(curves.rows(one)) == alike
    assert curves.caption(one, curves.rows(one)).startswith("One seed, so without intervals.")


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
        means = of.drop_duplicates(["method", "setting", "lr"])
        assert marks(parts[0], "mean") == sorted(zip(means["lr"], means["mean"], strict=True))
        assert marks(parts[0], "chosen") == sorted(zip(rings["lr"], rings["mean"], strict=True)) != []


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: curves.rows(grows(), x="ranks"), "x is 'ranks'; did you mean \"rank\""),
        (lambda: curves.rows(grows().query("rank == 8")), "every adapter has rank 8; expected runs with two values"),
        (lambda: curves.rows(grows(), x="budget"), "LoRA has no budget; expected methods with a budget"),
        (
            lambda: curves.rows(pd.concat([grows(layout="a"), grows(layout="b")])),
            "CP has 2 configurations at rank 2, which differ in layout; expected one",
        ),
        (lambda: plots.curves(grows(), x="steps", col="budget"), "no run has a budget; expected runs of several"),
    ],
)
def test_what_cannot_be_drawn_says_why(call: Callable[[], object], says: str) -> None:
    refused(call, says)
