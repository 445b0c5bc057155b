"""Figures of comparisons: a forest of paired differences, a heat map of layouts, and mean ranks.

Mean ranks show which methods are not told apart.

Each function draws on ``ax``, new axes if None, and returns it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from tensoradapt.analysis.figures import ink
from tensoradapt.analysis.figures.canvas import (
    NAME,
    TITLE,
    cell_width,
    escape_math,
    extent,
    fitting_size,
    folded,
    frame,
    label_width,
    new_axes,
    row_axes,
    row_names,
    scaled,
)
from tensoradapt.analysis.names import display, displayed
from tensoradapt.analysis.statistics.significance import Comparison, Ranking
from tensoradapt.errors import TensorAdaptError

ROW, DENSE = 0.32, 0.19  # inches
LONG = 3  # times the median half of an interval: what is drawn beyond the means at the most
WIDE, HIGH, NUMBER = 0.62, 0.36, 6.5  # inches of a cell of a heat map, and points of the type in it
MAP, SHADE = "PuOr", 0.6  # orange below, purple above; share of the map that the largest difference has
BESIDE = 7  # points of the type right of the axes


def forest(
    comparisons: Sequence[Comparison],
    ax: Axes | None = None,
    *,
    metric: str = "score",
    bounds: tuple[float, float] = (-math.inf, math.inf),
    alpha: float = 0.05,
) -> Axes:
    """Draw a row for each comparison, the first on top: its difference with its interval, and the corrected p value.

    A difference is filled where it holds at ``alpha`` after correction, hollow elsewhere. An arrow: the interval is
    longer.

    ``bounds``: the range of the metric. Raises TensorAdaptError without comparisons.
    """
    if not comparisons:
        raise TensorAdaptError("there are no comparisons to draw; expected those of significance.compare")
    (names, size), label = row_names(_names(comparisons), ax), _difference(comparisons, metric, label_width(ax))
    if ax is None:
        ax = row_axes(names, 4.4, 0.7 + extent([label], TITLE)[1], ROW if len(comparisons) < 9 else DENSE)
    ax.axvline(0, color=ink.grey(), linewidth=0.8, zorder=0)
    beside: dict[str, Any] = {"xycoords": ax.get_yaxis_transform(), "va": "center", "annotation_clip": False}
    low, high = _reach(comparisons, bounds)
    for row, comparison in enumerate(comparisons):
        interval = comparison.difference
        ends = [max(interval.low, low), min(interval.high, high)]
        ax.plot(ends, [row, row], color=ink.dark(), linewidth=1.4, solid_capstyle="butt")
        for cut, end, arrow in ((interval.low < low, low, "<"), (interval.high > high, high, ">")):
            if cut:
                ax.plot(end, row, arrow, color=ink.dark(), markersize=3.5, gid="cut")
        face = ink.dark() if comparison.adjusted < alpha else ink.paper()
        ax.plot(interval.mean, row, "o", color=ink.dark(), markerfacecolor=face, markersize=6, zorder=3)
        ax.annotate(f"p {_p(comparison.adjusted)}", (1.02, row), fontsize=scaled(BESIDE), color=ink.dark(), **beside)
    ax.set_yticks(range(len(comparisons)), names, fontsize=size)
    ax.set_ylim(len(comparisons) - 0.4, -0.6)
    ax.set_xlabel(label, fontsize=scaled(TITLE))
    ax.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10]))  # quarters have a digit more
    frame(ax)
    return ax


def layout_map(rows: Sequence[Mapping[str, Any]], ax: Axes | None = None) -> Axes:
    """Draw a heat map: rows are layouts, columns parameterizations at each size.

    A cell has the mean, and below it the difference to the reference at that size, with a star where its 95 % interval
    leaves 0 out; its colour is the difference. The reference has a frame, and a cell without one is empty.

    ``rows``: of ``tables.contrasts.layout_rows``. Raises TensorAdaptError without any.
    """
    if not rows:
        raise TensorAdaptError("there is nothing to draw; expected runs over two layouts or more: run the sweep first")
    layouts = sorted({row["layout"] for row in rows}, key=lambda layout: (_tied(layout), layout))
    columns = _columns(rows)
    names, size = row_names(layouts, ax, 9.0)
    if ax is None:
        ax = row_axes(names, 0.4 + WIDE * len(columns), 0.75, HIGH)
    largest = max((abs(row["difference"]) for row in rows if row["difference"] is not None), default=0.0) or 1.0
    wide = cell_width(ax, names, len(columns))
    shown = fitting_size("+0.000*", 0.95 * wide, NUMBER)
    for row in rows:
        at = columns.index((row["size"], row["parameterization"])), layouts.index(row["layout"])
        _draw_cell(ax, at, row, largest, shown)
    ax.set_xlim(-0.5, len(columns) - 0.5)
    ax.set_ylim(len(layouts) - 0.5, -0.5)
    ax.set_yticks(range(len(layouts)), names, fontsize=size)
    shown_as = displayed({name for _, name in columns})
    ax.set_xticks(
        range(len(columns)),
        [escape_math(shown_as[name]) for _, name in columns],
        fontsize=scaled(NUMBER),
        **_turned(wide),
    )
    ax.tick_params(length=0, labelcolor=ink.dark())
    ax.spines[:].set_visible(False)
    _name_sizes(ax, [size for size, _ in columns])
    return ax


def _tied(layout: str) -> int:
    return len(layout.split(":")[0].split())


def _columns(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Return sizes from the smallest up with the parameterizations at each by name, LoRA first."""
    least = {row["size"]: min(other["n_params"] for other in rows if other["size"] == row["size"]) for row in rows}
    pairs = {(row["size"], row["parameterization"]) for row in rows}
    return sorted(pairs, key=lambda pair: (least[pair[0]], pair[0], pair[1] != "lora", pair[1]))


def _turned(width: float) -> dict[str, Any]:
    """Return the rotation of names below columns: upright where columns are narrower than two lines."""
    upright = width < 2 * extent(["x"], NUMBER)[1]
    return {"rotation": 90} if upright else {"rotation": 30, "ha": "right", "rotation_mode": "anchor"}


def _draw_cell(ax: Axes, at: tuple[int, int], row: Mapping[str, Any], largest: float, size: float) -> None:
    gap = row["difference"]
    share = 0.5 + SHADE * (gap or 0.0) / largest / 2
    face = "#eeeeee" if gap is None and not row["reference"] else colormaps[MAP](share)
    edge: dict[str, Any] = {"edgecolor": ink.dark(), "linewidth": 1.6} if row["reference"] else {"edgecolor": "none"}
    corner = at[0] - 0.47, at[1] - 0.45
    ax.add_patch(Rectangle(corner, 0.94, 0.9, facecolor=face, gid="cell", zorder=2 if row["reference"] else 1, **edge))
    decided = gap is not None and (row["difference_low"] > 0 or row["difference_high"] < 0)
    below = "" if gap is None else f"\n{gap:+.3f}{'*' if decided else ''}"
    text = f"{row['mean']:.3f}{below}" if size else "*" if decided else ""
    look: dict[str, Any] = {"ha": "center", "va": "center", "color": "black", "linespacing": 1.15, "zorder": 3}
    ax.text(*at, text, fontsize=scaled(size or NUMBER), **look)


def _name_sizes(ax: Axes, sizes: Sequence[str]) -> None:
    """Write each size above its columns, and draw a line between sizes."""
    look: dict[str, Any] = {"ha": "center", "va": "bottom", "fontsize": scaled(NAME), "color": ink.dark()}
    look["transform"] = ax.get_xaxis_transform()
    for size in dict.fromkeys(sizes):
        own = [i for i, other in enumerate(sizes) if other == size]
        ax.text(sum(own) / len(own), 1.01, size, **look)
        if own[-1] + 1 < len(sizes):
            ax.axvline(own[-1] + 0.5, color=ink.grey(), linewidth=0.8)


def aggregates(rows: Sequence[dict[str, Any]], ax: Axes | None = None) -> Axes:
    """Draw a row for each method and size, by size: the interquartile mean over tasks with its bootstrap interval.

    Right of it is the probability that a run beats one of the reference's.

    ``rows``: of ``over_tasks.summary_rows``. Raises TensorAdaptError without rows.
    """
    if not rows:
        raise TensorAdaptError("there are no rows to draw; expected those of over_tasks.summary_rows")
    sizes = list(dict.fromkeys(row["size"] for row in rows))
    ordered = sorted(rows, key=lambda row: (sizes.index(row["size"]), -row["iqm"]))
    shown = displayed({row["method"] for row in rows})
    names, size = row_names([f"{shown[row['method']]}  {row['size']}" for row in ordered], ax)
    against = rows[0]["reference"]
    head = folded(f"P(> {shown.get(against, against)})", 1.5, BESIDE)
    if ax is None:
        wide, high = extent([head, "0.00  [0.00, 0.00]"], BESIDE)
        ax = row_axes(names, 4.2 + wide, 0.9 + high, DENSE)
    where: dict[str, Any] = {"annotation_clip": False, "fontsize": scaled(BESIDE), "color": ink.dark()}
    if any(row["better"] is not None for row in rows):
        ax.annotate(head, (1.02, 1), xycoords="axes fraction", va="bottom", **where)
    where |= {"xycoords": ax.get_yaxis_transform(), "va": "center"}
    for y, row in enumerate(ordered):
        if y and row["size"] != ordered[y - 1]["size"]:
            ax.axhline(y - 0.5, color=ink.grey(), linewidth=0.5)
        ax.plot([row["low"], row["high"]], [y, y], color=ink.dark(), linewidth=1.4, solid_capstyle="butt")
        ax.plot(row["iqm"], y, "o", color=ink.dark(), markersize=5, zorder=3)
        if row["better"] is not None:
            text = f"{row['better']:.2f}  [{row['better_low']:.2f}, {row['better_high']:.2f}]"
            ax.annotate(text, (1.02, y), **where)
    ax.set_yticks(range(len(ordered)), names, fontsize=size)
    ax.set_ylim(len(ordered) - 0.4, -0.6)
    label = "interquartile mean over tasks of (score - chance) / (perfect - chance)"
    ax.set_xlabel(folded(label, label_width(ax), TITLE))
    frame(ax, "x")
    return ax


def critical_differences(found: Ranking, ax: Axes | None = None) -> Axes:
    """Draw mean ranks on an axis, the best on the left, each method on a row of its own.

    A bar joins the methods of a clique, which are not told apart (Demsar, JMLR 2006, with Wilcoxon-Holm cliques).
    """
    ranks, top = list(found.ranks.values()), len(found.cliques)
    shown = displayed(found.ranks)
    names, size = row_names([f"{shown[name]}  {rank:.2f}" for name, rank in found.ranks.items()], ax)
    if ax is None:
        wide, high = extent(names)
        ax = new_axes(5.2 + max(0, wide - 1), 0.9 + max(ROW, high + 0.08) * (len(ranks) + top))
    for i, (name, rank) in enumerate(zip(names, ranks, strict=True)):
        row = top + i + 0.5
        ax.plot([rank, rank], [0, row], color=ink.grey(), linewidth=0.8, zorder=0)
        ax.plot(rank, 0, "|", color=ink.dark(), markersize=9)
        box = {"boxstyle": "square,pad=0.15", "facecolor": ink.paper(), "edgecolor": "none"}
        ax.annotate(name, (rank, row), ha="center", va="center", fontsize=size, color=ink.dark(), bbox=box)
    for i, clique in enumerate(found.cliques):
        ends = [found.ranks[clique[0]], found.ranks[clique[-1]]]
        ax.plot(ends, [i + 0.6] * 2, color=ink.dark(), linewidth=3.5, solid_capstyle="butt")
    ax.set_ylim(top + len(ranks) + 0.2, 0)
    ax.set_xlim(0.6, len(ranks) + 0.4)
    ax.set_xticks(range(1, len(ranks) + 1))
    ax.xaxis.set_ticks_position("top")
    ax.xaxis.set_label_position("top")
    ax.set_xlabel(f"mean rank, 1 is best (Friedman p {_p(found.friedman_p)})")
    ax.set_yticks([])
    frame(ax)
    ax.spines["top"].set_visible(True)
    ax.spines[["left", "bottom"]].set_visible(False)
    return ax


def some_cut(comparisons: Sequence[Comparison], bounds: tuple[float, float]) -> bool:
    """Return whether a forest does not draw the whole of every interval."""
    low, high = _reach(comparisons, bounds)
    return any(one.difference.low < low or one.difference.high > high for one in comparisons)


def _reach(comparisons: Sequence[Comparison], bounds: tuple[float, float]) -> tuple[float, float]:
    """Return how far intervals are drawn: in the metric's range, and so that a few long ones leave the rest room."""
    differences = [comparison.difference for comparison in comparisons]
    means = [0.0, *(interval.mean for interval in differences)]
    halves = [(interval.high - interval.low) / 2 for interval in differences if math.isfinite(interval.low)]
    room = max(LONG * median(halves or [0.0]), max(means) - min(means))
    least, most = bounds
    return max(min(means) - room, least - most), min(max(means) + room, most - least)


def _names(comparisons: Sequence[Comparison]) -> list[str]:
    """Return the names of the rows, without the reference where all have the same, which the axis then names."""
    alone = _reference(comparisons) is not None
    budgets = [f", {pair.budget:,.0f}" if pair.budget is not None else "" for pair in comparisons]
    shown = displayed({name for pair in comparisons for name in (pair.first, pair.second)})
    both = [(shown[pair.first], shown[pair.second]) for pair in comparisons]
    sides = [first if alone else f"{first} - {second}" for first, second in both]
    return [side + budget for side, budget in zip(sides, budgets, strict=True)]


def _difference(comparisons: Sequence[Comparison], metric: str, width: float) -> str:
    reference = _reference(comparisons)
    what = f"difference in {metric}" + (f" to {display(reference)}" if reference is not None else "")
    n = " or ".join(map(str, sorted({pair.difference.n for pair in comparisons})))
    over = " or ".join(sorted({pair.over for pair in comparisons}))
    paired = over if "one seed" in over else f"{n} {over}"
    lines = (what, f"(paired over {paired}; 95 % t interval)")
    return "\n".join(folded(line, width, TITLE) for line in lines)


def _reference(comparisons: Sequence[Comparison]) -> str | None:
    references = {pair.second for pair in comparisons}
    return references.pop() if len(references) == 1 else None


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
