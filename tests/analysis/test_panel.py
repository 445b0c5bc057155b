"""Panels of scores: seeds as ticks on their bars, limits that follow the scores, and a strip for runs at chance."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from support.panels import axes, drawn, heights, strip
from support.synthetic_runs import write_many, write_synthetic

from tensoradapt.analysis.figures import curve_plots, plots
from tensoradapt.analysis.figures.panel import Mark, make_panel
from tensoradapt.analysis.old_tables import curves
from tensoradapt.analysis.old_tables.frontier import points, table
from tensoradapt.metrics.table import range_of
from tensoradapt.runs.store import Run, load_runs

Draw = Callable[[list[Run]], Axes]
DRAWN: dict[str, Draw] = {
    "frontier": lambda runs: plots.frontier(runs, axes()),
    "ranks": lambda runs: curve_plots.rank_curves(curves.rank_rows(runs), axes(), bounds=(0.0, 1.0)),
}
both = pytest.mark.parametrize("draw", DRAWN.values(), ids=DRAWN)
CURVES = {"cp": [(1, 100, 0.75), (4, 400, 0.8)], "lora": [(1, 900, 0.78), (4, 3600, 0.82)]}


def boxes(ax: Axes, gid: str) -> list[tuple[float, float, float, float]]:
    """Return the place of each marker of a kind, or of each bar, in pixels."""
    found = []
    for line in drawn(ax, gid):
        at = line.get_transform().transform(np.asarray(line.get_xydata(), float))
        half = (0.6 if gid == "bar" else line.get_markersize() / 2) * ax.figure.dpi / 72
        for ends in [at] if gid == "bar" else at[:, None]:
            found.append((*(ends.min(0) - half), *(ends.max(0) + half)))
    return found


def touch(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


@both
@pytest.mark.parametrize("seeds", [2, 5, 10])
def test_each_seed_is_a_tick_of_its_methods_colour_at_the_x_of_its_mean(tmp_path: Path, draw: Draw, seeds: int) -> None:
    runs = write_many(tmp_path, CURVES, seeds=range(seeds), head=None, full=None)
    ax = draw(runs)
    assert heights(ax, "seed") == pytest.approx(sorted(score for point in points(runs) for score in point.scores))
    means, ticks = drawn(ax, "mean"), drawn(ax, "seed")
    assert len(means) == len(ticks) == 4
    for mean, tick in zip(means, ticks, strict=True):
        assert set(tick.get_xdata()) == set(mean.get_xdata())
        assert np.array_equal(*(line.get_transform().transform((1, 0.8)) for line in (mean, tick)))
        assert tick.get_marker() == "_" and tick.get_markersize() > mean.get_markersize()
        light, full = to_rgb(tick.get_color()), to_rgb(mean.get_color())  # between white and the colour of the mean
        shares = [(1 - a) / (1 - b) for a, b in zip(light, full, strict=True) if b < 1]
        assert np.ptp(shares) < 1e-6 and 0.5 < shares[0] < 0.9


@both
def test_one_seed_has_neither_a_tick_nor_an_interval(tmp_path: Path, draw: Draw) -> None:
    lost = {**CURVES, "vera": [(1, 200, 0.5), (4, 1000, 0.5)]}
    ax = draw(write_many(tmp_path, lost, seeds=[0], at_chance=["vera"], head=0.7, full=0.85))
    assert len(drawn(ax, "mean")) == 6
    assert not [line for kind in ("seed", "lost", "bar", "reference") for line in drawn(ax, kind)]


@both
@pytest.mark.parametrize("seeds", [2, 3, 8])
def test_lost_seeds_are_ticks_above_each_other_on_the_strip(tmp_path: Path, draw: Draw, seeds: int) -> None:
    dead = {**CURVES, "vera": [(1, 200, 0.5), (4, 1000, 0.5)]}
    ax = draw(write_many(tmp_path, dead, seeds=range(seeds), at_chance=["vera"], head=None, full=None))
    ax.figure.canvas.draw()
    ticks, (bottom, top) = boxes(ax, "lost"), (ax.transData.transform((1, y))[1] for y in strip(ax))
    assert len(ticks) == 2 * seeds
    middles = sorted({(round(left, 3), round((low + high) / 2, 3)) for left, low, _, high in ticks})
    assert len(middles) == 2 * seeds and all(bottom < y < top for _, y in middles)
    assert {line.get_xdata()[0] for line in drawn(ax, "lost")} <= {line.get_xdata()[0] for line in drawn(ax, "mean")}


scores = st.lists(st.floats(0, 1), min_size=2, max_size=4)


@settings(max_examples=30)
@given(st.lists(scores, min_size=1, max_size=4), st.sampled_from(["accuracy", "spearman"]))
def test_limits_hold_every_mean_and_seed_and_follow_no_interval(groups: list[list[float]], metric: str) -> None:
    marks = [
        Mark(i + 1, float(np.mean(group)), -50.0, 50.0, tuple(group), (False,) * len(group))
        for i, group in enumerate(groups)
    ]
    (ax, alone) = (axes(), axes())
    panel = make_panel(ax, marks, range_of(metric))
    make_panel(alone, [replace(mark, low=math.nan, high=math.nan) for mark in marks], range_of(metric))
    assert ax.get_ylim() == alone.get_ylim() == (panel.low, panel.high)
    flat = [score for group in groups for score in group]
    assert panel.low < min(flat) <= max(flat) < panel.high
    assert panel.high - panel.low <= max(1.25 * (max(flat) - min(flat)), 0.05)
    assert not ax.patches  # no strip


@pytest.mark.parametrize(("metric", "least"), [("accuracy", 0.0), ("f1", 0.0), ("matthews", -1.0), ("spearman", -1.0)])
def test_intervals_end_where_the_metric_does_or_at_an_arrow(metric: str, least: float) -> None:
    marks = [
        Mark(1, 0.99, 0.2, 1.8, (0.98, 1.0), (False, False)),
        Mark(2, least + 0.01, least - 0.9, 0.9, (least, least + 0.02), (False, False)),
        Mark(3, 0.5, 0.4, 0.6, (0.45, 0.55), (False, False)),
    ]
    rows = [
        {"method": "lora", "rank": int(m.x), "mean": m.mean, "low": m.low, "high": m.high, "at_chance": 0}
        | {"scores": " ".join(map(str, m.scores))}
        for m in marks
    ]
    ax = curve_plots.rank_curves(rows, axes(), metric=metric, bounds=range_of(metric))
    bars = {float(line.get_xdata()[0]): list(line.get_ydata()) for line in drawn(ax, "bar")}
    assert bars == {1: [0.2, 1.0], 2: [least, 0.9], 3: [0.4, 0.6]}
    assert drawn(ax, "cut") == []
    ax = curve_plots.rank_curves([rows[0]], axes(), metric=metric, bounds=range_of(metric))
    ((bottom, top),) = [line.get_ydata() for line in drawn(ax, "bar")]
    assert (bottom, top) == (ax.get_ylim()[0], 1.0) and bottom > 0.9
    assert [line.get_marker() for line in drawn(ax, "cut")] == ["v"]


@both
def test_points_at_chance_are_hollow_on_a_strip_and_squeeze_nothing(tmp_path: Path, draw: Draw) -> None:
    dead = {**CURVES, "vera": [(1, 200, 0.5), (4, 1000, 0.5)]}
    all_runs = write_many(tmp_path, dead, at_chance=["vera"], head=0.7, full=0.85)
    ax, without = draw(all_runs), draw([run for run in all_runs if run.row["method"] != "VeRA"])
    low, high = strip(ax)
    assert (high, ax.get_ylim()[1]) == pytest.approx(without.get_ylim())
    assert not [patch for patch in without.patches if patch.get_gid() == "strip"]
    assert low == ax.get_ylim()[0] and (high - low) / (ax.get_ylim()[1] - low) < 0.25
    hollow = [line for line in drawn(ax, "mean") if line.get_markerfacecolor() == "#ffffff"]
    assert len(hollow) == 2 and len(heights(ax, "lost")) == 6
    assert len(drawn(ax, "bar")) == 4 and min(heights(ax, "bar")) >= high  # those of the others
    assert all(low < y < high for line in (*hollow, *drawn(ax, "lost")) for y in line.get_ydata())
    assert all(y > high for line in drawn(ax, "mean") if line not in hollow for y in line.get_ydata())
    names = [text.get_text() for text in ax.get_yticklabels()]
    assert names[-1] == "at\nchance" and all(float(name) > high for name in names[:-1])


@both
def test_no_line_joins_a_point_on_the_strip(tmp_path: Path, draw: Draw) -> None:
    for rank, status in ((1, "finished"), (2, "at chance"), (4, "diverged"), (8, "finished")):
        score = 0.5 if status == "at chance" else 0.8 + rank / 100
        write_synthetic(tmp_path, rank=rank, n_params=100 * rank, accuracy=score, status=status)
    ax = draw(load_runs(tmp_path))
    (joined,) = [line for line in ax.get_lines() if line.get_zorder() == 2]
    assert np.isnan(joined.get_ydata()).tolist() == [False, True, True, False]
    assert len([y for y in heights(ax, "mean") if y < strip(ax)[1]]) == 2


@both
@pytest.mark.parametrize(("lost", "on_strip"), [((0.5,), False), ((0.5, 0.5), True)])
def test_a_mean_with_lost_seeds_is_hollow_and_on_the_strip_only_if_out_of_range(
    tmp_path: Path, draw: Draw, lost: tuple[float, ...], on_strip: bool
) -> None:
    given = (0.9, 0.9, 0.9)[len(lost) :] + lost
    for seed, score in enumerate(given):
        status = "at chance" if score == 0.5 else "finished"
        write_synthetic(tmp_path, rank=2, n_params=200, seed=seed, accuracy=score, status=status)
        write_synthetic(tmp_path, rank=1, n_params=100, seed=seed, accuracy=0.75)
    ax = draw(load_runs(tmp_path))
    (hollow,) = [line for line in drawn(ax, "mean") if line.get_markerfacecolor() == "#ffffff"]
    assert (hollow.get_ydata()[0] == heights(ax, "lost")[0]) == on_strip  # beside the dots of its lost seeds
    assert on_strip or hollow.get_ydata()[0] == pytest.approx(np.mean(given))
    assert len(heights(ax, "lost")) == len(lost) and max(heights(ax, "lost")) < strip(ax)[1]
    assert heights(ax, "seed") == pytest.approx(sorted([0.75] * 3 + [0.9] * (3 - len(lost))))


def test_a_reference_at_chance_is_a_line_on_the_strip(tmp_path: Path) -> None:
    runs = write_many(tmp_path, CURVES, head=None, full=0.85)
    for seed in range(3):
        write_synthetic(tmp_path, kind="head", seed=seed, accuracy=0.5, status="at chance")
    ax, without = DRAWN["frontier"](load_runs(tmp_path)), DRAWN["frontier"](runs)
    low, high = strip(ax)
    assert (high, ax.get_ylim()[1]) == pytest.approx(without.get_ylim())
    dotted = [
        line.get_ydata()[0] for line in ax.get_lines() if line.get_linestyle() == ":" and line.get_zorder() == 1.5
    ]
    assert len(dotted) == 1 and low < dotted[0] < high
    assert len([y for y in heights(ax, "reference") if y < high]) == len(
        [y for y in heights(ax, "reference") if y > high]
    )
    assert [text.xy[1] for text in ax.texts if text.get_text().startswith("frozen base + head")] == dotted


def test_marks_on_the_strip_do_not_hide_each_other(tmp_path: Path) -> None:
    for name in ("cp", "lora", "tt"):
        write_synthetic(tmp_path, parameterization=name, n_params=1000, accuracy=0.5, status="at chance")
        write_synthetic(tmp_path, parameterization=name, n_params=9000, accuracy=0.8)
    ax = plots.frontier(load_runs(tmp_path), axes())
    ax.figure.canvas.draw()
    hollow = [box for box in boxes(ax, "mean") if box[3] < ax.transData.transform((1, strip(ax)[1]))[1]]
    assert len(hollow) == 3 and not [1 for one, other in itertools.combinations(hollow, 2) if touch(one, other)]


@pytest.mark.parametrize("metric", ["accuracy", "f1", "reward_accuracy", "roc_auc", "matthews", "spearman"])
def test_the_axis_of_scores_ends_at_the_largest_where_nothing_learnt(tmp_path: Path, metric: str) -> None:
    write_synthetic(tmp_path, accuracy=0.45, status="at chance", metric=metric)
    assert plots.frontier(load_runs(tmp_path), axes()).get_ylim()[1] == 1.0


@both
def test_where_nothing_learnt_the_panel_says_so(tmp_path: Path, draw: Draw) -> None:
    ax = draw(write_many(tmp_path, CURVES, at_chance=CURVES, head=None, full=None))
    ax.figure.canvas.draw()
    assert "no run above chance" in [text.get_text() for text in ax.texts]
    assert len(drawn(ax, "mean")) == 4 and heights(ax, "mean")[-1] < strip(ax)[1]
    assert drawn(ax, "frontier") == []


def test_a_rate_at_chance_is_on_the_strip_and_one_that_diverged_too(tmp_path: Path) -> None:
    for lr, status, score in ((1e-3, "finished", 0.8), (1e-2, "at chance", 0.5), (1e-1, "diverged", 0.5)):
        write_synthetic(tmp_path, lr=lr, status=status, accuracy=score, tuning=True)
    rows = curves.rate_rows(load_runs(tmp_path))
    rows[2]["validation"] = None  # predictions that are not finite have no score
    ax = curve_plots.rate_curves(rows, axes())
    low = strip(ax)[1]
    assert {line.get_xdata()[0]: line.get_ydata()[0] < low for line in drawn(ax, "mean")} == {
        1e-3: False,
        1e-2: True,
        1e-1: True,
    }


def test_points_at_chance_are_no_part_of_the_frontier(tmp_path: Path) -> None:
    curve = {"vera": [(1, 10, 0.5)], "cp": [(1, 100, 0.7)], "lora": [(1, 900, 0.8)]}
    runs = write_many(tmp_path, curve, at_chance=["vera"])
    marked = {row["method"]: (row["on_frontier"], row["p_frontier"]) for row in table(runs)[:3]}
    assert marked["VeRA"] == (False, 0.0)
    assert [on for on, _ in marked.values()].count(True) == 2 and marked["CP (LoRTA)"][1] > 0.9
    (step,) = drawn(plots.frontier(runs, axes()), "frontier")
    assert min(step.get_xdata()) == 100 and min(step.get_ydata()) > 0.65


@pytest.mark.parametrize("cost", ["n_params", "seconds"])
@pytest.mark.parametrize(("counts", "least"), [((100, 1e6), 0.75), ((1000, 3000), 0.6), ((10, 12), 0.1)])
def test_limits_of_x_fit_the_costs(tmp_path: Path, cost: str, counts: tuple[float, float], least: float) -> None:
    for name, count in zip(("cp", "lora"), counts, strict=True):
        write_synthetic(tmp_path, parameterization=name, n_params=int(count), seconds=count)
    ax = plots.frontier(load_runs(tmp_path), axes(), x=cost)
    left, right = ax.transAxes.inverted().transform(ax.transData.transform([(count, 0) for count in counts]))[:, 0]
    assert 0.02 < left < right < 0.98 and right - left > least


@pytest.mark.parametrize("cost", ["n_params", "seconds"])
def test_equal_costs_are_in_the_middle_of_a_narrow_axis_with_numbers(tmp_path: Path, cost: str) -> None:
    for name in ("cp", "lora", "tt"):
        write_synthetic(tmp_path, parameterization=name, n_params=7000, seconds=70)
    ax = plots.frontier(load_runs(tmp_path), axes(), x=cost)
    low, high = ax.get_xlim()
    assert high / low < 2.5
    ax.figure.canvas.draw()
    ticks = [text.get_text() for text in ax.get_xticklabels() if low <= float(text.get_text().replace(",", "")) <= high]
    assert len(ticks) >= 2


@pytest.mark.parametrize("width", [3.3, 7.0])
@pytest.mark.parametrize("ratio", [1.5, 5, 9, 30, 43, 80, 120, 300, 900, 3000])
def test_numbers_of_a_logarithmic_axis_are_two_or_more_and_do_not_touch(
    tmp_path: Path, width: float, ratio: float
) -> None:
    for name, count in (("cp", 15_360), ("lora", round(15_360 * ratio))):
        write_synthetic(tmp_path, parameterization=name, n_params=count)
    figure = Figure(figsize=(width, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    ax = plots.frontier(load_runs(tmp_path), figure.subplots())
    figure.canvas.draw()
    low, high = ax.get_xlim()
    places = [*ax.xaxis.get_major_ticks(), *ax.xaxis.get_minor_ticks()]
    named = [tick for tick in places if low <= tick.get_loc() <= high and tick.label1.get_text()]
    boxes = [tick.label1.get_window_extent() for tick in sorted(named, key=lambda tick: tick.get_loc())]
    assert len(boxes) >= 2
    assert all(left.x1 < right.x0 for left, right in itertools.pairwise(boxes))
