"""Figures of a DataFrame: by anyone, with columns of any name, on the user's own axes, in the user's own type."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.text import Text
from support.panels import contrast, drawn
from support.synthetic_runs import write_many
from support.synthetic_sweep import layouts, sweep, tuned_apart

import tensoradapt as ta
from tensoradapt.analysis.old_tables.frames import Columns, as_runs
from tensoradapt.analysis.old_tables.frontier import table
from tensoradapt.runs.store import Run, load_runs

pandas = pytest.importorskip("pandas", reason="an extra")
pyplot.switch_backend("agg")
CURVES = {"cp": [(2, 300, 0.75), (4, 600, 0.8)], "lora": [(1, 300, 0.78), (2, 600, 0.85)]}
PAPER = {"name": ["LoRA", "LoRA", "DoRA", "CP"], "params (M)": [0.3, 0.8, 1.5, 0.02], "GLUE": [85.2, 85.5, 85.6, 84.9]}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    return write_many(tmp_path_factory.mktemp("runs"), CURVES)


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    pyplot.close("all")


def column(height: float = 2.5) -> Axes:
    """Axes as wide as the column of a paper, without a layout engine."""
    return pyplot.subplots(figsize=(3.3, height))[1]


def means(ax: Axes) -> set[tuple[float, float]]:
    return {(round(float(x), 6), round(float(y), 6)) for line in drawn(ax, "mean") for x, y in line.get_xydata()}


def test_a_table_of_runs_gives_the_same_points_as_the_runs(runs: list[Run]) -> None:
    again = as_runs(ta.results(runs), Columns())
    assert [run.name for run in again] != [] and sorted(run.name for run in again) == sorted(run.name for run in runs)
    assert table(again) == table(runs), "with the same paired differences, as predictions are found by path"
    assert ta.savings(ta.results(runs)) == ta.savings(runs)
    assert [point.runs for point in ta.frontier(ta.results(runs))] == [point.runs for point in ta.frontier(runs)]
    assert means(ta.plots.frontier(ta.results(runs), column())) == means(ta.plots.frontier(runs, column()))


def test_numbers_of_others_are_drawn_beside_ones_own(runs: list[Run]) -> None:
    theirs = pandas.DataFrame(
        {"method": "PEFT LoRA", "n_params": 1000, "seed": [0, 1], "test": [0.81, 0.83], "metric": "accuracy",
         "task": "rte", "model": "tiny-model"}
    )  # fmt: skip
    ax = ta.plots.frontier(pandas.concat([ta.results(runs), theirs]), x="n_params", y="test", method="method")
    assert (1000, 0.82) in means(ax) and ax.get_ylabel() == "test accuracy"
    (note,) = [text.get_text() for text in ax.figure.texts if text.get_gid() == "caption"]
    assert "Targets differ: attention of CP (LoRTA), LoRA; not stated of PEFT LoRA." in " ".join(note.split())


def test_a_papers_table_needs_three_columns_and_may_be_in_percent() -> None:
    ax = ta.plots.frontier(pandas.DataFrame(PAPER), column(), x="params (M)", y="GLUE", method="name")
    assert means(ax) == {(0.3, 85.2), (0.8, 85.5), (1.5, 85.6), (0.02, 84.9)}
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_xscale()) == ("params (M)", "GLUE", "log")
    assert 84 < ax.get_ylim()[0] and ax.get_ylim()[1] < 87
    percent = pandas.DataFrame({"method": ["LoRA", "CP"], "n_params": [9, 5], "accuracy": [99.1, 80.0]})
    assert 99.1 < ta.plots.frontier(percent, column(), y="accuracy").get_ylim()[1] < 101


def test_rows_without_seeds_are_the_seeds_of_their_method_and_size() -> None:
    frame = pandas.DataFrame({"method": ["LoRA"] * 3 + ["CP"], "n_params": [9, 9, 9, 5], "test": [0.7, 0.8, 0.9, 0.6]})
    ax = ta.plots.frontier(frame, column())
    assert means(ax) == {(9, 0.8), (5, 0.6)} and len(drawn(ax, "bar")) == 1


def test_every_figure_takes_a_table(tmp_path: Path) -> None:
    own = {name: tmp_path / name for name in ("ranks", "apart", "layouts", "five")}
    frames = [ta.results(write_many(own["ranks"], CURVES)), ta.results(tuned_apart(own["apart"]), tuning=True)]
    frames += [ta.results(layouts(own["layouts"])), ta.results(sweep(own["five"], tuple("abcde")), tuning=True)]
    ranks, apart, over, five = frames
    kinds = {
        "frontier": ranks, "ranks": ranks, "rates": apart, "contrasts": ranks, "layouts": over, "grid": five,
        "aggregates": five, "differences": five,
    }  # fmt: skip
    for kind, frame in kinds.items():
        ax = getattr(ta.plots, kind)(frame)
        assert isinstance(ax, Axes) and ax.has_data()
        assert any(text.get_gid() == "caption" for text in ax.figure.texts), kind
        assert not getattr(ta.plots, kind)(frame, caption=False).figure.texts
    assert isinstance(ta.plots.progress(load_runs(own["five"]), column()), Axes)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"x": "n_parms"}, "no column x='n_parms'; did you mean \"n_params\""),
        ({"y": "tests"}, "no column y='tests'; did you mean \"test\""),
        ({"method": "methods"}, "no column method='methods'; did you mean \"method\""),
        ({"seed": "seeds"}, "no column seed='seeds'; did you mean \"seed\""),
        ({"x": ""}, "x is ''; expected a text"),
        ({"style": "no such style"}, "style is 'no such style'; expected a style sheet of matplotlib"),
        ({"ax": 3}, "ax is 3; expected a matplotlib.axes"),
        ({"total": "many"}, "total is 'many'; expected a whole number"),
    ],
)
def test_a_column_that_is_not_there_is_named_with_the_closest(changes: dict[str, Any], says: str, runs: Any) -> None:
    with pytest.raises(ta.TensorAdaptError, match=says):
        ta.plots.frontier(ta.results(runs), **changes)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"test": None}, "row 1 has test None; expected a finite number"),
        ({"test": "high"}, "row 1 has test 'high'; expected a finite number"),
        ({"n_params": None}, "row 1 has n_params None"),
        ({"method": None}, "row 1 has method None; expected the name of a method"),
        ({"metric": "f1"}, "the runs have 2 metrics: accuracy, f1; expected one"),
        ({"task": "sst2"}, "the runs have 2 tasks: rte, sst2; expected one"),
        ({"seed": 0}, "LoRA has several runs of one seed: row 0, row 1"),
        ({"seed": None}, "row 1 has no seed"),
    ],
)
def test_a_row_that_cannot_be_drawn_is_named(row: dict[str, Any], says: str) -> None:
    good = {"method": "LoRA", "n_params": 9, "test": 0.7, "metric": "accuracy", "task": "rte"}
    frame = pandas.DataFrame([{**good, "seed": 0}, {**good, "seed": 1, **row}])
    with pytest.raises(ta.TensorAdaptError, match=says):
        ta.plots.frontier(frame)
    with pytest.raises(ta.TensorAdaptError, match="the table has 0 rows"):
        ta.plots.frontier(frame.iloc[:0])
    with pytest.raises(ta.TensorAdaptError, match="two columns 'seed'"):
        ta.plots.frontier(pandas.concat([frame, frame["seed"]], axis=1))


def test_what_runs_do_not_allow_is_refused_with_what_it_takes(runs: list[Run]) -> None:
    with pytest.raises(ta.TensorAdaptError, match="no figure aggregates; expected two tasks or more"):
        ta.plots.aggregates(runs)
    with pytest.raises(ta.TensorAdaptError, match="reference is 'vera'"):
        ta.plots.contrasts(runs, reference="vera")
    ta.plots.contrasts(runs, reference="lora")  # LoRA


def test_nothing_is_cut_off_on_plain_axes_as_wide_as_a_column(runs: list[Run]) -> None:
    for draw in (ta.plots.frontier, ta.plots.ranks, ta.plots.contrasts, ta.plots.grid):
        ax = draw(runs, column())
        ax.figure.canvas.draw()
        box, whole = ax.get_tightbbox(), ax.figure.bbox
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= whole.x1 and box.y1 <= whole.y1, draw.__name__
        assert ax.figure.get_size_inches() == pytest.approx((3.3, 2.5))


def test_a_layout_engine_or_other_axes_are_left_alone(runs: list[Run]) -> None:
    _, axes = pyplot.subplots(1, 2)
    before = axes[0].get_position().bounds
    ta.plots.ranks(runs, axes[0])
    assert axes[0].get_position().bounds == before and not axes[1].has_data()


def test_settings_of_the_user_and_of_a_style_hold(runs: list[Run]) -> None:
    def sizes(ax: Axes) -> list[float]:
        return [text.get_fontsize() for text in ax.get_legend().get_texts()]

    plain = sizes(ta.plots.ranks(runs, caption=False))
    before = dict(mpl.rcParams)
    larger = sizes(ta.plots.ranks(runs, caption=False, style={"font.size": 18, "figure.dpi": 50}))
    assert larger == [pytest.approx(2 * size) for size in plain] and dict(mpl.rcParams) == before
    with mpl.rc_context({"font.size": 18, "font.family": ["serif"], "axes.labelsize": 20}):
        ax = ta.plots.ranks(runs, caption=False)
        assert sizes(ax) == larger and ax.xaxis.label.get_fontsize() == 20
        assert ax.get_legend().get_texts()[0].get_fontfamily() == ["serif"]
    assert np.isclose(mpl.rcParams["font.size"], before["font.size"])


def test_a_metric_of_which_less_is_better_is_refused_until_it_is_negated() -> None:
    frame = pandas.DataFrame({"method": ["LoRA", "CP"], "n_params": [9, 5], "eval_loss": [2.5, 3.0]})
    with pytest.raises(ta.TensorAdaptError, match=r"of 'eval_loss' less is better.* -runs\[\"eval_loss\"\]"):
        ta.plots.frontier(frame, y="eval_loss")
    negated = frame.assign(**{"negative eval_loss": -frame["eval_loss"]})
    ax = ta.plots.frontier(negated, column(), y="negative eval_loss")
    assert ax.get_ylabel() == "negative eval loss"
    ta.plots.frontier(frame.rename(columns={"eval_loss": "terror"}), column(), y="terror")


@pytest.mark.parametrize("style", [None, "dark_background", "grayscale"])
def test_every_text_and_line_stands_out_from_the_paper_of_the_style_sheet(style: str | None, runs: list[Run]) -> None:
    for draw in (ta.plots.frontier, ta.plots.ranks, ta.plots.contrasts):
        ax = draw(runs, style=style)
        ax.figure.canvas.draw()
        texts = [text for text in ax.figure.findobj(Text) if text.get_text() and text.get_visible()]
        assert len(texts) > 8
        for text in texts:
            assert contrast(text.get_color(), ax.get_facecolor()) > 4.4, (draw.__name__, text.get_text())
        pyplot.close(ax.figure)
