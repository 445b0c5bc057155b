"""Figures that a folder of runs allows, each with its caption and the rows behind it; each is drawn when asked for.

To add a figure, write a function that draws its rows on axes and one of ``contents`` that makes the rows, and add an
entry to ``CATALOGUE`` below: the command line, the report and the tests follow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tensoradapt.analysis.figures import contents
from tensoradapt.analysis.figures.canvas import KINDS, write
from tensoradapt.analysis.figures.contents import Content, Drawing, Row, Source
from tensoradapt.analysis.figures.page import page
from tensoradapt.analysis.old_tables.comparable import by_task, methods
from tensoradapt.analysis.old_tables.contrasts import named_reference
from tensoradapt.analysis.old_tables.frontier import check_cost
from tensoradapt.analysis.old_tables.setup import SETUP
from tensoradapt.errors import TensorAdaptError, did_you_mean
from tensoradapt.files import csv_bytes, replace_file
from tensoradapt.runs.store import Run


@dataclass(frozen=True)
class Kind:
    """A kind of figure, with the table below it in a report. ``content`` gives None where the runs do not allow it.

    ``of_a_task``: one figure for each task, not one of all. ``title``: of the table of its rows; without one there is
    no table. ``columns``: those of the table; empty means all.
    """

    content: Callable[[Source], Content | None]
    of_a_task: bool = False
    title: str = ""
    columns: tuple[str, ...] = ()


@dataclass(frozen=True)
class Figured:
    """A figure that can be drawn. ``kind``: a key of ``CATALOGUE``; ``task``: None for a figure of all tasks."""

    kind: str
    task: str | None
    caption: str
    rows: Sequence[Row]
    draw: Drawing

    @property
    def name(self) -> str:
        """The name of the figure's files, without an ending."""
        return f"{self.task}-{self.kind}" if self.task else self.kind

    def save(
        self, folder: Path, kinds: Sequence[str] = KINDS, width: float | None = None, captioned: bool = True
    ) -> tuple[Path, ...]:
        """Write the figure as files of some kinds, its rows as CSV and its caption as text; return the paths.

        ``width``: in inches, None for the figure's own; ``captioned``: with the caption below it.
        """
        stem = Path(folder) / self.name
        text = replace_file(stem.with_name(f"{stem.name}.txt"), f"{self.caption}\n".encode())
        columns = list(dict.fromkeys(key for row in self.rows for key in row))
        table_ = replace_file(stem.with_name(f"{stem.name}.csv"), csv_bytes(columns, self.rows))
        with page(width=width):
            return *write(self.draw(self.caption if captioned else ""), stem, kinds), table_, text


def figures(
    runs: Iterable[Run],
    *,
    kinds: Sequence[str] | None = None,
    cost: str = "n_params",
    reference: str | None = None,
    totals: Mapping[str, int] | None = None,
    failed: Mapping[Path, str] | None = None,
) -> list[Figured]:
    """Return the figures that the runs allow, task by task and then those of all tasks.

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
        reference = named_reference(reference, methods(every))

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


POINT = (
    *("method", *SETUP, "rank", "budget", "n_params", "mean", "low", "high", "n_seeds", "n_at_chance", "n_diverged"),
    *("lr", "diff_head", "diff_head_low", "diff_head_high", "p_frontier", "on_frontier", "scores", "runs"),
)
CONTRAST = (
    *("first", "second", "budget", "mean", "low", "high", "drawn_low", "drawn_high", "p", "adjusted"),
    *("seeds_needed", "over", "runs"),
)
CATALOGUE = {
    "frontier": Kind(contents.frontier_content, True, "Each configuration over its seeds", POINT),
    "ranks": Kind(contents.ranks_content, True, "Each rank over its seeds"),
    "rates": Kind(contents.rates_content, True, "Each learning rate tried"),
    "contrasts": Kind(contents.contrasts_content, True, "At equal budget", CONTRAST),
    "layouts": Kind(contents.layouts_content, True, "Each layout at each size"),
    "grid": Kind(contents.grid_content, title="Each method on each task"),
    "aggregates": Kind(contents.aggregates_content, title="Over tasks"),
    "differences": Kind(contents.differences_content),
    "progress": Kind(contents.progress_content),
}
