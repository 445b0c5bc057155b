"""The figures that a folder of runs allows, each with its caption and the rows behind it; drawn when asked for.

To add a figure, write a function that draws its rows on axes, and add an entry to ``CATALOGUE`` below: the command
line, the report and the tests follow.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tensoradapt.analysis.figures import captions, curve_plots, difference_plots
from tensoradapt.analysis.figures.canvas import RC, add_caption, figure_of, write
from tensoradapt.analysis.figures.frontier_plot import frontier_figure
from tensoradapt.analysis.tables import curves
from tensoradapt.analysis.tables.comparable import by_task, methods, reported, tuned, tuned_where
from tensoradapt.analysis.tables.contrasts import check_reference, contrast_row, contrasts, layout_rows
from tensoradapt.analysis.tables.frontier import COSTS, check_cost, table
from tensoradapt.analysis.tables.over_tasks import ranking_rows, summary_rows, task_ranking
from tensoradapt.analysis.tables.setup import SETUP
from tensoradapt.errors import TensorAdaptError, did_you_mean
from tensoradapt.files import csv_bytes, replace_file
from tensoradapt.runs.store import Run

Row = dict[str, Any]
Draw = Callable[[str], Figure]  # of the text to write below the figure, which may be empty
Content = tuple[str, Sequence[Row], Draw]  # caption, rows, drawing


@dataclass(frozen=True)
class Source:
    """The runs that a figure is of, those of one task or of all, and what was asked for."""

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
        return str(self.runs[0].result["metric"]).replace("_", " ")

    @property
    def subject(self) -> str:
        """A caption's start: model and task."""
        return f"{self.runs[0].config.get('model')} on {self.runs[0].config.get('task')}"


@dataclass(frozen=True)
class Kind:
    """A kind of figure: its content, None where the runs do not allow it; and the table below it in a report.

    ``of_a_task``: one figure for each task, not one of all. ``title``: of the table of its rows; without one there is
    no table. ``columns``: those of the table; empty means all.
    """

    content: Callable[[Source], Content | None]
    of_a_task: bool = False
    title: str = ""
    columns: tuple[str, ...] = ()


@dataclass(frozen=True)
class Figured:
    """A figure that can be drawn: its kind, a key of ``CATALOGUE``, its task (None: of all), caption and rows."""

    kind: str
    task: str | None
    caption: str
    rows: Sequence[Row]
    draw: Draw

    @property
    def name(self) -> str:
        """The name of its files, without an ending."""
        return f"{self.task}-{self.kind}" if self.task else self.kind

    def save(self, folder: Path) -> tuple[Path, ...]:
        """Write PNG, PDF, CSV and the caption as text; returns the paths."""
        stem = Path(folder) / self.name
        text = replace_file(stem.with_name(f"{stem.name}.txt"), f"{self.caption}\n".encode())
        columns = list(dict.fromkeys(key for row in self.rows for key in row))
        table_ = replace_file(stem.with_name(f"{stem.name}.csv"), csv_bytes(columns, self.rows))
        return *write(self.draw(self.caption), stem), table_, text


def figures(
    runs: Iterable[Run],
    *,
    kinds: Sequence[str] | None = None,
    cost: str = "n_params",
    reference: str | None = None,
    totals: Mapping[str, int] | None = None,
    failed: Mapping[Path, str] | None = None,
) -> list[Figured]:
    """The figures that the runs allow, task by task and then those of all tasks.

    Args:
        kinds: keys of ``CATALOGUE``; None means all. One that the runs do not allow is left out.
        cost: x of frontiers, one of ``tables.frontier.COSTS``.
        reference: method that others are compared with, except on tasks that lack it; None means LoRA.
        totals: number of runs that the sweep has of each task, including those that tune.
        failed: folders of the runs that failed, with their tasks.

    Raises:
        TensorAdaptError: for an unknown kind or cost, and for a reference that no run has.
    """
    chosen, every, lost = list(CATALOGUE) if kinds is None else kinds, list(runs), failed or {}
    if unknown := [kind for kind in chosen if kind not in CATALOGUE]:
        raise TensorAdaptError(f"figure is {unknown[0]!r}{did_you_mean(unknown[0], CATALOGUE)}")
    check_cost(cost)
    if reference is not None:
        check_reference(reference, methods(every))

    def drawable(source: Source, of_a_task: bool) -> Iterator[Figured]:
        for name, kind in CATALOGUE.items():
            if name in chosen and kind.of_a_task == of_a_task and (content := kind.content(source)):
                yield Figured(name, source.task, *content)

    tasks = by_task(every)
    listed: list[Figured] = []
    for task, of_task in tasks.items():
        total, gone = totals.get(task) if totals else None, [path for path in lost if lost[path] == task]
        source = Source(of_task, task if len(tasks) > 1 else None, cost, reference, total, gone)
        listed += drawable(source, True)
    total = sum(totals.values()) if totals else None
    return [*listed, *drawable(Source(every, None, cost, reference, total, list(lost)), False)]


def _frontier(source: Source) -> Content | None:
    runs = source.reported
    if not runs:
        return None
    x = "" if source.cost == "n_params" else f"x: {COSTS[source.cost]}, the median over seeds."
    text = captions.caption(source.runs, total=source.total, failed=len(source.failed), extra=x)
    return text, table(runs, source.cost), partial(frontier_figure, runs, cost=source.cost)


def _ranks(source: Source) -> Content | None:
    runs = source.reported
    ranks = {json.dumps(run.config.get("rank")) for run in runs if run.config["kind"] == "adapter"}
    if len(ranks) < 2 or not all(rank.isdigit() for rank in ranks):  # budgets, or ranks by bond
        return None
    rows = curves.rank_rows(runs)
    text = captions.caption(source.runs)
    return text, rows, _drawing(curve_plots.rank_curves, rows, metric=source.metric)


def _rates(source: Source) -> Content | None:
    if not any(map(tuned, source.runs)):
        return None
    rows = curves.rate_rows(source.runs)
    text = f"{source.subject}: validation {source.metric} {captions.tried_rates(source.runs, rows)}"
    if unequal := captions.how_unequal(source.runs):
        text = f"{text} {unequal}"
    apart = tuned_where(source.runs) == "size"
    draw = curve_plots.rate_panels if apart else curve_plots.rate_curves
    return text, rows, _drawing(draw, rows, metric=source.metric)


def _contrasts(source: Source) -> Content | None:
    known = source.reference is None or source.reference in methods(source.runs)
    compared = contrasts(source.runs, source.reference) if known else []
    if not compared:
        return None
    arrow = " An arrow: the interval goes on." if difference_plots.some_cut(compared, source.metric) else ""
    corrected = f" after Holm's correction over the {len(compared)} comparisons" if len(compared) > 1 else ""
    text = (
        f"{source.subject}: difference in test {source.metric} to {compared[0].second} at equal numbers of parameters, "
        f"with 95 % t intervals, paired over {' or '.join(sorted({pair.over for pair in compared}))}. Filled: p < "
        f"0.05{captions.tested(compared)}{corrected}.{arrow} {captions.how_run(source.runs)}"
    )
    rows = [contrast_row(comparison) for comparison in compared]
    return text, rows, _drawing(difference_plots.forest, compared, metric=source.metric)


def _layouts(source: Source) -> Content | None:
    known = source.reference is None or source.reference in methods(source.runs)
    rows = layout_rows(source.reported, source.reference) if known else []
    if not rows:
        return None
    (reference,) = {row["method"] for row in rows if row["reference"]}
    text = (
        f"{source.subject}: mean test {source.metric} of each parameterization over each layout, and its paired "
        f"difference to {reference} at the same size (framed). A star: the 95 % interval, over seeds and test "
        "examples, leaves 0 out. Empty: not run, as below the smallest rank. "
        f"{captions.how_run(source.runs)}"
    )
    return text, rows, _drawing(difference_plots.layout_map, rows)


def _grid(source: Source) -> Content | None:
    runs = source.reported
    if not runs:
        return None
    rows = curves.grid_rows(runs)
    text = (
        f"{runs[0].config.get('model')}: {captions.over_seeds({row['n'] for row in rows})}. Darker: further from a "
        "constant answer. Bold: the best mean of a task. A star: a run ended at chance or diverged. "
        f"{captions.how_run(source.runs)}"
    )
    return text, rows, _drawing(curve_plots.task_grid, rows)


def _aggregates(source: Source) -> Content | None:
    rows = summary_rows(source.runs, source.reference)
    if not rows:
        return None
    against = rows[0]["reference"]
    better = f", and the probability that a run beats one of {against} at the same size," if against else ""
    text = (
        f"Interquartile mean over {rows[0]['tasks']} tasks and {rows[0]['seeds']} seeds{better} with 95 % intervals of "
        f"a stratified bootstrap over seeds (2,000 draws). {captions.how_run(source.runs)}"
    )
    return text, rows, _drawing(difference_plots.aggregates, rows)


def _differences(source: Source) -> Content | None:
    ranked = task_ranking(source.runs)
    if ranked is None:
        return None
    n = len({run.config["task"] for run in source.runs})
    text = (
        f"Mean ranks over {n} tasks of each method's mean over its sizes and seeds. A bar joins methods that "
        "Wilcoxon's signed ranks with Holm's correction do not tell apart (5 %)."
        f"{captions.too_few(n, len(ranked.ranks))} {captions.how_run(source.runs)}"
    )
    return text, ranking_rows(ranked), _drawing(difference_plots.critical_differences, ranked)


def _progress(source: Source) -> Content | None:
    rows = curves.progress_rows(curves.read_attempts(source.runs, source.failed))
    if not rows:
        return None
    text = (
        "Finished runs in time, tuning included. A tick: a run that was killed or preempted went on from its state. A "
        "cross: a run failed."
    )
    return text, rows, _drawing(curve_plots.progress, rows, total=source.total)


def _drawing(draw: Callable[..., Axes], *rows: Any, **more: Any) -> Draw:
    def drawn(text: str) -> Figure:
        with mpl.rc_context(RC):
            figure = figure_of(draw(*rows, **more))
            if text:
                add_caption(figure, text)
        return figure

    return drawn


POINT = (
    *("method", *SETUP, "rank", "budget", "n_params", "mean", "low", "high", "n_seeds", "n_at_chance", "n_diverged"),
    *("lr", "diff_head", "diff_head_low", "diff_head_high", "p_frontier", "on_frontier", "scores", "runs"),
)
CONTRAST = (
    *("first", "second", "budget", "mean", "low", "high", "drawn_low", "drawn_high", "p", "adjusted"),
    *("seeds_needed", "over", "runs"),
)
CATALOGUE = {
    "frontier": Kind(_frontier, True, "Each configuration over its seeds", POINT),
    "ranks": Kind(_ranks, True, "Each rank over its seeds"),
    "rates": Kind(_rates, True, "Each learning rate tried"),
    "contrasts": Kind(_contrasts, True, "At equal budget", CONTRAST),
    "layouts": Kind(_layouts, True, "Each layout at each size"),
    "grid": Kind(_grid, title="Each method on each task"),
    "aggregates": Kind(_aggregates, title="Over tasks"),
    "differences": Kind(_differences),
    "progress": Kind(_progress),
}
