"""Draw the figures of a sweep other than its frontier: rank curves, learning-rate curves, grid of tasks, progress.

Each function draws on ``ax``, new axes if None, and returns it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator, MaxNLocator, NullFormatter, StrMethodFormatter
from matplotlib.transforms import offset_copy

from tensoradapt.analysis.figures import canvas
from tensoradapt.analysis.figures.canvas import DARK, GREY, MARKER, NAME, Style
from tensoradapt.errors import TensorAdaptError

Rows = Sequence[dict[str, Any]]
HEAD = 9  # points of the type above the columns of a grid and below rates and ranks
PANELS = 3  # beside each other, at most
APART = 3  # points between methods of one rank
HALO = {"boxstyle": "square,pad=0.12", "facecolor": "white", "edgecolor": "none", "alpha": 0.8}


def rank_curves(rows: Rows, ax: Axes | None = None, *, metric: str = "score") -> Axes:
    """Mean test score against rank (log), a line for each method; bars are 95 % t intervals.

    A hollow marker has a run at chance. Methods are a little apart, so that no bar hides another. ``rows``: of
    ``curves.rank_rows``.
    """
    new, ax = ax is None, canvas.new_axes(6.4, 4.0) if ax is None else ax
    styles = canvas.styles(row["method"] for row in _some(rows))
    for i, (label, style) in enumerate(styles.items()):
        curve = [row for row in rows if row["method"] == label]
        first = len(ax.lines)
        ax.plot([r["rank"] for r in curve], [r["mean"] for r in curve], color=style.colour, linewidth=0.9, zorder=2)
        for row in curve:
            if math.isfinite(row["low"]):
                ax.plot([row["rank"]] * 2, [row["low"], row["high"]], color=style.colour, linewidth=1.2, zorder=2.5)
            canvas.draw_marker(ax, row["rank"], row["mean"], style, bool(row["at_chance"]))
        for line in ax.lines[first:]:  # moved once they are drawn: a line that is not in data's units has no limits
            move = APART * (i - (len(styles) - 1) / 2)
            line.set_transform(offset_copy(ax.transData, canvas.figure_of(ax), move, units="points"))
    ax.set_xlabel("rank")
    ax.set_ylabel(f"test {metric}")
    return _finished(ax, sorted({row["rank"] for row in rows}), 2, styles, new)


def rate_curves(rows: Rows, ax: Axes | None = None, *, metric: str = "score") -> Axes:
    """Validation score against learning rate (log), a line for each method and size; the rate that was kept has a ring.

    ``rows``: of ``curves.rate_rows``. A rate without a score is a gap. Where several seeds ran, lines are means and
    dots the runs.
    """
    new, ax = ax is None, canvas.new_axes(6.4, 4.0) if ax is None else ax
    styles = canvas.styles(row["method"] for row in _some(rows))
    _draw_rates(ax, rows, styles)
    ax.set_xlabel("learning rate")
    ax.set_ylabel(f"validation {metric}")
    return _finished(ax, sorted({row["lr"] for row in rows}), 10, styles, new)


def rate_panels(rows: Rows, *, metric: str = "score") -> Axes:
    """The curves of ``rate_curves`` in one panel for each size, smallest first; returns the first panel.

    Methods without a size are in a panel of their own. One size is one figure.
    """
    largest: dict[str, int] = {}
    for row in rows:
        largest[row["size"]] = max(largest.get(row["size"], 0), row["n_params"])
    sizes = sorted(largest, key=lambda size: (not size, largest[size]))
    if len(sizes) < 2:
        return rate_curves(rows, metric=metric)
    columns = 2 if len(sizes) in (2, 4) else PANELS
    lines = math.ceil(len(sizes) / columns)
    figure = canvas.new_figure(0.8 + 2.8 * columns, 0.5 + 2.4 * lines, "constrained")
    styles, rates = canvas.styles(row["method"] for row in rows), sorted({row["lr"] for row in rows})
    panels = figure.subplots(lines, columns, sharey=True, squeeze=False).ravel()
    for i, (ax, size) in enumerate(zip(panels, sizes, strict=False)):
        _draw_rates(ax, [row for row in rows if row["size"] == size], styles)
        ax.set_title(size or "no rank or budget", fontsize=HEAD, color=DARK, loc="left")
        ax.set_xlabel("learning rate" if i + columns >= len(sizes) else "")
        ax.set_ylabel(f"validation {metric}" if i % columns == 0 else "")
        _log_axis(ax, rates, 10)
    for ax in panels[len(sizes) :]:
        ax.remove()
    _legend_on_top(figure, styles)
    return panels[0]


def _draw_rates(ax: Axes, rows: Rows, styles: dict[str, Style]) -> None:
    curves: dict[tuple[str, str], dict[float, list[dict[str, Any]]]] = {}
    for row in sorted(rows, key=lambda row: row["lr"]):
        curves.setdefault((row["method"], row.get("size", "")), {}).setdefault(row["lr"], []).append(row)
    for (label, _), curve in curves.items():
        style = styles[label]
        means = [of_rate[0].get("mean", of_rate[0]["validation"]) for of_rate in curve.values()]
        y = [math.nan if mean is None else mean for mean in means]
        ax.plot([*curve], y, color=style.colour, linewidth=0.9, zorder=2)
        for (rate, of_rate), mean in zip(curve.items(), y, strict=True):
            canvas.draw_marker(ax, rate, mean, style, any(row["at_chance"] for row in of_rate))
            scores = [row["validation"] for row in of_rate if row["validation"] is not None]
            if len(of_rate) > 1:
                ax.plot([rate] * len(scores), scores, ".", color=style.colour, markersize=3.5, zorder=2.6, gid="seed")
            if of_rate[0]["chosen"]:
                ring: dict[str, Any] = {"markerfacecolor": "none", "markeredgecolor": style.colour}
                ax.plot(rate, mean, "o", markersize=MARKER + 5, zorder=2.8, gid="chosen", **ring)


def task_grid(rows: Rows, ax: Axes | None = None) -> Axes:
    """Methods and sizes by tasks, each cell its mean and half its interval; darker is further from a constant answer.

    ``rows``: of ``curves.grid_rows``. The best of a task is bold; a star marks a run at chance.
    """
    names = list(dict.fromkeys((row["method"], row["size"]) for row in _some(rows)))
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    sides = [canvas.folded(f"{label}  {size}".strip()) for label, size in names]
    heads = _heads(rows)
    if ax is None:
        ax = canvas.row_axes(sides, 0.3 + 1.5 * len(tasks), 0.5 + canvas.extent(heads.values(), HEAD)[1], 0.24)
    best = {task: max(row["mean"] for row in rows if row["task"] == task) for task in tasks}
    ax.set_xlim(-0.5, len(tasks) - 0.5)
    ax.set_ylim(len(names) - 0.5, -0.5)
    for row in rows:
        x, y = tasks.index(row["task"]), names.index((row["method"], row["size"]))
        shade = 1 - 0.55 * min(max(row["gain"], 0), 1)
        box = Rectangle((x - 0.48, y - 0.46), 0.96, 0.92, facecolor=(shade, shade, shade), edgecolor="none")
        ax.add_patch(box)
        half = f" ±{(row['high'] - row['low']) / 2:.3f}" if math.isfinite(row["low"]) else ""
        text = f"{row['mean']:.3f}{half}{'*' if row['at_chance'] else ''}"
        weight = "bold" if row["mean"] == best[row["task"]] else "normal"
        ax.text(x, y, text, ha="center", va="center", fontsize=7.5, color="black", fontweight=weight)
    ax.set_xticks(range(len(tasks)), [heads[task] for task in tasks], fontsize=HEAD)
    ax.xaxis.tick_top()
    ax.set_yticks(range(len(names)), sides, fontsize=NAME)
    ax.tick_params(length=0, labelcolor=DARK)
    ax.spines[:].set_visible(False)
    return ax


def progress(rows: Rows, ax: Axes | None = None, *, total: int | None = None) -> Axes:
    """Finished runs against hours since the first run started; ticks mark resumed runs, crosses failed ones.

    ``rows``: of ``curves.progress_rows``; ``total``: a dashed line at the runs of the whole sweep.
    """
    ax = canvas.new_axes(6.4, 3.2) if ax is None else ax
    x, y = [row["hours"] for row in _some(rows)], [row["finished"] for row in rows]
    ax.step(x, y, where="post", color=DARK, linewidth=1.4)
    for event, mark in (("resumed", "|"), ("failed", "x")):
        events = [row for row in rows if row["event"] == event]
        if events:
            at = [row["hours"] for row in events], [row["finished"] for row in events]
            ax.plot(*at, mark, color="#D55E00", markersize=9, label=f"{len(events)} {event}", gid=event)
    if total:
        ax.axhline(total, color=GREY, linestyle="--", linewidth=0.9)
        text = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "fontsize": 8, "color": DARK}
        ax.annotate(f"{total} runs", (0.01, total), (0, -3), va="top", bbox=HALO, **text)  # type: ignore[arg-type]
    ax.set_ylim(0, 1.05 * max(total or 0, max(y), 1))
    ax.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    ax.set_xlabel("hours since the first run started")
    ax.set_ylabel("finished runs")
    canvas.frame(ax, "y")
    if ax.get_legend_handles_labels()[0]:
        ax.legend(loc="lower right", frameon=False, fontsize=8.5)
    return ax


def _some(rows: Rows) -> Rows:
    if not rows:
        raise TensorAdaptError("there is nothing to draw; expected rows: run the sweep first")
    return rows


def _heads(rows: Rows) -> dict[str, str]:
    """The heads of the columns: each task and its metric, in lines that fit."""
    parts = {row["task"]: (row["task"], row["metric"].replace("_", " ")) for row in rows}
    return {task: "\n".join(canvas.folded(part, 1.4, HEAD) for part in pair) for task, pair in parts.items()}


def _finished(ax: Axes, values: Sequence[float], base: int, methods: dict[str, Style], new: bool) -> Axes:
    """Make x logarithmic; add grid and legend."""
    _log_axis(ax, values, base)
    canvas.legend_above(ax, methods, grow=new)
    return ax


def _log_axis(ax: Axes, values: Sequence[float], base: int) -> None:
    """Make x logarithmic with ticks at the values that were run, numbered where there is room; add a grid."""
    ax.set_xscale("log", base=base)
    room = (values[-1] / values[0]) ** 0.06 * 1.08
    ax.set_xlim(values[0] / room, values[-1] * room)
    named = _apart(ax, values)
    ax.xaxis.set_major_locator(FixedLocator(named))
    ax.xaxis.set_minor_locator(FixedLocator([value for value in values if value not in named]))
    ax.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.tick_params(axis="x", labelsize=HEAD)
    canvas.frame(ax, "y")


def _legend_on_top(figure: Figure, methods: dict[str, Style]) -> None:
    """Put a legend of methods above all panels, in as many columns as fit, and make the figure higher by it."""
    names = [canvas.folded(name, 4.8, canvas.LEGEND) for name in methods]
    line = partial(Line2D, [], [], markersize=MARKER, linewidth=0.9)
    drawn = [line(color=s.colour, marker=s.marker, label=n) for n, s in zip(names, methods.values(), strict=True)]
    look: dict[str, Any] = {"frameon": False, "fontsize": canvas.LEGEND, "handlelength": 1.6, "columnspacing": 1.3}
    for columns in range(len(drawn), 0, -1):
        legend = figure.legend(handles=drawn, ncols=columns, loc="outside upper left", **look)
        if columns == 1 or legend.get_window_extent().width <= 0.98 * figure.bbox.width:
            break
        legend.remove()
    figure.set_figheight(figure.get_figheight() + legend.get_window_extent().height / figure.dpi)


def _apart(ax: Axes, values: Sequence[float]) -> list[float]:
    """The values, in order, whose labels do not touch the label before them."""
    apart, end = [], -math.inf
    for value in values:
        middle = ax.transData.transform((value, 0))[0] / canvas.figure_of(ax).dpi
        half = canvas.extent([f"{value:g}"], HEAD)[0] / 2 + 0.04
        if middle - half > end:
            apart.append(value)
            end = middle + half
    return apart
