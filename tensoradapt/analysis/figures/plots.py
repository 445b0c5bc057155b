"""Figures as functions, ``ta.plots``: they draw runs, or a DataFrame with a row for each run, on axes or a new figure.

What a user has set in matplotlib's rcParams holds. An example is in docs/sweeps/results.md; all functions share:

Args:
    runs: from ``ta.load_runs``, or a pandas DataFrame: ``ta.results``, one's own, or both joined. A table may also
        have the columns of ``ta.results``, such as rank, budget, lr, tuning, task, chance and status.
    ax: axes to draw on. Those that are alone in a figure without a layout engine get the place that leaves room for
        all labels. By default a pyplot figure is made.
    y, method, seed: columns: the score, where higher is better (default "test"); the method; the seed (default
        "seed"; without such a column each row of a method and size is a seed).
    x, rank, lr, task: columns of the cost, the rank, the learning rate and the task.
    reference: the method that others are compared with; by default LoRA.
    total: number of runs that the whole sweep has, which the caption compares with those that there are.
    caption: whether a new figure has its caption below.
    style: a style sheet, or a mapping of rcParams, for this figure.

Returns:
    The axes.

Raises:
    TensorAdaptError: for a column that is not there, naming the closest, for a value that is missing or of another
        type, with its row, and where the runs do not allow the figure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tensoradapt.analysis.figures import captions, contents
from tensoradapt.analysis.figures.canvas import figure_of
from tensoradapt.analysis.figures.contents import Content, Source
from tensoradapt.analysis.figures.frontier_plot import save_frontier as save_frontier
from tensoradapt.analysis.figures.page import StyleSheet, page, styled
from tensoradapt.analysis.plots.network import network as network
from tensoradapt.analysis.tables.comparable import methods, reported
from tensoradapt.analysis.tables.contrasts import named_reference
from tensoradapt.analysis.tables.curves import rank_rows
from tensoradapt.analysis.tables.frames import Columns, as_runs
from tensoradapt.checks import check_is, flag, optional, text, whole
from tensoradapt.errors import TensorAdaptError
from tensoradapt.runs.store import Run

PAD = 0.05  # inches between what is drawn and the edge of a figure
SPARE = 0.08  # the share by which a text beside the axes can be wider at another resolution, or in a PDF
LEAST = 0.2  # the share of a figure's width and height that axes keep
ROUNDS = 3
Runs = Any  # an iterable of Run, or a pandas DataFrame


def frontier(
    runs: Runs,
    ax: Axes | None = None,
    *,
    x: str = "n_params",
    y: str | None = None,
    method: str = "method",
    seed: str | None = None,
    total: int | None = None,
    caption: bool = True,
    style: StyleSheet = None,
) -> Axes:
    """Draw score against a cost, a line for each method, and the frontier of the points that no other beats.

    Points are means over seeds, bars 95 % t-intervals, ticks on them the seeds, all at their cost. A hollow marker has
    a run at chance; such runs are on a strip below the scores. ``x`` is a column, or of runs one of
    ``tables.frontier.COSTS``, measured ones as medians over seeds.
    """
    optional(partial(whole, least=0))(total, "total")
    every = _runs(runs, Columns(x, y, method, seed))
    return _drawn(contents.frontier_content(Source(every, cost=x, total=total)), "frontier", ax, caption, style)


def ranks(
    runs: Runs,
    ax: Axes | None = None,
    *,
    rank: str = "rank",
    y: str | None = None,
    method: str = "method",
    seed: str | None = None,
    caption: bool = True,
    style: StyleSheet = None,
) -> Axes:
    """Draw score against rank, a line for each method; methods have to have ranks that are numbers."""
    every = _runs(runs, Columns(_cost(runs, rank), y, method, seed, {"rank": rank}))
    rank_rows(reported(every))  # which says what is wrong with them
    return _drawn(contents.ranks_content(Source(every)), "ranks", ax, caption, style)


def rates(
    runs: Runs,
    ax: Axes | None = None,
    *,
    lr: str = "lr",
    y: str | None = None,
    method: str = "method",
    seed: str | None = None,
    caption: bool = True,
    style: StyleSheet = None,
) -> Axes:
    """Draw validation score against each learning rate that was tried.

    The runs are those that tuned: in a table those whose column "tuning" is True, with their "validation".
    """
    every = _runs(runs, Columns(_cost(runs, lr), y, method, seed, {"lr": lr}))
    return _drawn(contents.rates_content(Source(every)), "rates", ax, caption, style)


def contrasts(
    runs: Runs,
    ax: Axes | None = None,
    *,
    x: str = "n_params",
    y: str | None = None,
    method: str = "method",
    seed: str | None = None,
    reference: str | None = None,
    caption: bool = True,
    style: StyleSheet = None,
) -> Axes:
    """Draw each method minus a reference (default LoRA) at equal budget: paired intervals and Holm's correction."""
    source = _compared(_runs(runs, Columns(x, y, method, seed)), reference)
    return _drawn(contents.contrasts_content(source), "contrasts", ax, caption, style)


def layouts(
    runs: Runs,
    ax: Axes | None = None,
    *,
    y: str | None = None,
    method: str = "method",
    seed: str | None = None,
    reference: str | None = None,
    caption: bool = True,
    style: StyleSheet = None,
) -> Axes:
    """Draw a heat map of parameterizations over layouts at each size, with paired differences to a reference."""
    source = _compared(_runs(runs, Columns(_cost(runs, "budget"), y, method, seed)), reference)
    return _drawn(contents.layouts_content(source), "layouts", ax, caption, style)


def grid(
    runs: Runs,
    ax: Axes | None = None,
    *,
    task: str = "task",
    x: str = "n_params",
    y: str | None = None,
    method: str = "method",
    seed: str | None = None,
    caption: bool = True,
    style: StyleSheet = None,
) -> Axes:
    """Draw the means of every method and size on every task."""
    every = _runs(runs, Columns(x, y, method, seed, {"task": task}))
    return _drawn(contents.grid_content(Source(every)), "grid", ax, caption, style)


def aggregates(
    runs: Runs,
    ax: Axes | None = None,
    *,
    x: str = "n_params",
    y: str | None = None,
    method: str = "method",
    seed: str | None = None,
    reference: str | None = None,
    caption: bool = True,
    style: StyleSheet = None,
) -> Axes:
    """Draw interquartile means over two tasks or more of three seeds each, and probabilities of improvement.

    A table has the columns "task" and "chance", the score of a constant answer.
    """
    source = _compared(_runs(runs, Columns(x, y, method, seed, {"task": "task", "chance": "chance"})), reference)
    return _drawn(contents.aggregates_content(source), "aggregates", ax, caption, style)


def differences(
    runs: Runs,
    ax: Axes | None = None,
    *,
    x: str = "n_params",
    y: str | None = None,
    method: str = "method",
    seed: str | None = None,
    caption: bool = True,
    style: StyleSheet = None,
) -> Axes:
    """Draw mean ranks over five tasks or more, and which methods are not told apart.

    A table has the columns "task" and "chance".
    """
    every = _runs(runs, Columns(x, y, method, seed))
    return _drawn(contents.differences_content(Source(every)), "differences", ax, caption, style)


def progress(
    runs: Iterable[Run],
    ax: Axes | None = None,
    *,
    total: int | None = None,
    caption: bool = True,
    style: StyleSheet = None,
) -> Axes:
    """Draw finished runs over time; the runs are those of sweeps, which noted when they began and ended."""
    optional(partial(whole, least=0))(total, "total")
    every = _runs(runs, Columns())
    return _drawn(contents.progress_content(Source(every, total=total)), "progress", ax, caption, style)


WHY = {
    "ranks": "two ranks or more, each a number",
    "rates": "runs that tried learning rates",
    "contrasts": "two methods at one budget, or at parameters between the other's sizes, with a seed in common",
    "layouts": "parameterizations over two layouts or more",
    "aggregates": "two tasks or more, with three seeds of each method on each",
    "differences": "five tasks or more, with three seeds of three methods on each",
    "progress": "runs of a sweep, which note when they begin and end",
}


def _runs(runs: Runs, columns: Columns) -> list[Run]:
    for name, value in (("y", columns.y), ("seed", columns.seed)):
        optional(text)(value, name)
    text(columns.x, "x")
    text(columns.method, "method")
    return captions.some_runs(as_runs(runs, columns))


def _cost(runs: Runs, other: str) -> str:
    """Return the column that stands for the size: ``n_params``, or the other one of a table without parameters."""
    text(other, "a column")
    columns = getattr(runs, "columns", ())
    return "n_params" if "n_params" in columns or other not in columns else other


def _compared(runs: list[Run], reference: str | None) -> Source:
    named = None if reference is None else named_reference(text(reference, "reference"), methods(runs))
    return Source(runs, reference=named)


def _drawn(content: Content | None, kind: str, ax: Axes | None, caption: bool, style: StyleSheet) -> Axes:
    """Draw a figure on axes, or on a new pyplot figure with its caption."""
    if ax is not None:
        check_is("ax", ax, Axes)
    flag(caption, "caption")
    if content is None:
        expected = WHY.get(kind, "finished runs")
        raise TensorAdaptError(f"these runs allow no figure {kind}; expected {expected}")
    said, _, drawing = content
    with styled(style):
        if ax is not None:
            return _fitted(drawing.on, ax)
        with page(pyplot=True):
            return drawing.figure(said if caption else "").axes[0]


def _fitted(draw: Callable[[Axes], Axes], ax: Axes) -> Axes:
    """Draw on axes and return them.

    Where they are alone in a figure without a layout engine, they first get the place that leaves room for labels,
    legend and names; it is found by drawing the same on a figure that is thrown away.
    """
    figure = figure_of(ax)
    if figure.axes != [ax] or figure.get_layout_engine() is not None or figure.subfigs:
        return draw(ax)
    trial = Figure(figsize=tuple(figure.get_size_inches()), dpi=figure.dpi)
    FigureCanvasAgg(trial)
    on_trial = trial.add_axes(ax.get_position().bounds)
    _make_room(draw(on_trial))
    ax.set_position(on_trial.get_position().bounds)
    draw(ax)
    _make_room(ax)
    return ax


def _make_room(ax: Axes) -> None:
    """Make axes smaller where labels or a legend leave their figure."""
    figure = figure_of(ax)
    for _ in range(ROUNDS):
        figure.draw_without_rendering()
        box, whole, pad = ax.get_tightbbox(), figure.bbox, PAD * figure.dpi
        if box is None:
            return
        at, inside = ax.get_position(), ax.get_window_extent()
        left = max(0.0, pad - box.x0 + SPARE * (inside.x0 - box.x0)) / whole.width
        right = max(0.0, box.x1 + pad - whole.x1 + SPARE * (box.x1 - inside.x1)) / whole.width
        below = max(0.0, pad - box.y0 + SPARE * (inside.y0 - box.y0)) / whole.height
        above = max(0.0, box.y1 + pad - whole.y1 + SPARE * (box.y1 - inside.y1)) / whole.height
        if max(left, right, below, above) < 1e-3:
            return
        width, height = at.width - left - right, at.height - below - above
        ax.set_position((at.x0 + left, at.y0 + below, max(width, LEAST), max(height, LEAST)))
