"""What commands print of runs: the verdict, and tables of verdicts, runs, means, comparisons and states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.text import Text

from tensoradapt.errors import TensorAdaptError
from tensoradapt.lab.analysis.cell_texts import cell_text, interval_text
from tensoradapt.lab.analysis.descriptions import named
from tensoradapt.lab.analysis.rates import at_edges, edge_text
from tensoradapt.lab.analysis.results import CONFIGURATION
from tensoradapt.lab.analysis.tables import summarise
from tensoradapt.lab.analysis.verdict import Judged, judge, lines, summary
from tensoradapt.lab.cli.output import Cell, show_table, show_text
from tensoradapt.lab.runs.row import SETUP
from tensoradapt.planning.size import Size
from tensoradapt.text import duration_text

if TYPE_CHECKING:
    from pandas import DataFrame

# columns from left to right with their titles; an empty one is left out, as is one of ONCE with one value
WHAT = {name: name for name in ("task", "model", "metric", "method", *SETUP, "size")} | {"n_params": "parameters"}
WHAT |= {"steps": "steps"}
MEANS = WHAT | {"mean": "score", "interval": "95 % interval", "n_seeds": "seeds", "n_lost": "lost"}
VERDICTS = MEANS | {"verdict": "verdict", "difference": "difference", "times_fewer": "times fewer"}
MEANS |= {"on_frontier": "frontier", "validation": "validation", "lr": "lr"}
RUNS = WHAT | {"lr": "lr", "seed": "seed", "score": "score", "validation": "validation", "status": "status"}
RUNS |= {"tuning": "tuning", "seconds": "time", "peak_memory_bytes": "memory", "note": "note", "id": "id"}
COMPARED = WHAT | {"reference": "reference", "difference": "difference", "interval": "95 % interval", "p_holm": "p"}
COMPARED |= {"verdict": "verdict", "times_fewer": "times fewer", "seeds_settle": "seeds to settle it"}
COMPARED |= {"validation_difference": "on validation", "share": "of the gain", "control": "control"}
COMPARED |= {"control_difference": "minus control", "n_seeds": "seeds", "over": "paired over"}
STATES = {name: name for name in ("task", "method", "finished", "failed", "running", "waiting")}
STATES |= {"seconds_left": "left"}
SETTINGS = ("model", "metric", *SETUP, "steps")
ONCE = ("task", "reference", *SETTINGS)
# columns by their importance; others follow, from left to right
FIRST = ("method", "verdict", "size", "score", "mean", "n_params", "seed", "task", "difference", "interval", "status")
COLOURS = {"kept": "green", "open": "bright_black", "failed": "bright_black"}  # of verdicts, as in figures


def verdict(runs: DataFrame, reference: str | None = None) -> list[str]:
    """Return what runs say, a paragraph for each task; of runs that do not compare, why nothing can be said."""
    try:
        return list(lines(runs, reference))
    except TensorAdaptError as error:
        if reference is not None:
            raise
        return [f"no verdict: {error}"]


def print_answers(runs: DataFrame, reference: str | None = None, at: Any = None) -> list[Judged]:
    """Print the answer for each task, and return its verdicts; of runs that do not compare print why."""
    try:
        judged = judge(runs, reference, at)
    except TensorAdaptError as error:
        if reference is not None or at is not None:
            raise
        show_text(f"no verdict: {error}", "")
        return []
    for one in judged:
        show_text(f"{one.task}: {next(summary(one), '')}".removeprefix(": "), style="bold")
    show_text("")
    return judged


def print_verdicts(runs: DataFrame, reference: str | None = None, at: Any = None, wide: bool = False) -> None:
    """Print the answer for each task, and a row for each size with its mean and its verdict."""
    judged, means = print_answers(runs, reference, at), of_means(summarise(runs))
    told = {_key(row): row for one in judged for row in one.verdicts.to_dict("records")}
    rows = [told.get(_key(row)) or _itself(row, judged) for row in means.to_dict("records")]
    for name in ("verdict", "outcome", "difference", "times_fewer", "reference", "reference_rank"):
        means[name] = [row.get(name) for row in rows]
    print_table(means, VERDICTS, wide)


def _key(row: Mapping[str, Any]) -> tuple[str, ...]:
    return Size.of(row).text, *(cell_text("", row[name]) for name in CONFIGURATION if name not in ("rank", "budget"))


def _itself(row: Mapping[str, Any], judged: Sequence[Judged]) -> dict[str, str]:
    """Return what stands in the place of a verdict: whether a row is the reference's own."""
    return {"verdict": "the reference"} if row["method"] in {one.reference for one in judged} else {}


def print_edges(runs: DataFrame) -> None:
    """Print which best learning rates are at an end of those that were tried."""
    if cells := at_edges(runs):
        show_text("", edge_text(cells))


def print_table(table: DataFrame, titles: Mapping[str, str], wide: bool = False) -> None:
    """Print a table of runs, means, comparisons or states in the width of the terminal; of no rows nothing."""
    if table.empty:
        return
    texts = cells(table, titles)
    texts = {key: column for key, column in texts.items() if len({*map(str, column)} - {""}) > (key in ONCE)}
    names = list(texts)
    order = sorted(names, key=lambda key: ([*FIRST, key].index(key), key in SETTINGS))
    shown = _titled(titles, table)
    show_table([shown[key] for key in names], [*zip(*texts.values(), strict=True)], [*map(names.index, order)], wide)


def cells(table: DataFrame, titles: Mapping[str, str]) -> dict[str, list[Cell]]:
    """Return the texts of the columns that a table has; a verdict's has its colour."""
    rows = table.to_dict("records")
    sizes = [Size.of(row).short if "finished" not in row else "" for row in rows]
    texts: dict[str, list[Cell]] = {key: [cell_text(key, row.get(key)) for row in rows] for key in titles}
    texts |= {"size": [*sizes]} if "size" in titles else {}
    if "interval" in titles and "interval" not in table:
        texts["interval"] = [interval_text(row) for row in rows]
    if "outcome" in table:
        texts["verdict"] = [
            Text(str(word), COLOURS.get(kind, ""))
            for word, kind in zip(texts["verdict"], table["outcome"], strict=True)
        ]
    return texts


def file_texts(table: DataFrame, titles: Mapping[str, str]) -> DataFrame:
    """Return the cells of a table as texts, without empty columns, for a file that people read."""
    texts = {key: [*map(str, column)] for key, column in cells(table, titles).items() if any(map(str, column))}
    shown = _titled(titles, table)
    return type(table)({shown[key]: column for key, column in texts.items()})


def _titled(titles: Mapping[str, str], table: DataFrame) -> dict[str, str]:
    """Return the titles of columns, with the metric and the reference in their places where there is one of each."""
    shown = dict(titles)
    metrics: set[Any] = set(table["metric"].dropna()) if "metric" in table else set()
    if len(metrics) == 1:
        shown |= {key: str(*metrics).replace("_", " ") for key in ("score", "mean") if key in titles}
    if "reference" in table:
        known = table[table["reference"].notna()]
        others = known.assign(method=known["reference"], rank=known["reference_rank"], budget=None)
        if len(names := {named(row) for row in others.to_dict("records")}) == 1:
            shown["difference"] = f"minus {names.pop()}"
    return shown


def of_means(means: DataFrame) -> DataFrame:
    """Return means as they are shown, with their intervals; that none is lost is no text."""
    intervals = [interval_text(row) for row in means.to_dict("records")]
    return means.assign(interval=intervals, n_lost=means["n_lost"].replace(0, None))


def of_runs(runs: DataFrame) -> DataFrame:
    """Return runs as they are shown: what is usual is no text."""
    status, tuning = (
        runs[name].where(runs[name] != usual, None) for name, usual in (("status", "finished"), ("tuning", False))
    )
    return runs.assign(status=status, tuning=tuning)


def print_status(states: DataFrame) -> None:
    """Print the counts in a line, and a row for each method on each task."""
    counts = {what: int(states[what].sum()) for what in ("finished", "failed", "running", "waiting")}
    others = [f"{n:,} {what}" for what, n in counts.items() if n and what != "finished"]
    others += [f"at most {states.attrs['more']:,} more to tune"] if states.attrs["more"] else []
    head = ", ".join([f"{counts['finished']:,} of {sum(counts.values()):,} runs finished", *others])
    left = states["seconds_left"].sum(min_count=1)
    show_text(head + (f"; about {duration_text(left)} left" if left > 0 else ""), "")
    print_table(states.assign(seconds_left=states["seconds_left"].where(states["seconds_left"] > 0)), STATES)
    show_text(*states.attrs["notes"])
