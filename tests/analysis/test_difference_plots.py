"""Forests and rank diagrams show the numbers they are given, and nothing on them overlaps."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from matplotlib.axes import Axes

import tensoradapt as ta
from tensoradapt.analysis.figures.difference_plots import critical_differences, forest, some_cut
from tensoradapt.analysis.statistics.significance import Ranking, compare, ranking
from tensoradapt.metrics.table import range_of

rng = np.random.default_rng(0)
SCORES = {name: level + rng.normal(0, 0.02, 5) for name, level in {"lora": 0.70, "lorta": 0.70, "vera": 0.6}.items()}
BLOCKS = {f"method {i}": 0.9 - 0.04 * (i // 2) + rng.normal(0, 0.02, 20) for i in range(6)}


def test_a_forest_has_a_row_for_each_comparison_filled_where_it_holds() -> None:
    found = compare(SCORES)
    ax = forest(found, metric="accuracy", bounds=(0.0, 1.0))
    bars, dots = ax.lines[1::2], ax.lines[2::2]
    assert [list(bar.get_xdata()) for bar in bars] == [[one.difference.low, one.difference.high] for one in found]
    assert [dot.get_xdata()[0] for dot in dots] == [one.difference.mean for one in found]
    assert [dot.get_markerfacecolor() != "#ffffff" for dot in dots] == [one.adjusted < 0.05 for one in found]
    assert {one.adjusted < 0.05 for one in found} == {True, False}
    assert [text.get_text() for text in ax.get_yticklabels()] == ["LoRA - LoRTA", "LoRA - VeRA", "LoRTA - VeRA"]
    assert "accuracy\n(paired over 5 seeds; 95 % t interval)" in ax.get_xlabel()
    nothing_overlaps(ax)


def test_a_long_interval_ends_at_an_arrow_and_squeezes_no_other() -> None:
    first, *others = compare(SCORES)
    wide = replace(first, difference=replace(first.difference, low=-90.0, high=0.9))
    ax = forest([wide, *others], metric="accuracy", bounds=(0.0, 1.0))
    assert some_cut([wide, *others], (0.0, 1.0)) and not some_cut([first, *others], (0.0, 1.0))
    low, high = ax.get_xlim()
    assert -0.5 < low < min(one.difference.low for one in others) and high < 0.5
    arrows = [(line.get_marker(), line.get_ydata()[0]) for line in ax.lines if line.get_gid() == "cut"]
    assert arrows == [("<", 0), (">", 0)]


def test_a_difference_stays_in_the_range_of_the_metric() -> None:
    every = [replace(one, difference=replace(one.difference, mean=-0.9, low=-1.9, high=0.1)) for one in compare(SCORES)]
    for metric, least in (("accuracy", -1.0), ("matthews", -1.9), ("score", -1.9)):
        bars = [
            line for line in forest(every, metric=metric, bounds=range_of(metric)).lines if len(line.get_xdata()) == 2
        ][1:]
        assert {min(bar.get_xdata()) for bar in bars} == {least}


def test_a_reference_of_all_comparisons_is_named_once_below_them() -> None:
    ax = forest([replace(one, budget=3000) for one in compare(SCORES, "lora")], metric="accuracy", bounds=(0.0, 1.0))
    assert [text.get_text() for text in ax.get_yticklabels()] == ["LoRTA, 3,000", "VeRA, 3,000"]
    assert ax.get_xlabel().splitlines()[0] == "difference in accuracy to LoRA"


def test_a_rank_diagram_has_every_mean_rank_and_a_bar_for_each_clique() -> None:
    found = ranking(BLOCKS)
    ax = critical_differences(found)
    assert [text.get_text() for text in ax.texts] == [f"{name}  {rank:.2f}" for name, rank in found.ranks.items()]
    bars = [line for line in ax.lines if line.get_linewidth() > 3]
    ends = [[found.ranks[clique[0]], found.ranks[clique[-1]]] for clique in found.cliques]
    assert [list(bar.get_xdata()) for bar in bars] == ends != []
    nothing_overlaps(ax)


def test_methods_of_equal_rank_have_rows_of_their_own() -> None:
    nothing_overlaps(critical_differences(Ranking(dict.fromkeys(("one", "two", "three"), 2.0), 1.0, ())))


def test_nothing_to_draw_is_refused_and_axes_are_ones_own() -> None:
    with pytest.raises(ta.TensorAdaptError, match="no comparisons to draw"):
        forest([])
    ax = forest(compare(SCORES))
    assert forest(compare(SCORES), ax) is ax
    assert critical_differences(ranking(BLOCKS), ax) is ax


def nothing_overlaps(ax: Axes) -> None:
    figure = ax.figure
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in (*ax.texts, *ax.get_yticklabels(), ax.xaxis.label)]
    whole = figure.bbox
    assert all(whole.x0 <= box.x0 and box.x1 <= whole.x1 and whole.y0 <= box.y0 and box.y1 <= whole.y1 for box in boxes)
    assert not [1 for one, other in combinations(boxes, 2) if one.overlaps(other)]
