"""What commands print of runs: the verdict, and tables of runs, means, comparisons and states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tensoradapt.errors import TensorAdaptError
from tensoradapt.lab.analysis.cells import cell_text, interval_text
from tensoradapt.lab.analysis.edges import at_edges, edge_text
from tensoradapt.lab.analysis.facts import named
from tensoradapt.lab.analysis.verdict import amount, lines
from tensoradapt.lab.cli.output import show_text
from tensoradapt.lab.cli.tables import print_table
from tensoradapt.lab.runs.row import SETUP
from tensoradapt.planning.size import Size
from tensoradapt.text import count_text, duration_text

if TYPE_CHECKING:
    from pandas import DataFrame

WHAT = {key: key for key in ("task", "model", "metric", "method", *SETUP, "size")} | {"n_params": "parameters"}
WHAT |= {"steps": "steps"}
MEANS = WHAT | {"mean": "score", "interval": "95 % interval", "n_seeds": "seeds", "n_lost": "lost"}
MEANS |= {"validation": "validation", "lr": "lr"}
RUNS = WHAT | {"lr": "lr", "seed": "seed", "score": "score", "validation": "validation", "status": "status"}
RUNS |= {"tuning": "tuning", "seconds": "time", "peak_memory_bytes": "memory", "note": "note", "id": "id"}
COMPARED = WHAT | {"reference": "reference", "difference": "difference", "interval": "95 % interval", "p_holm": "p"}
COMPARED |= {"verdict": "verdict", "times_fewer": "times fewer", "seeds_settle": "seeds to settle it"}
COMPARED |= {"validation_difference": "on validation", "share": "of the gain", "control": "control"}
COMPARED |= {"control_difference": "minus control", "n_seeds": "seeds", "over": "paired over"}
STATES = {"task": "task", "method": "method", "finished": "finished", "failed": "failed", "running": "running"}
STATES |= {"waiting": "waiting", "seconds_left": "left"}
# columns by their importance; those that are left out here follow, from left to right
MEANS_ORDER = ("method", "mean", "size", "n_params", "task", "interval", "n_lost", "n_seeds")
RUNS_ORDER = ("method", "score", "size", "seed", "task", "status", "n_params", "tuning", "lr", "seconds", "id")
COMPARED_ORDER = ("method", "verdict", "size", "difference", "task", "n_params", "times_fewer", "interval", "p_holm")


def verdict(runs: DataFrame, reference: str | None = None) -> list[str]:
    """Return what runs say, a paragraph for each task; of runs that do not compare, why nothing can be said."""
    try:
        return list(lines(runs, reference))
    except TensorAdaptError as error:
        if reference is not None:
            raise
        return [f"no verdict: {error}"]


def print_verdict(runs: DataFrame, reference: str | None = None) -> None:
    """Print the verdict, and an empty line below it."""
    show_text(*verdict(runs, reference), "")


def print_edges(runs: DataFrame) -> None:
    """Print which best learning rates are at an end of those that were tried, and an empty line below it."""
    if cells := at_edges(runs):
        show_text(edge_text(cells), "")


@dataclass(frozen=True)
class View:
    """A table as people read it: the columns with their titles, from left to right, and by their importance.

    ``best``: the rows that are bold; ``said``: what these are.
    """

    table: DataFrame
    columns: Mapping[str, str]
    order: Sequence[str]
    best: Sequence[bool]
    said: str

    def print(self) -> None:
        """Print it in the width of the terminal."""
        print_table(self.table, self.columns, self.order, best=self.best, said=self.said)

    def texts(self) -> DataFrame:
        """Return its cells as texts, without empty columns, for a file that people read."""
        filled = [key for key in self.columns if key in self.table and self.table[key].notna().any()]
        cells = {key: [cell_text(key, value) for value in self.table[key]] for key in filled}
        return self.table[filled].assign(**cells).rename(columns=self.columns)


def of_runs(runs: DataFrame) -> View:
    """Return a row for each run; none is bold, as the best of single seeds says nothing."""
    table = runs.assign(size=_sizes(runs), tuning=runs["tuning"].where(runs["tuning"], None))
    table["status"] = runs["status"].where(runs["status"] != "finished", None)
    return View(table, _titled(RUNS, runs, "score"), _ordered(RUNS_ORDER, RUNS), [False] * len(runs), "")


def of_means(means: DataFrame) -> View:
    """Return a row for each configuration and reference; those on the frontier are bold."""
    table = means.assign(size=_sizes(means), interval=_intervals(means), n_lost=means["n_lost"].replace(0, None))
    titles, best = _titled(MEANS, means, "mean"), list(means["on_frontier"])
    return View(table, titles, _ordered(MEANS_ORDER, MEANS), best, "on the frontier")


def of_comparisons(gaps: DataFrame) -> View:
    """Return a row for each comparison; those that are shown to lose less than the margin are bold."""
    if gaps.empty:
        raise TensorAdaptError(
            "no configuration has a run of the reference to compare with, at its size and with its seeds; expected one "
            "or more: choose another --reference or --at"
        )
    others = gaps.assign(method=gaps["reference"], rank=gaps["reference_rank"], budget=None)
    names = [named(row) for row in others.to_dict("records")]
    table = gaps.assign(size=_sizes(gaps), interval=_intervals(gaps), reference=names)
    titles = COMPARED | ({"difference": f"minus {names[0]}"} if len({*names}) == 1 else {})
    best, n = list(gaps["outcome"] == "kept"), count_text(len(gaps), "comparison")
    said = (
        f"less than {amount(gaps['margin'].iloc[0], gaps['points'].iloc[0])} lost (p after Holm's correction over {n})"
    )
    return View(table, titles, _ordered(COMPARED_ORDER, COMPARED), best, said)


def print_status(states: DataFrame) -> None:
    """Print the counts in a line, and a row for each method on each task."""
    counts = {what: int(states[what].sum()) for what in ("finished", "failed", "running", "waiting")}
    others = [f"{n:,} {what}" for what, n in counts.items() if n and what != "finished"]
    others += [f"at most {states.attrs['more']:,} more to tune"] if states.attrs["more"] else []
    head = ", ".join([f"{counts['finished']:,} of {sum(counts.values()):,} runs finished", *others])
    left = states["seconds_left"].sum(min_count=1)
    show_text(head + (f"; about {duration_text(left)} left" if left > 0 else ""), "")
    waiting = states["seconds_left"].where(states["seconds_left"] > 0)
    print_table(states.assign(seconds_left=waiting), STATES, ("method", *STATES))
    if states.attrs["notes"]:
        show_text(*states.attrs["notes"])


def _sizes(table: DataFrame) -> list[str]:
    return [Size.of(row).text for row in table.to_dict("records")]


def _intervals(table: DataFrame) -> list[str]:
    return [interval_text(row) for row in table.to_dict("records")]


def _titled(titles: dict[str, str], table: DataFrame, score: str) -> dict[str, str]:
    """Return the titles of columns, with the metric as that of the score where there is one metric."""
    metrics = table["metric"].dropna().unique()
    return titles | ({score: str(metrics[0]).replace("_", " ")} if len(metrics) == 1 else {})


def _ordered(first: tuple[str, ...], every: dict[str, str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*first, *every)))
