"""Draw the frontier: test score against trainable parameters or another cost, from the first finished run on."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from tensoradapt.analysis.figures import canvas, ink
from tensoradapt.analysis.figures.canvas import MARKER
from tensoradapt.analysis.figures.captions import caption, some_runs
from tensoradapt.analysis.figures.frontier_labels import name_ranks, name_references
from tensoradapt.analysis.figures.legends import legend_above
from tensoradapt.analysis.figures.panel import Mark, Panel, draw_line, draw_mark, draw_reference, make_panel
from tensoradapt.analysis.figures.styles import Style, styles_of
from tensoradapt.analysis.old_tables.comparable import score_name, score_range
from tensoradapt.analysis.old_tables.frontier import COSTS, Point, cost_name, points, reference_points
from tensoradapt.runs.store import Run

COUNTED = ("n_params", "adapter_bytes")  # costs over decades
WIDTH, HEIGHT, LOWEST = 7.0, 4.6, 2.6  # inches; the last of the axes
DASHES = {"head": ":", "full": "--"}
# the numbers of a decade that are named: the first that fit, of which two or more are within the limits
STEPS: tuple[tuple[float, ...], ...] = ((1, 1.5, 2, 3, 4, 5, 7), (1, 2, 5), (1, 3), (1,), (2,), (3,), (5,))
ROOM, DIGIT = 0.62, 0.085  # the share of a figure's width that the axes have; the inches of a digit
LABEL = 22.0  # points that a rank needs on the strip


@dataclass(frozen=True)
class Shown:
    """The contents of the figure: points, references and their look."""

    points: list[Point]
    references: dict[str, Mark]
    styles: dict[str, Style]
    bounds: tuple[float, float]  # the least and the largest score
    score: str  # its name on the axis
    cost: str

    @property
    def log(self) -> bool:
        """Whether x is logarithmic: counts, and costs of another's table that span a decade."""
        costs = [point.cost for point in self.points]
        if self.cost in COSTS or not costs:
            return self.cost in COUNTED
        return min(costs) > 0 and max(costs) >= 10 * min(costs)


@dataclass(frozen=True)
class FrontierMarks:
    """A figure without its labels: the panel, and the mark of each point."""

    panel: Panel
    marks: list[Mark]


def draw_frontier(runs: Iterable[Run], cost: str = "n_params", ax: Axes | None = None) -> Axes:
    """Draw the reported runs on ``ax``, new axes if None, and return it.

    Points are means over seeds, bars 95 % t-intervals, ticks on them the seeds; all are at their cost, and so are the
    corners of the frontier. A hollow marker has a run that ended at chance or diverged. Such runs, and points of them
    alone, are on a strip below the scores, as is a mean with such a run that is out of range of the others.

    ``cost``: what x shows, one of ``tables.frontier.COSTS``; measured costs, medians over seeds, are on a linear axis.
    Raises TensorAdaptError where there is no run, or for an unknown cost.
    """
    if ax is None:
        return compose_frontier(runs, cost).axes[0]
    shown = _shown(some_runs(runs), cost)
    return _annotate(_plot(ax, shown), shown)


def save_frontier(
    runs: Iterable[Run], stem: Path, caption_extra: str = "", *, cost: str = "n_params", total: int | None = None
) -> tuple[Path, ...]:
    """Write the plot as ``stem``.png (200 dpi) and ``stem``.pdf and return both paths.

    Each file is replaced whole, and the same runs give the same bytes. Needs no display.
    """
    every = some_runs(runs)
    text = caption(every, total=total, extra=caption_extra)
    with mpl.rc_context(canvas.RC):
        return canvas.write(compose_frontier(every, cost, text), Path(stem))


def compose_frontier(runs: Iterable[Run], cost: str = "n_params", text: str = "") -> Figure:
    """Return the plot on a new figure, with a text below that may be empty."""
    shown, wide = _shown(some_runs(runs), cost), canvas.PAGE.get().width or WIDTH
    figure = canvas.new_figure(wide, HEIGHT)
    _compose(figure, shown, text)
    return figure


def _compose(figure: Figure, shown: Shown, text: str) -> Axes:
    """Draw on axes that leave room for legend, caption, tick labels and names of references; the figure may grow."""
    wide, small = figure.get_figwidth(), figure.get_figwidth() < canvas.NARROW
    note, high = canvas.wrapped_note(figure, text, wide - 0.35) if text else (None, 0.0)
    below = (0.6 if small else 0.64) + high
    right = (0.85 if small else 1.2) if shown.references else (0.12 if small else 0.25)
    least = LOWEST if not small else 0.55 * wide

    def fit(left: float, above: float, right: float) -> tuple[float, float, float, float]:
        height = max(HEIGHT if not small else 0.75 * wide + high, above + least + below)
        figure.set_size_inches(wide, height)
        if note:
            note.set_y(0.1 / height)
        return left / wide, below / height, (wide - left - right) / wide, (height - below - above) / height

    ax = figure.add_axes(fit(0.7, 0.5, right))
    drawn = _plot(ax, shown)
    legend, box, sides = ax.get_legend(), ax.get_window_extent(), (ax.yaxis.get_tightbbox(), ax.xaxis.get_tightbbox())
    left = (0.05 if small else 0.12) + (box.x0 - sides[0].x0) / figure.dpi if sides[0] else 0.7
    right = max(right, 0.05 + (sides[1].x1 - box.x1) / figure.dpi if sides[1] else 0.0)  # the last number of x
    above = 0.08 + (legend.get_window_extent().height / figure.dpi if legend else 0.1)
    ax.set_position(fit(left, above, right))
    return _annotate(drawn, shown)


def _shown(runs: Sequence[Run], cost: str) -> Shown:
    adapters = points(runs, cost, compare=False)
    against = reference_points(runs, compare=False)
    return Shown(
        adapters,
        {kind: Mark.of(math.nan, point.interval, point.scores, point.lost) for kind, point in against.items()},
        styles_of(point.method for point in adapters),
        score_range(runs[0]),
        score_name(runs[0]),
        cost,
    )


def _plot(ax: Axes, shown: Shown) -> FrontierMarks:
    """Draw all but the labels, which are placed around everything else."""
    _x_axis(ax, shown)
    marks = [_mark(point, shown.log) for point in shown.points]
    panel = make_panel(ax, marks, shown.bounds, list(shown.references.values()))
    ax.set_ylabel(shown.score)
    canvas.frame(ax, "both")
    if not marks:
        ax.text(0.5, 0.5, "no adapter run yet", transform=ax.transAxes, color=ink.grey(), ha="center", va="bottom")
    for kind, mark in shown.references.items():
        draw_reference(panel, mark, DASHES[kind])
    step = _draw_step(panel, shown.points, marks)
    own: dict[str, list[Mark]] = {label: [] for label in shown.styles}
    for point, mark in zip(shown.points, marks, strict=True):
        own[point.method].append(mark)
    sizes = _sizes(panel, [mark for of in own.values() for mark in of])
    for label, style in shown.styles.items():
        draw_line(panel, own[label], style, alpha=0.55)
        for mark in own[label]:
            draw_mark(panel, mark, style, sizes[mark])
    if marks:
        _number_x(ax, shown.log)
    if shown.styles:
        legend_above(ax, shown.styles, *step)
    return FrontierMarks(panel, marks)


def _annotate(drawn: FrontierMarks, shown: Shown) -> Axes:
    ax = drawn.panel.ax
    canvas.figure_of(
        ax
    ).draw_without_rendering()  # a layout engine moves the axes only now; labels are placed in pixels
    name_references(drawn.panel, shown.references)
    name_ranks(drawn.panel, shown.points, drawn.marks, shown.styles)
    return ax


def _x_axis(ax: Axes, shown: Shown) -> None:
    found = shown.points
    ax.set_xscale("log" if shown.log else "linear")
    low, high = _limits([point.cost for point in found], shown.log)
    ax.set_xlim(low, high)
    ax.set_xlabel(cost_name(shown.cost))
    if not found:
        ax.set_xticks([])
        ax.set_xticks([], minor=True)


def _number_x(ax: Axes, log: bool) -> None:
    """Write plain numbers at the x axis, as many as it has room for; powers of ten where it has none for two."""
    low, high = ax.get_xlim()
    if not log:
        ax.xaxis.set_major_locator(MaxNLocator(nbins=4 if canvas.narrow(ax) else 8, steps=[1, 2, 2.5, 5, 10]))
        return
    ax.xaxis.set_minor_formatter(NullFormatter())
    text = StrMethodFormatter("{x:,.10g}")
    width = ROOM * min(canvas.page_width(ax), WIDTH) / math.log10(high / low)  # inches of a decade
    for steps in STEPS:
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)))
        ticks = [step * 10.0**k for k in powers for step in steps if low <= step * 10.0**k <= high]
        gaps = [width * math.log10(right / left) for left, right in itertools.pairwise(ticks)]
        if gaps and all(gap > DIGIT * (len(text(right)) + 1) for gap, right in zip(gaps, ticks[1:], strict=True)):
            ax.xaxis.set_major_locator(FixedLocator(ticks))
            ax.xaxis.set_major_formatter(text)
            return


def _limits(costs: Sequence[float], log: bool) -> tuple[float, float]:
    """Return limits a little beyond the costs on both sides.

    Equal counts get a third of a decade in all, equal measured costs a tenth more and less.
    """
    if log or not costs:
        sizes = np.log10([_drawable(value) for value in costs] or [1_000, 1_000_000])
        low, high = float(sizes.min()), float(sizes.max())
        pad = max(0.05 * (high - low) + 0.05, (0.33 - (high - low)) / 2)
        return 10 ** (low - pad), 10 ** (high + pad)
    low, high = min(costs), max(costs)
    pad = max(0.07 * (high - low), 0.1 * high - (high - low) / 2) or 1.0
    return low - pad, high + pad


def _drawable(count: float) -> float:
    """Return a count as it is drawn on a logarithmic axis, where 0 has no logarithm."""
    return count if count > 0 else 1


def _mark(point: Point, log: bool) -> Mark:
    """Return the mark of a point, at its cost."""
    mark = Mark.of(_drawable(point.cost) if log else point.cost, point.interval, point.scores, point.lost)
    return mark if point.rank is None else replace(mark, wide=LABEL)


def _sizes(panel: Panel, marks: Sequence[Mark]) -> dict[Mark, float]:
    """Return the points of markers that are drawn one after the other.

    The first of those that would hide each other is the largest, so that each is seen around the next.
    """
    if not marks:
        return {}
    at = panel.ax.transData.transform([(mark.x, panel.height(mark)) for mark in marks])
    gaps = np.hypot(*np.moveaxis(at[:, None] - at, -1, 0)) * 72 / canvas.figure_of(panel.ax).dpi
    near = gaps < 0.7 * MARKER
    shares = [1.15 ** int(row[i + 1 :].sum()) * 0.8 ** int(row[:i].sum()) for i, row in enumerate(near)]
    return {mark: MARKER * min(max(share, 0.6), 1.4) for mark, share in zip(marks, shares, strict=True)}


def _draw_step(panel: Panel, found: Sequence[Point], marks: Sequence[Mark]) -> list[Line2D]:
    """Draw the frontier through its points, without those on the strip; return its line if it has one."""
    on = [mark for point, mark in zip(found, marks, strict=True) if point.on_frontier and not panel.on_strip(mark)]
    if not on:
        return []
    x, y = [*(mark.x for mark in on), panel.ax.get_xlim()[1]], [*(mark.mean for mark in on), on[-1].mean]
    look: dict[str, Any] = {"color": ink.dark(), "alpha": 0.45, "linewidth": 2.6, "zorder": 1.8, "gid": "frontier"}
    return panel.ax.step(x, y, where="post", solid_capstyle="butt", label="frontier", **look)
