"""The runs of a folder as a table with a row for each finished or failed run; filters, CSV, Parquet and LaTeX."""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from tensoradapt.analysis.names import display
from tensoradapt.analysis.old_tables import frontier
from tensoradapt.analysis.old_tables.comparable import by_task
from tensoradapt.errors import TensorAdaptError, did_you_mean
from tensoradapt.files import csv_bytes, replace_file
from tensoradapt.runs.config import RunConfig
from tensoradapt.runs.row import COLUMNS, FAILED, FLAGS, NUMBERS, SETUP, STATUSES, Row
from tensoradapt.runs.store import Failure, Run, load_failures, load_runs
from tensoradapt.sweeps import record
from tensoradapt.sweeps.spec import read_spec
from tensoradapt.text import align, bonds_text, plain

SHOWN = ("id", "status", "task", "method", "rank", "budget", "n_params", "lr", "seed", "metric", "validation", "test")
MEANS = ("task", *frontier.COLUMNS)
SHOWN_MEANS = ("task", "method", "rank", "budget", "n_params", "metric", "mean", "low", "high", "n_seeds", "lr")
OPERATORS = {
    "<=": operator.le,
    ">=": operator.ge,
    "!=": operator.ne,
    "=": operator.eq,
    "<": operator.lt,
    ">": operator.gt,
}
OF_MEANS = ("mean", "low", "high", "n_seeds")  # columns of numbers that only means have
TRUTHS = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}
LATEX = {ord(character): f"\\{character}" for character in "&%$#_{}"}
LATEX |= {ord("~"): r"\textasciitilde{}", ord("^"): r"\textasciicircum{}", ord("\\"): r"\textbackslash{}"}
Selected = tuple[list[Run], dict[str, Failure]]  # runs, and failures by name


def run_rows(root: Path, where: Sequence[str] = (), spec: Path | None = None) -> list[Row]:
    """Return a row of ``COLUMNS`` per run in ``root``, by task, method, parameters and seed; missing values are None.

    ``where``: conditions that all returned runs meet, such as "task=sst2" or "n_params<=5000"; a missing value meets
    "!=" alone. ``spec``: only the runs of this sweep. Raises TensorAdaptError for a missing folder, a damaged run, a
    condition that cannot be read, and a specification that was not run into the folder.
    """
    return rows_of(*select(root, where, spec))


def rows_of(runs: Sequence[Run], failed: Mapping[str, Failure]) -> list[Row]:
    """Return a row of ``COLUMNS`` for each of these runs and failures, in the order of ``run_rows``."""
    found = [*(run.row for run in runs), *(one.row for one in failed.values())]
    rows = [{key: row[key] for key in COLUMNS} for row in found]
    return sorted(rows, key=lambda row: (row["task"], row["method"], row["n_params"] or 0, row["seed"], row["lr"]))


def select(root: Path, where: Sequence[str] = (), spec: Path | None = None) -> Selected:
    """Return the finished runs and, by name, the failures whose rows meet the conditions of ``run_rows``."""
    kept = partial(matching, where=where)
    kept(dict.fromkeys(COLUMNS))  # conditions are read before files are
    runs, failed = load_runs(root), load_failures(root)
    if spec:
        runs, failed = _of_sweep(runs, failed, {c.id: c for s in sweeps(root, spec) for c in s.due(root).configs})
    kept_failures = {name: one for name, one in failed.items() if kept(one.row)}
    return [run for run in runs if kept(run.row)], kept_failures


def matching(row: Row, where: Sequence[str]) -> bool:
    """Return whether a row meets all conditions; raises TensorAdaptError for a condition that cannot be read."""
    conditions = [_condition(text) for text in where]
    return all(_meets(row, *condition) for condition in conditions)


def _of_sweep(runs: Sequence[Run], failed: Mapping[str, Failure], own: Mapping[str, RunConfig]) -> Selected:
    """Return a sweep's runs under its own names of methods; another sweep may have run them under other names."""
    mine = [replace(run, row={**run.row, "method": own[run.name].method}) for run in runs if run.name in own]
    gone = {k: replace(one, row={**one.row, "method": own[k].method}) for k, one in failed.items() if k in own}
    return mine, gone


def sweeps(root: Path, spec: Path | None = None) -> list[record.Recorded]:
    """Return the sweeps recorded in ``root``, or that of a specification; raises TensorAdaptError if it is missing."""
    if spec is None:
        return [record.read(path) for path in record.paths(root)]
    path = record.place(root, read_spec(spec))
    if not path.is_file():
        raise TensorAdaptError(
            f"{root} has no sweep of {spec} on record; expected the specification as it was run: run it into this "
            "folder, or leave it out to take the runs of every sweep"
        )
    return [record.read(path)]


def means(root: Path, where: Sequence[str] = (), spec: Path | None = None) -> list[Row]:
    """Return a row of ``MEANS`` per configuration and reference, by task: its mean over seeds with a 95 % t interval.

    Runs that only chose a rate are left out. Raises as ``run_rows`` does, and for runs that do not compare.
    """
    return means_of(select(root, where, spec)[0])


def means_of(runs: Sequence[Run]) -> list[Row]:
    """Return the rows of ``means`` for these runs."""
    return [{"task": task, **row} for task, of_task in by_task(runs).items() for row in frontier.table(of_task)]


def shown(rows: Sequence[Row]) -> str:
    """Return the rows as a table of text."""
    columns = _most_read(rows)
    named = [{**row, "method": display(row["method"])} for row in rows]
    return "\n".join(align([columns, *(tuple(_text(row[column]) for column in columns) for row in named)]))


def _most_read(rows: Sequence[Row]) -> tuple[str, ...]:
    """Return the columns that the table shows, with those of the setup in which rows differ."""
    columns = SHOWN_MEANS if rows and "mean" in rows[0] else SHOWN
    differing = [key for key in SETUP if len({row[key] for row in rows if row[key] is not None}) > 1]
    at = columns.index("method") + 1
    return *columns[:at], *differing, *columns[at:]


def every_column(rows: Sequence[Row]) -> tuple[str, ...]:
    """Return the columns of rows of runs or of means."""
    return tuple(rows[0]) if rows else COLUMNS


def plain_rows(rows: Sequence[Row]) -> list[Row]:
    """Return the rows with ranks as text, and with texts that every file can hold."""
    as_text = [{**row, "rank": None if row["rank"] is None else bonds_text(row["rank"])} for row in rows]
    return [{key: plain(value, "\n") if isinstance(value, str) else value for key, value in r.items()} for r in as_text]


def write_csv(rows: Sequence[Row], path: Path) -> Path:
    """Write the rows as CSV, whole or not at all; returns the path."""
    return replace_file(Path(path), csv_bytes(every_column(rows), plain_rows(rows)))


def write_latex(rows: Sequence[Row], path: Path) -> Path:
    """Write the rows as a LaTeX table for the package booktabs; returns the path."""
    columns = _most_read(rows)
    head = " & ".join(column.translate(LATEX) for column in columns) + r" \\"
    body = [" & ".join(_text(row[column]).translate(LATEX) for column in columns) + r" \\" for row in rows]
    kinds = "".join("r" if column in (*NUMBERS, *OF_MEANS, "rank") else "l" for column in columns)
    lines = [rf"\begin{{tabular}}{{{kinds}}}", r"\toprule", head, r"\midrule", *body, r"\bottomrule", r"\end{tabular}"]
    return replace_file(Path(path), ("\n".join(lines) + "\n").encode())


def write_markdown(rows: Sequence[Row], path: Path) -> Path:
    """Write the rows as a table of GitHub's Markdown; returns the path."""
    columns = _most_read(rows)
    head = [*columns], ["--:" if column in (*NUMBERS, *OF_MEANS, "rank") else ":--" for column in columns]
    body = [[_text(row[column]).replace("\\", "\\\\").replace("|", "\\|") for column in columns] for row in rows]
    lines = [f"| {' | '.join(line)} |" for line in (*head, *body)]
    return replace_file(Path(path), ("\n".join(lines) + "\n").encode())


def _condition(text: str) -> tuple[str, str, Any]:
    sign = min((op for op in OPERATORS if op in text), key=lambda op: (text.index(op), -len(op)), default=None)
    if sign is None:
        raise TensorAdaptError(f"condition {text!r} has none of {' '.join(OPERATORS)}; expected one such as task=sst2")
    column, value = (part.strip() for part in text.split(sign, 1))
    if column not in COLUMNS:
        raise TensorAdaptError(f"condition {text!r}: unknown column {column!r}{did_you_mean(column, COLUMNS)}")
    return column, sign, _wanted(text, column, value)


def _wanted(text: str, column: str, value: str) -> Any:
    """Return the value of a condition, of the type that its column has."""
    if column in FLAGS:
        if value.lower() not in TRUTHS:
            raise TensorAdaptError(
                f"condition {text!r}: {value!r} is neither yes nor no; expected one, as in {column}=no"
            )
        return TRUTHS[value.lower()]
    if column == "status" and value.lower() not in (*STATUSES, FAILED):
        valid = (*STATUSES, FAILED)
        raise TensorAdaptError(f"condition {text!r}: unknown status {value!r}{did_you_mean(value, valid)}")
    if column not in NUMBERS:  # a rank may be by bond
        return value
    try:
        return float(value)
    except ValueError:
        raise TensorAdaptError(
            f"condition {text!r}: {value!r} is no number; expected one, as {column} is a number: such as 5000 or 1e-3"
        ) from None


def _meets(row: Row, column: str, op: str, wanted: Any) -> bool:
    """Return whether a row's value compares with the wanted one: numbers as numbers, everything else as text."""
    value = row[column]
    if value is None:
        return op == "!="
    if isinstance(value, int | float) and isinstance(wanted, str):
        with contextlib.suppress(ValueError):
            wanted = float(wanted)
    if column == "method":  # by any spelling
        value, wanted = display(value), display(wanted)
    if isinstance(wanted, str):
        value, wanted = _text(value).lower(), wanted.lower()
    return bool(OPERATORS[op](value, wanted))


def _text(value: Any) -> str:
    """Return a value as the text of a cell."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    return plain(bonds_text(value))
