"""Draw the frontier: test score against trainable parameters or another cost, from the first finished run on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from tensoradapt.analysis.figures import canvas
from tensoradapt.analysis.figures.canvas import DARK, GREY, Style
from tensoradapt.analysis.figures.captions import TUNED, caption, some_runs
from tensoradapt.analysis.figures.frontier_labels import name_ranks, name_references
from tensoradapt.analysis.statistics.intervals import Interval
from tensoradapt.analysis.tables.frontier import COSTS, Point, points, references
from tensoradapt.runs.store import Run

COUNTED = ("n_params", "adapter_bytes")  # costs over decades
WIDTH, HEIGHT, LOWEST = 7.0, 4.6, 2.6  # inches; the last of the axes
DASHES = {"head": ":", "full": "--"}
APART = 0.016  # of the axis, about the width of a marker


@dataclass(frozen=True)
class Shown:
    """Content of the figure; ``beside`` are the points moved to where they are drawn."""

    points: list[Point]
    beside: list[Point]
    references: dict[str, Interval]
    styles: dict[str, Style]
    metric: str
    cost: str


def frontier(
    runs: Iterable[Run],
    ax: Axes | None = None,
    *,
    cost: str = "n_params",
    total: int | None = None,
    caption_extra: str = "",
    rates: str = TUNED,
) -> Axes:
    """Draw the runs on ``ax`` and return it; without ``ax``, on a new pyplot figure that also has a caption.

    Points are means over seeds, bars 95 % t-intervals; a hollow marker has a run that ended at chance or diverged;
    methods of equal cost are side by side.

    Args:
        cost: what x shows, one of ``tables.frontier.COSTS``; measured costs, medians over seeds, are on a linear axis.
        total: number of runs that the whole sweep has.
        caption_extra: text to add to the caption.
        rates: how learning rates were chosen.

    Raises:
        TensorAdaptError: where there is no run, or for an unknown cost.
    """
    every = some_runs(runs)
    if ax is not None:
        shown = _shown(every, cost)
        _plot(ax, shown)
        return _annotate(ax, shown)
    from matplotlib import pyplot  # only here: it may start a window system, and it keeps every figure

    with mpl.rc_context(canvas.RC):
        text = caption(every, total=total, extra=caption_extra, rates=rates)
        return _compose(pyplot.figure(figsize=(WIDTH, HEIGHT)), _shown(every, cost), text)


def save_frontier(
    runs: Iterable[Run],
    stem: Path,
    caption_extra: str = "",
    *,
    cost: str = "n_params",
    total: int | None = None,
    rates: str = TUNED,
) -> tuple[Path, Path]:
    """Write the plot as ``stem``.png (200 dpi) and ``stem``.pdf and return both paths.

    Each file is replaced whole, and the same runs give the same bytes. Needs no display.
    """
    every = some_runs(runs)
    text = caption(every, total=total, extra=caption_extra, rates=rates)
    return canvas.write(frontier_figure(every, text, cost), Path(stem))


def frontier_figure(runs: Iterable[Run], text: str, cost: str = "n_params") -> Figure:
    """The plot with a caption below, on a figure that belongs to no window system."""
    with mpl.rc_context(canvas.RC):
        figure = canvas.new_figure(WIDTH, HEIGHT)
        _compose(figure, _shown(some_runs(runs), cost), text)
    return figure


def _compose(figure: Figure, shown: Shown, text: str) -> Axes:
    """Draw on axes that leave room for legend, caption, tick labels and names of references; the figure may grow."""
    note, high = canvas.wrapped_note(figure, text, WIDTH - 0.35)
    below = 0.64 + high
    right = 1.2 if shown.references else 0.25

    def fit(left: float, above: float) -> tuple[float, float, float, float]:
        height = max(HEIGHT, above + LOWEST + below)
        figure.set_size_inches(WIDTH, height)
        note.set_y(0.1 / height)
        return left / WIDTH, below / height, (WIDTH - left - right) / WIDTH, (height - below - above) / height

    ax = figure.add_axes(fit(0.7, 0.5))
    _plot(ax, shown)
    legend, label = ax.get_legend(), ax.yaxis.get_tightbbox()
    left = 0.12 + (ax.get_window_extent().x0 - label.x0) / figure.dpi if label else 0.7
    above = 0.08 + (legend.get_window_extent().height / figure.dpi if legend else 0.1)
    ax.set_position(fit(left, above))
    return _annotate(ax, shown)


def _shown(runs: Sequence[Run], cost: str) -> Shown:
    adapters = points(runs, cost, compare=False)
    return Shown(
        adapters,
        _side_by_side(adapters, cost),
        references(runs),
        canvas.styles(point.method for point in adapters),
        str(runs[0].result["metric"]).replace("_", " "),
        cost,
    )


def _side_by_side(found: Sequence[Point], cost: str) -> list[Point]:
    """The points, with those of equal cost a marker apart, so that no interval hides another."""
    low, high = _limits(found, cost)
    moved = []
    for point in found:
        same = [other.method for other in found if other.cost == point.cost]
        steps = APART * (same.index(point.method) - (len(same) - 1) / 2)
        at = point.cost * (high / low) ** steps if cost in COUNTED else point.cost + (high - low) * steps
        moved.append(replace(point, cost=at))
    return moved


def _plot(ax: Axes, shown: Shown) -> None:
    """Draw all but the labels, which are placed around everything else."""
    _frame(ax, shown)
    _draw_references(ax, shown.references)
    _draw_step(ax, shown.points)
    for label, style in shown.styles.items():
        _draw_method(ax, [point for point in shown.beside if point.method == label], style)
    if shown.styles:
        step = Line2D([], [], color=DARK, alpha=0.45, linewidth=2.6, label="frontier")
        canvas.legend_above(ax, shown.styles, step)


def _annotate(ax: Axes, shown: Shown) -> Axes:
    canvas.figure_of(
        ax
    ).draw_without_rendering()  # a layout engine moves the axes only now; labels are placed in pixels
    name_references(ax, shown.references)
    name_ranks(ax, shown.beside, shown.styles)
    return ax


def _frame(ax: Axes, shown: Shown) -> None:
    ax.set_xscale("log" if shown.cost in COUNTED else "linear")
    ax.set_xlim(_limits(shown.points, shown.cost))
    intervals = [point.interval for point in shown.points] + list(shown.references.values())
    ax.set_ylim(_y_limits(intervals, shown.metric))
    ax.set_xlabel(COSTS[shown.cost])
    ax.set_ylabel(f"test {shown.metric}")
    ax.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
    canvas.frame(ax, "both")
    if not shown.points:
        ax.set_xticks([])
        ax.set_xticks([], minor=True)
        ax.text(0.5, 0.5, "no adapter run yet", transform=ax.transAxes, color=GREY, ha="center", va="bottom")


def _limits(found: Sequence[Point], cost: str) -> tuple[float, float]:
    """Of counts half a decade around the points, and a little over two decades at least; of measured costs, which
    differ by less than decades, a tenth of their range on both sides.
    """
    if cost in COUNTED:
        sizes = np.log10([max(point.cost, 1) for point in found] or [1_000, 1_000_000])
        low, high = float(sizes.min()), float(sizes.max())
        pad = max(0.06 * (high - low) + 0.12, (2.2 - (high - low)) / 2)
        return 10 ** (low - pad), 10 ** (high + pad)
    costs = [point.cost for point in found] or [0.0, 1.0]
    pad = 0.1 * (max(costs) - min(costs)) or 0.5 * max(costs) or 1.0
    return min(costs) - pad, max(costs) + pad


def _y_limits(intervals: Sequence[Interval], metric: str) -> tuple[float, float]:
    """Limits with all means, and with the bars as far as they do not squeeze the means."""
    means = [interval.mean for interval in intervals]
    low, high = min(means), max(means)
    room = 0.4 * max(high - low, 0.05)
    low = max(low - room, np.nanmin([low, *(interval.low for interval in intervals)]))
    high = min(high + room, np.nanmax([high, *(interval.high for interval in intervals)]))
    pad = max(0.07 * (high - low), (0.05 - (high - low)) / 2)
    top = high + pad
    return float(low - pad), float(min(top, 1 + 0.07 * (high - low)) if metric == "accuracy" and high <= 1 else top)


def _draw_references(ax: Axes, against: dict[str, Interval]) -> None:
    for kind, interval in against.items():
        ax.axhline(interval.mean, color=GREY, linestyle=DASHES[kind], linewidth=1.1, zorder=1.5)
        if np.isfinite(interval.low):
            ax.axhspan(interval.low, interval.high, color=GREY, alpha=0.1, linewidth=0, zorder=0.5)


def _draw_step(ax: Axes, found: Sequence[Point]) -> None:
    steps = [(point.cost, point.interval.mean) for point in found if point.on_frontier]
    if steps:
        x, y = zip(*steps, (ax.get_xlim()[1], steps[-1][1]), strict=True)
        ax.step(x, y, where="post", color=DARK, alpha=0.45, linewidth=2.6, zorder=1.8, solid_capstyle="butt")


def _draw_method(ax: Axes, found: Sequence[Point], style: Style) -> None:
    x = [point.cost for point in found]
    y = [point.interval.mean for point in found]
    ax.plot(x, y, color=style.colour, linewidth=0.9, alpha=0.55, zorder=2)
    low, high = ax.get_ylim()
    for point in found:
        interval, hollow = point.interval, bool(point.n_at_chance + point.n_diverged)
        if np.isfinite(interval.low):
            ax.plot([point.cost] * 2, [interval.low, interval.high], color=style.colour, linewidth=1.2, zorder=2.5)
            for cut, edge, arrow in ((interval.low < low, low, "v"), (interval.high > high, high, "^")):
                if cut:  # the bar goes on outside
                    ax.plot(point.cost, edge, arrow, color=style.colour, markersize=3.5, clip_on=False, zorder=2.6)
        canvas.draw_marker(ax, point.cost, interval.mean, style, hollow)
