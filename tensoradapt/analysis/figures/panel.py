"""A panel of scores: means with intervals and seeds, and below them a strip for what ended at chance.

The limits of y follow the means and seeds of what learnt, never an interval or a run at chance, so neither squeezes the
rest. The strip is a band of the same axes that has no scale; it exists only where a run ended at chance or diverged.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedFormatter, FixedLocator, MaxNLocator, NullLocator, ScalarFormatter
from matplotlib.transforms import Transform, offset_copy

from tensoradapt.analysis.figures import ink
from tensoradapt.analysis.figures.canvas import MARKER, draw_marker, figure_of
from tensoradapt.analysis.figures.styles import Style
from tensoradapt.analysis.statistics.intervals import Interval

TICK = MARKER + 1.0  # points: the width of a seed's tick, which is seen on both sides of a marker
PITCH = 2.4  # points between the ticks of lost seeds, which are above each other on the strip
ROW, ROWS, TALL = 11.0, 4, 21.0  # points: the height of a row of the strip; the most rows; the least height
LEAST = 0.04  # the least height of a panel, as a score
PALE = 0.3  # share of paper in the colour of a tick
CLEAR = 18.0  # points between the middle of the strip and that of the lowest tick
STRIP = "at\nchance"


@dataclass(frozen=True, eq=False)  # two marks of equal numbers are two
class Mark:
    """One mean: where it is, its interval, and its seeds, of which some are ``lost``: at chance or diverged.

    A single seed is the mean, and has no tick. ``shift`` is how many points right of ``x`` it is drawn, ``wide`` how
    many points of a row its label needs.
    """

    x: float
    mean: float
    low: float = math.nan
    high: float = math.nan
    scores: tuple[float, ...] = ()
    lost: tuple[bool, ...] = ()
    shift: float = 0.0
    wide: float = 0.0

    @classmethod
    def of(cls, x: float, interval: Interval, scores: Sequence[float], lost: Sequence[bool]) -> Mark:
        """Return the mark of an interval over seeds."""
        return cls(x, interval.mean, interval.low, interval.high, tuple(scores), tuple(lost))

    @property
    def learnt(self) -> list[float]:
        """The scores of the seeds that are above chance."""
        return [score for score, lost in zip(self.scores, self.lost, strict=False) if not lost]

    @property
    def all_lost(self) -> bool:
        """Whether no seed is above chance."""
        return bool(self.lost) and all(self.lost)

    def heights(self) -> list[float]:
        """Return the scores that y must show: of a mean with lost seeds, those of its other seeds alone."""
        return self.learnt if any(self.lost) else [self.mean, *self.scores]


@dataclass(frozen=True)
class Panel:
    """The parts of axes: scores from ``low`` to ``high``, and below them the strip.

    ``bounds``: the range of the metric; ``rows``: the y on the strip of each mark with a lost seed.
    """

    ax: Axes
    low: float
    high: float
    bounds: tuple[float, float]
    rows: dict[Mark, float] = field(default_factory=dict)

    def on_strip(self, mark: Mark) -> bool:
        """Return whether the mean is on the strip: every seed is lost, or some are and the mean is out of range."""
        return mark.all_lost or (any(mark.lost) and not self.low <= mark.mean <= self.high)

    def height(self, mark: Mark) -> float:
        """Return the y at which the mean is drawn."""
        return self.rows[mark] if self.on_strip(mark) else mark.mean


def make_panel(ax: Axes, marks: Sequence[Mark], bounds: tuple[float, float], references: Sequence[Mark] = ()) -> Panel:
    """Set y's limits and ticks, and draw the empty strip if one of the marks needs it. x has its limits already.

    ``bounds``: the range of the metric, infinite where it has no end.
    """
    heights = [score for mark in (*marks, *references) for score in mark.heights() if math.isfinite(score)]
    low, high = score_limits(heights, bounds) if heights else empty_limits(marks, bounds)
    ax.set_ylim(low, high)
    ax.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
    lost = [mark for mark in (*marks, *references) if any(mark.lost)]
    if not lost:
        return Panel(ax, low, high, bounds)
    places = _strip_rows(ax, lost)
    share = min(0.4, max(ROW * (max(places.values()) + 1.4), TALL) / _height(ax))
    least = (low - share * high) / (1 - share)
    row = (low - least) / (max(places.values()) + 1)
    panel = Panel(ax, low, high, bounds, {mark: least + (place + 0.5) * row for mark, place in places.items()})
    _draw_strip(panel, least)
    if not heights:
        look: dict[str, Any] = {"transform": ax.transAxes, "color": ink.grey(), "ha": "center", "va": "bottom"}
        ax.text(0.5, 0.55, "no run above chance", **look)
    return panel


def score_limits(scores: Sequence[float], bounds: tuple[float, float]) -> tuple[float, float]:
    """Return limits with a margin around all scores; beyond the range of the metric only what half a marker needs.

    >>> score_limits([0.8, 0.9], (0, 1))
    (0.79, 0.91)
    """
    low, high = min(scores), max(scores)
    pad = max(0.1 * (high - low), (least_height(bounds) - (high - low)) / 2)
    beyond = 0.04 * (high - low + 2 * pad)
    return max(low - pad, bounds[0] - beyond), min(high + pad, bounds[1] + beyond)


def least_height(bounds: tuple[float, float]) -> float:
    """Return the least height of a panel: more where scores are in percent."""
    return 100 * LEAST if bounds[1] == 100 else LEAST


def empty_limits(marks: Sequence[Mark], bounds: tuple[float, float]) -> tuple[float, float]:
    """Return the limits of a panel where no run is above chance: the range of the metric, from the best score on."""
    best = max((mark.mean for mark in marks if math.isfinite(mark.mean)), default=0.0)
    return (best, bounds[1]) if math.isfinite(bounds[1]) and best < bounds[1] else (best, best + 1)


def _height(ax: Axes) -> float:
    """Return the height of the axes in points."""
    return ax.get_window_extent().height * 72 / figure_of(ax).dpi


def _across(ax: Axes, mark: Mark) -> float:
    """Return the points from the left of the figure to a mark; a reference, which has no x, is on the far right."""
    if not math.isfinite(mark.x):
        return float(ax.get_window_extent().x1) * 72 / figure_of(ax).dpi
    return float(ax.transData.transform((mark.x, 0))[0]) * 72 / figure_of(ax).dpi + mark.shift


def _strip_rows(ax: Axes, lost: Sequence[Mark]) -> dict[Mark, int]:
    """Return each mark's row of the strip, 0 the lowest; none covers another as long as ``ROWS`` are enough."""
    ends: list[float] = []
    rows = {}
    for mark in sorted(lost, key=lambda mark: _across(ax, mark)):
        left = _across(ax, mark) - TICK / 2
        row = next((i for i, end in enumerate(ends) if end <= left), len(ends))
        if row == ROWS:
            row = ends.index(min(ends))
        right = left + TICK + 1 + mark.wide
        ends[row : row + 1] = [right]
        rows[mark] = row
    return rows


def _draw_strip(panel: Panel, least: float) -> None:
    """Draw the band with its name as a tick, and a break in the axis between it and the scores."""
    ax, low, high = panel.ax, panel.low, panel.high
    ax.set_ylim(least, high)
    middle, room = (least + low) / 2, CLEAR * (high - least) / _height(ax)
    tried = MaxNLocator(nbins=6, steps=[1, 2, 5, 10]).tick_values(low, high)
    ticks = [tick for tick in tried if max(low, middle + room) <= tick <= high]
    form = ScalarFormatter(useOffset=False)
    form.create_dummy_axis()
    form.set_locs(ticks)
    names = [form(tick) for tick in ticks]
    ax.yaxis.set_major_locator(FixedLocator([*ticks, middle]))
    ax.yaxis.set_major_formatter(FixedFormatter([*names, STRIP]))
    ax.yaxis.set_minor_locator(NullLocator())
    across = ax.get_yaxis_transform()
    look: dict[str, Any] = {"facecolor": ink.shade(0xF4), "edgecolor": "none", "zorder": 0.6, "gid": "strip"}
    ax.add_patch(Rectangle((0, least), 1, low - least, transform=across, **look))
    ax.plot([0, 1], [low, low], color=ink.grey(), linewidth=0.8, transform=across, zorder=1.4)
    slash: Any = [(-1, -0.6), (1, 0.6)]
    look = {"marker": slash, "markersize": 7, "linestyle": "none", "clip_on": False, "transform": across}
    ax.plot([0], [low], color=ink.grey(), markeredgewidth=0.9, zorder=4, **look)


def draw_line(panel: Panel, marks: Sequence[Mark], style: Style, **look: Any) -> None:
    """Join means of one method; the line has a gap where one is on the strip."""
    y = [math.nan if panel.on_strip(mark) else mark.mean for mark in marks]
    shift = marks[0].shift if marks else 0.0
    x = [mark.x for mark in marks]
    _moved(panel.ax, shift, x, y, color=style.colour, linestyle=style.line, linewidth=0.9, zorder=2, **look)


def draw_mark(panel: Panel, mark: Mark, style: Style, size: float = MARKER) -> None:
    """Draw a mean with its marker, its interval as far as the panel and the metric go, and its seeds as ticks on it.

    ``size``: of the marker, in points.
    """
    hollow, ax = any(mark.lost), panel.ax
    if math.isfinite(mark.low) and not panel.on_strip(mark):
        _draw_interval(panel, mark, style)
    if len(mark.scores) > 1:
        pale = ink.mixed(style.colour, ink.paper(), PALE)
        look = {"color": pale, "zorder": 2.7}
        _draw_ticks(ax, mark.x, mark.learnt, _right(ax, mark.shift), gid="seed", **look)
        for height in _on_row(mark):
            _draw_ticks(ax, mark.x, [panel.rows[mark]], _right(ax, mark.shift, height), gid="lost", **look)
    if math.isfinite(panel.height(mark)):
        marker = draw_marker(ax, mark.x, panel.height(mark), style, hollow, size)
        marker.set_transform(_right(ax, mark.shift))


def _draw_interval(panel: Panel, mark: Mark, style: Style) -> None:
    """Draw a bar, thin where seeds are lost, with a small arrow where it goes on outside the panel."""
    low, high = max(mark.low, panel.bounds[0]), min(mark.high, panel.bounds[1])
    ends = [max(low, panel.low), min(high, panel.high)]
    bar: dict[str, Any] = {"linewidth": 0.9, "alpha": 0.5} if any(mark.lost) else {"linewidth": 1.2}
    _moved(panel.ax, mark.shift, [mark.x] * 2, ends, color=style.colour, zorder=2.5, gid="bar", **bar)
    for cut, edge, arrow in ((low < panel.low, panel.low, "v"), (high > panel.high, panel.high, "^")):
        if cut:
            look: dict[str, Any] = {"marker": arrow, "markersize": 3.5, "clip_on": False, "gid": "cut"}
            _moved(panel.ax, mark.shift, [mark.x], [edge], color=style.colour, zorder=2.6, **look)


def _draw_ticks(ax: Axes, x: float, heights: Sequence[float], at: Transform, **look: Any) -> None:
    """Draw a short horizontal tick at each height of one x."""
    look |= {"marker": "_", "markersize": TICK, "markeredgewidth": 0.8, "linestyle": "none", "transform": at}
    ax.plot([x] * len(heights), heights, **look)


def _on_row(mark: Mark) -> list[float]:
    """Return by how many points each lost seed of a mark is drawn above the middle of its row of the strip."""
    n = sum(mark.lost)
    pitch = min(PITCH, (ROW - 2) / max(n - 1, 1))
    return [pitch * (i - (n - 1) / 2) for i in range(n)]


def draw_reference(panel: Panel, mark: Mark, dash: str) -> None:
    """Draw a line over the whole width at a reference, the band of its interval, and its seeds at the right edge."""
    ax, y = panel.ax, panel.height(mark)
    ax.axhline(y, color=ink.grey(), linestyle=dash, linewidth=1.1, zorder=1.5)
    low, high = max(mark.low, panel.bounds[0], panel.low), min(mark.high, panel.bounds[1], panel.high)
    if math.isfinite(mark.low) and not panel.on_strip(mark):
        ax.axhspan(low, high, color=ink.grey(), alpha=0.1, linewidth=0, zorder=0.5)
    if len(mark.scores) > 1:
        look: dict[str, Any] = {"color": ink.pale(), "zorder": 2.7, "gid": "reference"}
        _draw_ticks(ax, 1.0, mark.learnt, _edge(ax), **look)
        for height in _on_row(mark):
            _draw_ticks(ax, 1.0, [panel.rows[mark]], _edge(ax, height), **look)


def _edge(ax: Axes, up: float = 0.0) -> Transform:
    """Return the transform to the right edge of the axes, for ticks that end there."""
    return offset_copy(ax.get_yaxis_transform(), figure_of(ax), -TICK / 2, up, units="points")


def _moved(ax: Axes, shift: float, x: Sequence[float], y: Sequence[float], **look: Any) -> None:
    """Plot data so many points to the right of where they are."""
    ax.plot(x, y, **look)[0].set_transform(_right(ax, shift))


def _right(ax: Axes, shift: float, up: float = 0.0) -> Transform:
    """Return the transform to a place so many points right of where the data are, and above it."""
    return offset_copy(ax.transData, figure_of(ax), shift, up, units="points") if shift or up else ax.transData
