"""Every frontier of the documentation, drawn from its table at the widths of a column and of a page: marks and corners
stand at the costs and means that the table has.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from support.panels import drawn, heights

from tensoradapt.analysis.figures.catalogue import Figured, figures
from tensoradapt.analysis.figures.page import page
from tensoradapt.analysis.figures.styles import styles_of

pd = pytest.importorskip("pandas", reason="an extra")
ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "docs" / "make"))
import draw_figures  # noqa: E402

WIDTHS = [3.3, pytest.param(5.0, marks=pytest.mark.slow), 7.0]
TABLES = draw_figures.tables()


@cache
def frontiers(path: Path) -> tuple[Figured, ...]:
    return tuple(figures(draw_figures.read(path), kinds=("frontier",)))


def rows(path: Path, task: str | None) -> Any:
    """The configurations of a table by the table alone: n_params, mean, and whether all or some seeds are lost."""
    table = pd.read_csv(path)
    table = table[table["task"] == task] if task else table
    table = table[table["n_params"] > 0][lambda t: ~t["method"].isin(["frozen base + head", "full fine-tuning"])]
    if "scores" in table:
        n, lost = table["n_seeds"], table["n_at_chance"] + table["n_diverged"]
        return table.assign(all_lost=lost == n, some_lost=lost > 0)
    table = table[~table["tuning"]].assign(lost=table["status"] != "finished")
    keys = table.groupby(["method", "layout", "rank", "budget", "n_params"], dropna=False)
    made = keys.agg(mean=("test", "mean"), all_lost=("lost", "all"), some_lost=("lost", "any"))
    return made.reset_index()


def on_frontier(known: Any) -> Any:
    """The rows that no other is above with as few parameters; of equal ones the first."""
    able = known[~known["all_lost"]].sort_values(["n_params", "mean"], ascending=[True, False])
    return able[able["mean"] > able["mean"].cummax().shift(fill_value=-np.inf)]


def marks(ax: Axes, kind: str) -> Iterator[tuple[Any, Any]]:
    """The data of each line of a kind, which is drawn where its data say."""
    for line in drawn(ax, kind):
        at = line.get_transform().transform(line.get_xydata())
        assert np.array_equal(at[:, 0], ax.transData.transform(line.get_xydata())[:, 0])
        yield line.get_xdata(), line.get_ydata()


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("path", TABLES, ids=lambda path: str(path.relative_to(ROOT / "docs")))
def test_marks_and_corners_stand_where_the_table_says(path: Path, width: float) -> None:
    assert frontiers(path)
    for figure in frontiers(path):
        with page(width=width):
            ax = figure.draw("").axes[0]
        known = rows(path, figure.task)
        means = [(float(x[0]), float(y[0])) for x, y in marks(ax, "mean")]
        assert sorted(x for x, _ in means) == sorted(known["n_params"].astype(float))
        right = [mean for mean in means if any(np.isclose(mean, row, rtol=1e-5).all() for row in kept(known))]
        assert len(right) >= (~known["some_lost"]).sum(), "a mean without a lost seed is at its height"
        for kind in ("seed", "lost", "bar"):
            assert {float(x) for xs, _ in marks(ax, kind) for x in xs} <= {x for x, _ in means}
        check_corners(ax, known, means)
        assert ax.get_xlim()[0] < min(x for x, _ in means) <= max(x for x, _ in means) < ax.get_xlim()[1]


def kept(known: Any) -> list[tuple[float, float]]:
    return list(known[["n_params", "mean"]].itertuples(index=False, name=None))


def check_corners(ax: Axes, known: Any, means: list[tuple[float, float]]) -> None:
    """The staircase goes through the rows of the frontier, those on the strip left out, and on to the right edge."""
    best = on_frontier(known)
    steps = list(marks(ax, "frontier"))
    if not steps:
        assert best["some_lost"].all()
        return
    ((x, y),) = steps
    assert x[-1] == ax.get_xlim()[1] and y[-1] == y[-2]
    through = list(dict.fromkeys(zip(x[:-1], y[:-1], strict=True)))  # points equal in both are on it together
    assert set(through) <= set(means)
    expected = best if len(best) == len(through) else best[~best["some_lost"]]
    assert np.allclose(through, kept(expected), rtol=1e-5)


@pytest.mark.parametrize("path", TABLES, ids=lambda path: str(path.relative_to(ROOT / "docs")))
def test_methods_of_a_frontier_differ_in_colour(path: Path) -> None:
    for figure in frontiers(path):
        methods = {row["method"] for row in figure.rows}
        found = styles_of(methods)
        colours = {style.colour for style in found.values()}
        assert len(colours) == len(found) or len(found) > 10  # eight methods and two references


def test_what_the_documentation_shows_is_drawn_from_a_table() -> None:
    """Each frontier's file has a table beside it; and the seeds of a table of means have its means."""
    files = {path for path in (ROOT / "docs").rglob("*frontier*.png") if "notebooks" not in path.parts}
    stems = {stem for path in TABLES for stem, figure in draw_figures.drawn(path) if figure.kind == "frontier"}
    assert {path.with_suffix("") for path in files} == stems and len(stems) > 15
    for path in (path for path in TABLES if "scores" in pd.read_csv(path)):
        table, runs = pd.read_csv(path), draw_figures.read(path)
        assert len(runs) == table["n_seeds"].sum()
        scores = [run.row["score"] for run in runs]
        assert np.average(table["mean"], weights=table["n_seeds"]) == pytest.approx(np.mean(scores), abs=1e-5)


def test_a_star_in_a_table_of_means_is_a_run_without_an_answer(tmp_path: Path) -> None:
    text = (
        "method,n_params,metric,n_seeds,n_at_chance,n_diverged,rank,lr,scores\na,5,accuracy,3,1,1,2,0.1,0.5* 0.9 0.4*\n"
    )
    path = tmp_path / "frontier-default.csv"
    path.write_text(text)
    runs = draw_figures.read(path)
    assert [run.row["status"] for run in runs] == ["at chance", "finished", "diverged"]
    (figure,) = figures(runs, kinds=("frontier",))
    with page(width=7.0):
        ax = figure.draw("").axes[0]
    assert len(heights(ax, "lost")) == 2 and heights(ax, "seed") == [0.9]
