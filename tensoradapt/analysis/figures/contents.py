"""Contents of figures: the caption, the rows behind it, and how the figure is drawn."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tensoradapt.analysis.figures import captions, curve_plots, difference_plots
from tensoradapt.analysis.figures.canvas import add_caption, figure_of
from tensoradapt.analysis.figures.frontier_plot import compose_frontier, draw_frontier
from tensoradapt.analysis.figures.page import PAGE
from tensoradapt.analysis.names import display
from tensoradapt.analysis.old_tables import curves
from tensoradapt.analysis.old_tables.comparable import (
    methods,
    metric_name,
    reported,
    score_name,
    score_range,
    tuned,
    tuned_where,
)
from tensoradapt.analysis.old_tables.contrasts import contrast_row, contrasts, layout_rows
from tensoradapt.analysis.old_tables.frontier import cost_name, table
from tensoradapt.analysis.old_tables.over_tasks import ranking_rows, summary_rows, task_ranking
from tensoradapt.runs.store import Run

Row = dict[str, Any]


@dataclass(frozen=True)
class Drawing:
    """How a figure is drawn.

    ``on``: on these axes, or new ones for None; ``composed``: as a whole figure over a caption, if that is not these
    axes with the caption below.
    """

    on: Callable[[Axes | None], Axes]
    composed: Callable[[str], Figure] | None = None

    def __call__(self, text: str = "") -> Figure:
        """Return a new figure, in the package's own type, with a text below, which may be empty."""
        with mpl.rc_context(PAGE.get().settings()):
            return self.figure(text)

    def figure(self, text: str = "") -> Figure:
        """Return a new figure in the type and size that matplotlib is set to, with a text below, which may be empty."""
        if self.composed is not None:
            return self.composed(text)
        figure = figure_of(self.on(None))
        if text:
            add_caption(figure, text)
        return figure


Content = tuple[str, Sequence[Row], Drawing]  # caption, rows, drawing


@dataclass(frozen=True)
class Source:
    """The runs of one task or of all that a figure shows, and what was asked for."""

    runs: Sequence[Run]
    task: str | None = None  # None where it need not be named
    cost: str = "n_params"
    reference: str | None = None
    total: int | None = None  # runs that the sweep will have
    failed: Sequence[Path] = ()  # folders of runs that failed

    @property
    def reported(self) -> list[Run]:
        """The runs without those that only helped to choose a learning rate."""
        return reported(self.runs)

    @property
    def metric(self) -> str:
        """The metric of the task, as text."""
        return metric_name(self.runs[0]).replace("_", " ")

    @property
    def bounds(self) -> tuple[float, float]:
        """The least and the largest score that there can be."""
        return score_range(self.runs[0])

    @property
    def score(self) -> str:
        """What scores are called."""
        return score_name(self.runs[0])

    @property
    def subject(self) -> str:
        """A caption's start: model and task, as far as they are known."""
        return captions.subject(self.runs[0])

    @property
    def model(self) -> str:
        """The model and a colon, where it is known."""
        model = self.runs[0].row["model"]
        return f"{model}: " if model else ""


def frontier_content(source: Source) -> Content | None:
    """Return the content of a figure of score against a cost, of one task."""
    runs = source.reported
    if not runs:
        return None
    x = "" if source.cost == "n_params" else f"x: {cost_name(source.cost)}, the median over seeds."
    text = captions.caption(source.runs, total=source.total, failed=len(source.failed), extra=x)
    drawn = Drawing(partial(draw_frontier, runs, source.cost), partial(compose_frontier, runs, source.cost))
    return text, table(runs, source.cost), drawn


def ranks_content(source: Source) -> Content | None:
    """Return the content of a figure of score against rank, of one task; None without two ranks that are numbers."""
    runs = source.reported
    ranks = {json.dumps(run.row["rank"]) for run in runs if run.row["kind"] == "adapter"}
    if len(ranks) < 2 or not all(rank.isdigit() for rank in ranks):  # budgets, or ranks by bond
        return None
    rows = curves.rank_rows(runs)
    beside = "Methods of one rank are side by side." if len({row["method"] for row in rows}) > 1 else ""
    text = captions.caption(source.runs, extra=beside)
    shown = {"metric": source.metric, "name": source.score, "bounds": source.bounds}
    return text, rows, _drawing(curve_plots.rank_curves, rows, **shown)


def rates_content(source: Source) -> Content | None:
    """Return the content of a figure of validation score against the rates that were tried; None without any."""
    if not any(map(tuned, source.runs)):
        return None
    rows = curves.rate_rows(source.runs)
    text = f"{source.subject}: validation {source.metric} {captions.tried_rates(source.runs, rows)}"
    if unequal := captions.how_unequal(source.runs):
        text = f"{text} {unequal}"
    apart = tuned_where(source.runs) == "size"
    draw = curve_plots.rate_panels if apart else curve_plots.rate_curves
    return text, rows, _drawing(draw, rows, metric=source.metric, bounds=source.bounds)


def contrasts_content(source: Source) -> Content | None:
    """Return the content of a figure of differences to a reference at equal budget; None where nothing compares."""
    known = source.reference is None or source.reference in methods(source.runs)
    compared = contrasts(source.runs, source.reference) if known else []
    if not compared:
        return None
    arrow = " An arrow: the interval goes on." if difference_plots.some_cut(compared, source.bounds) else ""
    corrected = f" after Holm's correction over the {len(compared)} comparisons" if len(compared) > 1 else ""
    against = display(compared[0].second)
    text = (
        f"{source.subject}: difference in {source.score} to {against} at equal numbers of parameters, with 95 % t "
        f"intervals, paired over {' or '.join(sorted({pair.over for pair in compared}))}. Filled: p < 0.05"
        f"{captions.tested(compared)}{corrected}.{arrow} {captions.how_run(source.runs)}"
    )
    rows = [contrast_row(comparison) for comparison in compared]
    return text, rows, _drawing(difference_plots.forest, compared, metric=source.metric, bounds=source.bounds)


def layouts_content(source: Source) -> Content | None:
    """Return the content of a figure of parameterizations over layouts, of one task; None without two layouts."""
    known = source.reference is None or source.reference in methods(source.runs)
    rows = layout_rows(source.reported, source.reference) if known else []
    if not rows:
        return None
    (reference,) = {row["method"] for row in rows if row["reference"]}
    over = "seeds and test examples" if all(run.has("scores") for run in source.reported) else "seeds"
    text = (
        f"{source.subject}: mean {source.score} of each parameterization over each layout, and its paired "
        f"difference to {display(reference)} at the same size (framed). A star: the 95 % interval, over {over}, "
        "leaves 0 out. Empty: not run, as below the smallest rank. "
        f"{captions.how_run(source.runs)}"
    )
    return text, rows, _drawing(difference_plots.layout_map, rows)


def grid_content(source: Source) -> Content | None:
    """Return the content of a figure of the means on every task."""
    runs = source.reported
    if not runs:
        return None
    rows = curves.grid_rows(runs)
    text = (
        f"{source.model}{captions.over_seeds({row['n'] for row in rows})}. Darker: further from a "
        "constant answer. Bold: the best mean of a task, unless tied. A star: a run ended at chance or diverged. "
        f"{captions.how_run(source.runs)}"
    )
    return text, rows, _drawing(curve_plots.task_grid, rows)


def aggregates_content(source: Source) -> Content | None:
    """Return the content of a figure of interquartile means over tasks; None where there are too few."""
    rows = summary_rows(source.runs, source.reference)
    if not rows:
        return None
    against = rows[0]["reference"]
    better = f", and the probability that a run beats one of {display(against)} at the same size," if against else ""
    text = (
        f"Interquartile mean over {rows[0]['tasks']} tasks and {rows[0]['seeds']} seeds{better} with 95 % intervals of "
        f"a stratified bootstrap over seeds (2,000 draws). {captions.how_run(source.runs)}"
    )
    return text, rows, _drawing(difference_plots.aggregates, rows)


def differences_content(source: Source) -> Content | None:
    """Return the content of a figure of mean ranks over tasks; None where there are too few."""
    ranked = task_ranking(source.runs)
    if ranked is None:
        return None
    n = len({run.row["task"] for run in source.runs})
    text = (
        f"Mean ranks over {n} tasks of each method's mean over its sizes and seeds. A bar joins methods that "
        "Wilcoxon's signed ranks with Holm's correction do not tell apart (5 %)."
        f"{captions.too_few(n, len(ranked.ranks))} {captions.how_run(source.runs)}"
    )
    return text, ranking_rows(ranked), _drawing(difference_plots.critical_differences, ranked)


def progress_content(source: Source) -> Content | None:
    """Return the content of a figure of finished runs in time; None where the runs did not note it."""
    rows = curves.progress_rows(curves.read_attempts(source.runs, source.failed))
    if not rows:
        return None
    text = (
        "Finished runs in time, tuning included. A tick: a run that was killed or preempted went on from its state. A "
        "cross: a run failed."
    )
    return text, rows, _drawing(curve_plots.progress, rows, total=source.total)


def _drawing(draw: Callable[..., Axes], rows: Any, **more: Any) -> Drawing:
    return Drawing(lambda ax: draw(rows, ax, **more))
