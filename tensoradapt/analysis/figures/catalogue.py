"""Every figure that a folder of runs allows, each with its caption and the rows behind it; drawn when asked for."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tensoradapt.analysis.figures import curve_plots, difference_plots
from tensoradapt.analysis.figures.canvas import RC, add_caption, figure_of, write
from tensoradapt.analysis.figures.captions import caption, how_chosen, how_partial, sizes_searched, tuned_size
from tensoradapt.analysis.figures.frontier_plot import frontier_figure
from tensoradapt.analysis.statistics.significance import Comparison, Ranking, least_p
from tensoradapt.analysis.tables import curves
from tensoradapt.analysis.tables.comparable import methods, reported, tuned
from tensoradapt.analysis.tables.contrasts import check_reference, contrasts
from tensoradapt.analysis.tables.frontier import COLUMNS, COSTS, check_cost, table
from tensoradapt.analysis.tables.over_tasks import summary_rows, task_ranking
from tensoradapt.errors import TensorAdaptError, did_you_mean
from tensoradapt.files import csv_bytes, replace_file
from tensoradapt.runs.store import Run

Row = dict[str, Any]
KINDS = ("frontier", "ranks", "rates", "contrasts", "grid", "aggregates", "differences", "progress")


@dataclass(frozen=True)
class Figured:
    """A figure that can be drawn: its kind, one of ``KINDS``, its task (None: of all), caption and rows; ``draw`` is
    given the text to write below it, which may be none.
    """

    kind: str
    task: str | None
    caption: str
    rows: Sequence[Row]
    draw: Callable[[str], Figure]

    @property
    def name(self) -> str:
        """Of its files, without an ending."""
        return f"{self.task}-{self.kind}" if self.task else self.kind

    def save(self, folder: Path) -> tuple[Path, ...]:
        """Writes PNG, PDF, CSV and the caption as text; returns the paths."""
        stem = Path(folder) / self.name
        text = replace_file(stem.with_name(f"{stem.name}.txt"), f"{self.caption}\n".encode())
        columns = COLUMNS if self.kind == "frontier" else list(dict.fromkeys(key for row in self.rows for key in row))
        table_ = replace_file(stem.with_name(f"{stem.name}.csv"), csv_bytes(columns, self.rows))
        return *write(self.draw(self.caption), stem), table_, text


def figures(
    runs: Iterable[Run],
    *,
    kinds: Sequence[str] = KINDS,
    cost: str = "n_params",
    reference: str | None = None,
    totals: Mapping[str, int] | None = None,
    failed: Mapping[Path, str] | None = None,
) -> list[Figured]:
    """The figures of ``kinds`` that the runs allow, task by task and then those of all tasks.

    ``cost``: x of frontiers, one of ``frontier.COSTS``; ``reference``: the method that others are compared with, by
    default LoRA, and not on tasks that lack it; ``totals``: how many runs the sweep has of each task, those that tune
    included; ``failed``: the folders of runs that failed, with their tasks. A kind or cost that is none and a reference
    that no run has raise TensorAdaptError; a kind that the runs do not allow is left out.
    """
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise TensorAdaptError(f"figure is {unknown[0]!r}{did_you_mean(unknown[0], KINDS)}")
    check_cost(cost)
    every, lost = list(runs), Counter((failed or {}).values())
    if reference is not None:
        check_reference(reference, methods(every))
    tasks = sorted({str(run.config["task"]) for run in every})
    found: list[Figured] = []
    for task in tasks:
        own = [run for run in every if run.config["task"] == task]
        label = task if len(tasks) > 1 else None
        if "frontier" in kinds:
            missing = how_partial(own, totals.get(task) if totals else None, lost[task])
            found += _frontier(own, label, cost, missing)
        found += [one for kind in OF_A_TASK if kind in kinds for one in OF_A_TASK[kind](own, label, reference)]
    found += [one for kind in OF_ALL if kind in kinds for one in OF_ALL[kind](every, reference)]
    if "progress" in kinds:
        found += _progress(every, failed or {}, sum(totals.values()) if totals else None)
    return found


def _frontier(runs: Sequence[Run], task: str | None, cost: str, missing: str) -> list[Figured]:
    own = reported(runs)
    if not own:
        return []
    x = "" if cost == "n_params" else f"x: {COSTS[cost]}, the median over seeds."
    text = caption(own, rates=how_chosen(runs), extra=" ".join(filter(None, (missing, x))))
    return [Figured("frontier", task, text, table(own, cost), partial(frontier_figure, own, cost=cost))]


def _ranks(runs: Sequence[Run], task: str | None, reference: str | None) -> list[Figured]:
    own = reported(runs)
    ranks = {json.dumps(run.config.get("rank")) for run in own if run.config["kind"] == "adapter"}
    if len(ranks) < 2 or not all(rank.isdigit() for rank in ranks):  # budgets, or ranks by bond
        return []
    rows = curves.rank_rows(own)
    text = caption(own, rates=how_chosen(runs))
    return [_captioned("ranks", task, text, rows, partial(curve_plots.rank_curves, rows, metric=_metric(runs)))]


def _rates(runs: Sequence[Run], task: str | None, reference: str | None) -> list[Figured]:
    tried = [run for run in runs if tuned(run)]
    if not tried:
        return []
    rows = curves.rate_rows(runs)
    seeds = " ".join(str(seed) for seed in sorted({row["seed"] for row in rows}))
    where = tuned_size(tried, "the method's")
    text = (
        f"{_of(runs)}: validation {_metric(runs)} at each learning rate tried, one run each (seed {seeds}, so without "
        f"intervals), {where}. A ring: the rate that all reported runs of the method have. Hollow: collapsed to chance "
        f"or diverged.{'' if sizes_searched(tried) else _at_an_end(rows)}"
    )
    return [_captioned("rates", task, text, rows, partial(curve_plots.rate_curves, rows, metric=_metric(runs)))]


def _at_an_end(rows: Sequence[Row]) -> str:
    """The methods whose rate is the lowest or highest of what was tried, so that a better one may lie beyond. Not those
    to which the rate makes no difference, as to a head with a rate of its own.
    """
    tried: dict[str, list[Row]] = {}
    for row in rows:
        tried.setdefault(row["label"], []).append(row)
    ends = [
        label
        for label, own in tried.items()
        if len({row["validation"] for row in own}) > 1
        and any(row["chosen"] and row["lr"] in (own[0]["lr"], own[-1]["lr"]) for row in own)
    ]
    return (
        f" The rate is the lowest or highest tried, and a better one may lie beyond it, for {', '.join(ends)}."
        if ends
        else ""
    )


def _contrasts(runs: Sequence[Run], task: str | None, reference: str | None) -> list[Figured]:
    found = contrasts(runs, reference) if reference is None or reference in methods(runs) else []
    if not found:
        return []
    corrected = f" after Holm's correction over the {len(found)} comparisons" if len(found) > 1 else ""
    text = (
        f"{_of(runs)}: difference in test {_metric(runs)} to {found[0].second} at equal numbers of parameters, with "
        f"95 % t intervals, paired over {' or '.join(sorted({one.over for one in found}))}. Filled: p < "
        f"0.05{_tested(found)}{corrected}. Learning rates {how_chosen(runs)}."
    )
    draw = partial(difference_plots.forest, found, metric=_metric(runs))
    return [_captioned("contrasts", task, text, [contrast_row(one) for one in found], draw)]


def _tested(found: Sequence[Comparison]) -> str:
    if not any("one seed" in one.over for one in found):
        return ""
    return " (of one seed over test examples alone: McNemar's test of answers that are right or wrong, else a t test)"


def contrast_row(one: Comparison) -> Row:
    """A comparison as a row of plain values."""
    drawn = {"drawn_low": one.drawn.low, "drawn_high": one.drawn.high} if one.drawn else {}
    row = {key: value for key, value in asdict(one).items() if key not in ("difference", "drawn", "runs")}
    return {**row, **asdict(one.difference), **drawn, "runs": " ".join(one.runs)}


def _grid(runs: Sequence[Run], reference: str | None) -> list[Figured]:
    own = reported(runs)
    if not own:
        return []
    rows = curves.grid_rows(own)
    text = (
        f"{own[0].config.get('model')}: {_over_seeds({row['n'] for row in rows})}. Darker: further from a constant "
        "answer. Bold: the best mean of a task. A star: a run collapsed or diverged. Learning rates "
        f"{how_chosen(runs)}."
    )
    return [_captioned("grid", None, text, rows, partial(curve_plots.task_grid, rows))]


def _over_seeds(counts: set[int]) -> str:
    if counts == {1}:
        return "test score of one seed, without interval"
    some = " where there are several" if 1 in counts else ""
    return f"mean test score over {' or '.join(map(str, sorted(counts)))} seeds, ± half of its 95 % t interval{some}"


def _aggregates(runs: Sequence[Run], reference: str | None) -> list[Figured]:
    rows = summary_rows(runs, reference)
    if not rows:
        return []
    against = rows[0]["reference"]
    better = f", and the probability that a run beats one of {against} at the same size," if against else ""
    text = (
        f"Interquartile mean over {rows[0]['tasks']} tasks and {rows[0]['seeds']} seeds{better} with 95 % intervals of "
        f"a stratified bootstrap over seeds (2,000 draws). Learning rates {how_chosen(runs)}."
    )
    return [_captioned("aggregates", None, text, rows, partial(difference_plots.aggregates, rows))]


def _differences(runs: Sequence[Run], reference: str | None) -> list[Figured]:
    found = task_ranking(runs)
    if found is None:
        return []
    n = len({run.config["task"] for run in runs})
    text = (
        f"Mean ranks over {n} tasks of each method's mean over its sizes and seeds. A bar joins methods that "
        f"Wilcoxon's signed ranks with Holm's correction do not tell apart (5 %).{_too_few(n, len(found.ranks))} "
        f"Learning rates {how_chosen(runs)}."
    )
    rows = ranking_rows(found)
    return [_captioned("differences", None, text, rows, partial(difference_plots.critical_differences, found))]


def _too_few(tasks: int, ranked: int) -> str:
    least = least_p(ranked, tasks)
    if least < 0.05:
        return ""
    return (
        f" With {tasks} tasks the smallest corrected p of {math.comb(ranked, 2)} comparisons is {least:.2g}, so this "
        "test cannot tell any two methods apart; read the ranks only."
    )


def ranking_rows(found: Ranking) -> list[Row]:
    """Mean ranks as rows, with the cliques that each method is in, by number."""
    cliques = {name: [i for i, one in enumerate(found.cliques) if name in one] for name in found.ranks}
    return [
        {"label": name, "rank": rank, "cliques": " ".join(map(str, cliques[name])), "friedman_p": found.friedman_p}
        for name, rank in found.ranks.items()
    ]


def _progress(runs: Sequence[Run], failed: Iterable[Path], total: int | None) -> list[Figured]:
    rows = curves.progress_rows(curves.read_attempts(runs, failed))
    if not rows:
        return []
    text = (
        "Finished runs in time, tuning included. A tick: a run that was killed or preempted went on from its state. A "
        "cross: a run failed."
    )
    return [_captioned("progress", None, text, rows, partial(curve_plots.progress, rows, total=total))]


def _captioned(kind: str, task: str | None, text: str, rows: Sequence[Row], draw: Callable[[], Axes]) -> Figured:
    def drawn(below: str) -> Figure:
        with mpl.rc_context(RC):
            figure = figure_of(draw())
            if below:
                add_caption(figure, below)
        return figure

    return Figured(kind, task, text, rows, drawn)


def _of(runs: Sequence[Run]) -> str:
    return f"{runs[0].config.get('model')} on {runs[0].config.get('task')}"


def _metric(runs: Sequence[Run]) -> str:
    return str(runs[0].result["metric"]).replace("_", " ")


OF_A_TASK = {"ranks": _ranks, "rates": _rates, "contrasts": _contrasts}
OF_ALL = {"grid": _grid, "aggregates": _aggregates, "differences": _differences}
