"""Every figure of the documentation is drawn from its table: marks stand at the costs and means that the table has."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from support.means import DOCS, draw_figures

import tensoradapt as ta

WIDTHS = [3.3, pytest.param(7.0, marks=pytest.mark.slow)]
FOUND = {str(stem.relative_to(DOCS)): (kind, runs) for stem, kind, runs in draw_figures.drawn()}
FRONTIERS = sorted(name for name, (kind, _) in FOUND.items() if kind == "frontier")


def marks(ax: Axes, begin: str) -> list[tuple[float, float]]:
    """Return the data of each mark whose gid begins so, which is drawn where its data say."""
    found = [line for line in ax.lines if str(line.get_gid()).startswith(begin) and line.get_ls() != "--"]
    for line in found:  # those of references are dashed
        at = line.get_xydata()
        assert line.get_transform().transform(at) == pytest.approx(ax.transData.transform(at))
    return [(float(x), float(y)) for line in found for x, y in line.get_xydata()]


def on_frontier(means: pd.DataFrame) -> pd.DataFrame:
    """Return the rows that no other is above with as few parameters; of equal ones the first."""
    able = means[~means["all_lost"]].sort_values(["n_params", "mean"], ascending=[True, False])
    return able[able["mean"] > able["mean"].cummax().shift(fill_value=-np.inf)]


def means_of(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the means of a table of docs by the table alone."""
    table = runs.rename(columns={"test": "score"})
    table = table[~table["method"].isin(["frozen base + head", "full fine-tuning", "BitFit"])]
    table = table[~table["tuning"]] if "tuning" in table else table
    lost = table["lost"] if "lost" in table else table["status"] != "finished"
    keys = ["method", "layout", "rank", "budget", "n_params"]
    grouped = table.assign(lost=lost).groupby([key for key in keys if key in table], dropna=False)
    return grouped.agg(mean=("score", "mean"), all_lost=("lost", "all"), some_lost=("lost", "any")).reset_index()


@pytest.mark.thorough
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", FRONTIERS)
def test_marks_and_the_staircase_stand_where_the_table_says(name: str, width: float) -> None:
    runs = FOUND[name][1]
    known = means_of(runs)
    ax = ta.plots.frontier(runs, figsize=width)
    means = marks(ax, "mean")
    for _, row in known[~known["some_lost"]].iterrows():
        assert any(np.isclose(mean, (row["n_params"], row["mean"]), rtol=1e-9).all() for mean in means)
    costs = set(known["n_params"].astype(float))
    assert {x for x, _ in means} == costs and min(y for _, y in means) >= ax.get_ylim()[0]
    assert {x for x, _ in marks(ax, "seed") + marks(ax, "bar")} <= costs
    best = on_frontier(known)
    steps = marks(ax, "frontier")
    assert [x for x, _ in steps[: len(best)]] == list(best["n_params"].astype(float))
    assert [y for _, y in steps[: len(best)]] == pytest.approx(list(best["mean"]))
    assert not steps or steps[-1][0] == ax.get_xlim()[1]


def test_what_the_documentation_shows_is_drawn_from_a_table() -> None:
    """Each figure of runs has a table beside it; and the seeds of a table of means have its means.

    But for those that are of the scores of test examples too: ``report.py`` draws them from runs.
    """
    kinds = ("frontier", "ranks", "layouts", "differences", "forgetting", "steps")
    shown = {path for kind in kinds for path in DOCS.rglob(f"*{kind}*.png") if "notebooks" not in path.parts}
    shown = {path for path in shown if "concepts" not in path.parts and "gallery" not in path.parts}
    shown -= {figure for path in DOCS.rglob("within.csv") for figure in path.parent.glob("*differences.png")}
    assert {str(path.with_suffix("").relative_to(DOCS)) for path in shown} == set(FOUND) and len(FOUND) > 8
    for path in (path for path in draw_figures.tables() if "scores" in pd.read_csv(path)):
        table, runs = pd.read_csv(path), draw_figures.read(path)
        assert len(runs) == table["n_seeds"].sum()
        assert np.average(table["mean"], weights=table["n_seeds"]) == pytest.approx(runs["score"].mean(), abs=1e-5)


def test_a_star_in_a_table_of_means_is_a_run_without_an_answer(tmp_path: Path) -> None:
    path = tmp_path / "frontier-default.csv"
    path.write_text("method,n_params,metric,n_seeds,rank,lr,scores\na,5,accuracy,3,2,0.1,0.5* 0.9 0.4*\n")
    runs = draw_figures.read(path)
    assert list(runs["lost"]) == [True, False, True] and list(runs["score"]) == [0.5, 0.9, 0.4]


def test_a_figure_of_docs_is_written_as_the_files_that_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = DOCS / "results" / "headline" / "steps" / "records.csv"
    for name in ("records.csv", "steps.png", "steps.pdf"):
        (tmp_path / "results" / "mine").mkdir(parents=True, exist_ok=True)
        (tmp_path / "results" / "mine" / name).write_bytes(table.read_bytes() if name.endswith("csv") else b"")
    monkeypatch.setattr(draw_figures, "DOCS", tmp_path)
    draw_figures.main("other")
    assert not (tmp_path / "results/mine/steps.png").stat().st_size
    draw_figures.main("mine")
    assert all((tmp_path / "results/mine" / f"steps.{kind}").stat().st_size > 1000 for kind in ("png", "pdf"))
