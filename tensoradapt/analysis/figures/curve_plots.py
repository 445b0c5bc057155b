"""Draw the figures of a sweep other than its frontier: rank curves, learning-rate curves, grid of tasks, progress.

Each function draws on ``ax``, new axes if None, and returns it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from tensoradapt.analysis.figures import canvas, ink
from tensoradapt.analysis.figures.canvas import MARKER
from tensoradapt.analysis.figures.legends import legend_above, legend_on_top
from tensoradapt.analysis.figures.panel import TICK, Mark, draw_line, draw_mark, make_panel
from tensoradapt.analysis.figures.styles import Style, styles_of
from tensoradapt.analysis.names import displayed
from tensoradapt.errors import TensorAdaptError

Rows = Sequence[dict[str, Any]]
Bounds = tuple[float, float]  # the least and the largest value of a metric
ANY = (-math.inf, math.inf)
HEAD = 9  # points of the type above the columns of a grid and below rates and ranks
PANELS = 3  # beside each other, at most
MARGIN = 14  # points between the outermost values and the ends of the axis


def rank_curves(
    rows: Rows, ax: Axes | None = None, *, metric: str = "score", name: str = "", bounds: Bounds = ANY
) -> Axes:
    """Draw the mean test score against rank (log), a line for each method; bars are 95 % t intervals, ticks the seeds.

    A hollow marker has a run at chance; such runs are on a strip below the scores. Methods are a little apart, so that
    no bar hides another. ``rows``: of ``curves.rank_rows``; ``name``: of y, if not "test" and the metric;
    ``bounds``: the range of the metric.
    """
    new, ax = ax is None, canvas.new_axes(6.4, 4.0) if ax is None else ax
    styles = styles_of(row["method"] for row in _some(rows))
    ranks = sorted({row["rank"] for row in rows})
    marks = [_rank_mark(row) for row in rows]
    apart = _between(ax, ranks, len(styles))
    _x_axis(ax, ranks, 2, MARGIN + apart * len(styles) / 2)
    moves = {label: apart * (i - (len(styles) - 1) / 2) for i, label in enumerate(styles)}
    marks = [replace(mark, shift=moves[row["method"]]) for mark, row in zip(marks, rows, strict=True)]
    panel = make_panel(ax, marks, bounds)
    for label, style in styles.items():
        own = [mark for mark, row in zip(marks, rows, strict=True) if row["method"] == label]
        draw_line(panel, own, style)
        for mark in own:
            draw_mark(panel, mark, style)
    ax.set_xlabel("rank")
    ax.set_ylabel(name or f"test {metric}")
    return _finished(ax, ranks, styles, new)


def _rank_mark(row: Mapping[str, Any]) -> Mark:
    texts = row["scores"].split()
    scores, lost = tuple(float(text.rstrip("*")) for text in texts), tuple(text.endswith("*") for text in texts)
    return Mark(row["rank"], row["mean"], row["low"], row["high"], scores, lost)


def _between(ax: Axes, ranks: Sequence[int], methods: int) -> float:
    """Return the points between methods of one rank: what a tick needs, as far as the ranks leave room."""
    box = ax.get_window_extent().transformed(canvas.figure_of(ax).dpi_scale_trans.inverted())
    steps = [math.log(b / a) for a, b in itertools.pairwise(ranks)]
    share = 0.72 * min(steps, default=1.0) / (sum(steps) or 1.0)  # what the methods of a rank have between margins
    room = (72 * box.width - 2 * MARGIN) * share / (1 + share)
    return min(TICK + 1.5, room / methods)


def rate_curves(rows: Rows, ax: Axes | None = None, *, metric: str = "score", bounds: Bounds = ANY) -> Axes:
    """Draw validation score against learning rate (log), a line for each method and size; kept rates have a ring.

    ``rows``: of ``curves.rate_rows``. Where several seeds ran, lines are means and ticks the runs. A run at
    chance is on a strip below the scores, where the line has a gap.
    """
    new, ax = ax is None, canvas.new_axes(6.4, 4.0) if ax is None else ax
    styles = styles_of(row["method"] for row in _some(rows))
    rates = sorted({row["lr"] for row in rows})
    _x_axis(ax, rates, 10, 2 * MARGIN)
    _draw_rates(ax, _rate_marks(rows), styles, bounds)
    ax.set_xlabel("learning rate")
    ax.set_ylabel(f"validation {metric}")
    return _finished(ax, rates, styles, new)


def rate_panels(rows: Rows, ax: Axes | None = None, *, metric: str = "score", bounds: Bounds = ANY) -> Axes:
    """Draw the curves of ``rate_curves`` in a panel for each size, smallest first; return the first panel.

    Methods without a size are in a panel of their own. One size is one figure, and on ``ax`` all sizes are in one.
    """
    largest: dict[str, int] = {}
    for row in rows:
        largest[row["size"]] = max(largest.get(row["size"], 0), row["n_params"])
    sizes = sorted(largest, key=lambda size: (not size, largest[size]))
    if len(sizes) < 2 or ax is not None:
        return rate_curves(rows, ax, metric=metric, bounds=bounds)
    columns = 2 if len(sizes) in (2, 4) else PANELS
    if (wide := canvas.PAGE.get().width) is not None:
        columns = max(1, min(columns, int(wide / 2.2)))
    lines = math.ceil(len(sizes) / columns)
    figure = canvas.new_figure(wide or 0.8 + 2.8 * columns, 0.5 + 2.4 * lines, "constrained")
    styles, rates = styles_of(row["method"] for row in rows), sorted({row["lr"] for row in rows})
    panels, curves = figure.subplots(lines, columns, squeeze=False).ravel(), _rate_marks(rows)
    for i, (ax, size) in enumerate(zip(panels, sizes, strict=False)):
        _x_axis(ax, rates, 10, 2 * MARGIN)
        own = {key: curve for key, curve in curves.items() if key[1] == size}
        others = [mark for key, curve in curves.items() if key[1] != size for mark, _ in curve]
        _draw_rates(ax, own, styles, bounds, others)
        ax.set_title(size or "no rank or budget", fontsize=canvas.scaled(HEAD), color=ink.dark(), loc="left")
        ax.set_xlabel("learning rate" if i + columns >= len(sizes) else "")
        ax.set_ylabel(f"validation {metric}" if i % columns == 0 else "")
        _number(ax, rates)
    for ax in panels[len(sizes) :]:
        ax.remove()
    legend_on_top(figure, styles)
    return panels[0]


Curves = dict[tuple[str, str], list[tuple[Mark, bool]]]  # by method and size: marks, and whether the rate is chosen


def _rate_marks(rows: Rows) -> Curves:
    curves: dict[tuple[str, str], dict[float, list[dict[str, Any]]]] = {}
    for row in sorted(rows, key=lambda row: row["lr"]):
        curves.setdefault((row["method"], row.get("size", "")), {}).setdefault(row["lr"], []).append(row)
    return {key: [(_rate_mark(of), of[0]["chosen"]) for of in curve.values()] for key, curve in curves.items()}


def _draw_rates(
    ax: Axes, curves: Curves, styles: Mapping[str, Style], bounds: Bounds, others: Sequence[Mark] = ()
) -> None:
    """Draw curves on y limits that suit ``others`` too."""
    panel = make_panel(ax, [mark for curve in curves.values() for mark, _ in curve], bounds, others)
    for (label, _), curve in curves.items():
        style = styles[label]
        draw_line(panel, [mark for mark, _ in curve], style)
        for mark, chosen in curve:
            draw_mark(panel, mark, style)
            if chosen:
                ring: dict[str, Any] = {"markerfacecolor": "none", "markeredgecolor": style.colour}
                ax.plot(mark.x, panel.height(mark), "o", markersize=MARKER + 5, zorder=2.8, gid="chosen", **ring)


def _rate_mark(of_rate: Rows) -> Mark:
    """Return the mark of a rate, from its runs with each seed."""
    first, lost = of_rate[0], tuple(bool(row["at_chance"]) for row in of_rate)
    mean = first.get("mean", first["validation"])
    scores = tuple(math.nan if row["validation"] is None else row["validation"] for row in of_rate)
    return Mark(first["lr"], math.nan if mean is None else mean, scores=scores if len(of_rate) > 1 else (), lost=lost)


def task_grid(rows: Rows, ax: Axes | None = None) -> Axes:
    """Draw methods and sizes by tasks, each cell its mean and half its interval; darker is further from chance.
    Budgets are groups of rows, other sizes stand with their method, references come last.

    ``rows``: of ``curves.grid_rows``. The best of a task is bold unless others tie or it is no better than a constant
    answer; a star marks a run at chance.
    """
    groups = _groups(_some(rows))
    names = [name for group in groups for name in group]
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    shown = displayed({label for label, _ in names})
    sides, type_ = canvas.row_names([f"{shown[label]}  {size}".strip() for label, size in names], ax)
    heads = _heads(rows)
    if ax is None:
        ax = canvas.row_axes(sides, 0.3 + 1.5 * len(tasks), 0.5 + canvas.extent(heads.values(), HEAD)[1], 0.24)
    _draw_cells(ax, rows, names, tasks, canvas.cell_width(ax, sides, len(tasks)))
    ax.set_xlim(-0.5, len(tasks) - 0.5)
    ax.set_ylim(len(names) - 0.5, -0.5)
    for end in list(itertools.accumulate(map(len, groups)))[:-1]:
        ax.axhline(end - 0.5, color=ink.grey(), linewidth=0.6)
    size, angle = canvas.column_names(heads.values(), canvas.cell_width(ax, sides, len(tasks)), HEAD)
    ax.set_xticks(range(len(tasks)), [heads[task] for task in tasks], fontsize=size, rotation=angle)
    ax.xaxis.tick_top()
    ax.set_yticks(range(len(names)), sides, fontsize=type_)
    ax.tick_params(length=0, labelcolor=ink.dark())
    ax.spines[:].set_visible(False)
    return ax


def _groups(rows: Rows) -> list[list[tuple[str, str]]]:
    """Return the methods and sizes of a grid's rows in groups: those of a budget, of a method, and the references."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for label, size in dict.fromkeys((row["method"], row["size"]) for row in rows):
        key = size if size.startswith("n") else f"method {label}" if size else ""
        groups.setdefault(key, []).append((label, size))
    return [groups[key] for key in sorted(groups, key=lambda key: not key)]


def _draw_cells(ax: Axes, rows: Rows, names: Sequence[tuple[str, str]], tasks: Sequence[str], width: float) -> None:
    """Draw the cells with their numbers: intervals, and then the numbers too, are left out where they do not fit."""
    best = {task: _best([row for row in rows if row["task"] == task]) for task in tasks}
    whole, short = (canvas.fitting_size(text, 0.94 * width, 7.5) for text in ("0.000 ±0.000*", "0.000*"))
    for row in rows:
        x, y = tasks.index(row["task"]), names.index((row["method"], row["size"]))
        shade = 1 - 0.55 * min(max(row["gain"], 0), 1) if math.isfinite(row["gain"]) else 0.9
        ax.add_patch(Rectangle((x - 0.48, y - 0.46), 0.96, 0.92, facecolor=(shade, shade, shade), edgecolor="none"))
        half = f" ±{(row['high'] - row['low']) / 2:.3f}" if whole and math.isfinite(row["low"]) else ""
        text = f"{row['mean']:.3f}{half}{'*' if row['at_chance'] else ''}"
        weight = "bold" if row is best[row["task"]] else "normal"
        look: dict[str, Any] = {"ha": "center", "va": "center", "color": "black", "fontweight": weight}
        if size := whole or short:
            ax.text(x, y, text, fontsize=canvas.scaled(size), **look)


def _best(rows: Rows) -> dict[str, Any] | None:
    """Return the row with the best mean; None where others tie, or it is no better than a constant answer."""
    most = max(row["mean"] for row in rows)
    first = [row for row in rows if row["mean"] == most]
    return first[0] if len(first) == 1 and not first[0]["gain"] <= 0 else None


def progress(rows: Rows, ax: Axes | None = None, *, total: int | None = None) -> Axes:
    """Draw finished runs against the time since the first run started; ticks mark resumed runs, crosses failed ones.

    Time is in seconds, minutes or hours.

    ``rows``: of ``curves.progress_rows``; ``total``: a dashed line at the runs of the whole sweep.
    """
    ax = canvas.new_axes(6.4, 3.2) if ax is None else ax
    unit, per_hour = _unit(max(row["hours"] for row in _some(rows)))
    rows = [{**row, "hours": per_hour * row["hours"]} for row in rows]
    x, y = [row["hours"] for row in rows], [row["finished"] for row in rows]
    ax.step(x, y, where="post", color=ink.dark(), linewidth=1.4)
    for event, mark in (("resumed", "|"), ("failed", "x")):
        events = [row for row in rows if row["event"] == event]
        if events:
            at = [row["hours"] for row in events], [row["finished"] for row in events]
            ax.plot(*at, mark, color="#D55E00", markersize=9, label=f"{len(events)} {event}", gid=event)
    if total:
        ax.axhline(total, color=ink.grey(), linestyle="--", linewidth=0.9)
        halo = {"boxstyle": "square,pad=0.12", "facecolor": ink.paper(), "edgecolor": "none", "alpha": 0.8}
        text: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "va": "top"}
        text |= {"fontsize": canvas.scaled(8), "color": ink.dark(), "bbox": halo}
        ax.annotate(f"{total} runs", (0.01, total), (0, -3), **text)
    ax.set_ylim(0, 1.05 * max(total or 0, max(y), 1))
    ax.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    ax.set_xlabel(f"{unit} since the first run started")
    ax.set_ylabel("finished runs")
    canvas.frame(ax, "y")
    if ax.get_legend_handles_labels()[0]:
        ax.legend(loc="lower right", frameon=False, fontsize=canvas.scaled(8.5))
    return ax


def _unit(hours: float) -> tuple[str, float]:
    """Return the unit that suits a time, and how many of it an hour has."""
    return ("seconds", 3600.0) if hours < 0.05 else ("minutes", 60.0) if hours < 2 else ("hours", 1.0)


def _some(rows: Rows) -> Rows:
    if not rows:
        raise TensorAdaptError("there is nothing to draw; expected rows: run the sweep first")
    return rows


def _heads(rows: Rows) -> dict[str, str]:
    """Return the heads of the columns: each task and its metric, in lines that fit."""
    parts = {row["task"]: (row["task"], row["metric"].replace("_", " ")) for row in rows}
    return {task: "\n".join(canvas.folded(part, 1.4, HEAD) for part in pair) for task, pair in parts.items()}


def _x_axis(ax: Axes, values: Sequence[float], base: int, margin: float) -> None:
    """Make x logarithmic, with a margin of so many points beside the values that were run."""
    ax.set_xscale("log", base=base)
    width = ax.get_window_extent().width * 72 / canvas.figure_of(ax).dpi
    room = (values[-1] / values[0]) ** (margin / max(width - 2 * margin, 1)) if len(values) > 1 else base
    ax.set_xlim(values[0] / room, values[-1] * room)
    ax.tick_params(axis="x", labelsize=canvas.scaled(HEAD))


def _finished(ax: Axes, values: Sequence[float], methods: dict[str, Style], new: bool) -> Axes:
    """Write numbers at the values that were run, add grid and legend, and return the axes."""
    _number(ax, values)
    legend_above(ax, methods, grow=new)
    return ax


def _number(ax: Axes, values: Sequence[float]) -> None:
    """Write numbers at the values that were run, where there is room, and add a grid."""
    named = _apart(ax, values)
    ax.xaxis.set_major_locator(FixedLocator(named))
    ax.xaxis.set_minor_locator(FixedLocator([value for value in values if value not in named]))
    ax.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())
    canvas.frame(ax, "y")


def _apart(ax: Axes, values: Sequence[float]) -> list[float]:
    """Return the values, in order, whose labels do not touch the label before them."""
    apart, end = [], -math.inf
    for value in values:
        middle = ax.transData.transform((value, 0))[0] / canvas.figure_of(ax).dpi
        half = canvas.extent([f"{value:g}"], HEAD)[0] / 2 + 0.04
        if middle - half > end:
            apart.append(value)
            end = middle + half
    return apart
