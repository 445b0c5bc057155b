"""Runs as one pandas DataFrame with documented columns, which every table and figure takes and gives."""

from __future__ import annotations

import operator
import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from importlib import resources
from pathlib import Path
from typing import Any, TypeGuard

import pandas as pd
from pandas import DataFrame, Series

from tensoradapt.checks import items, of_kind, shown
from tensoradapt.errors import TensorAdaptError, closest, did_you_mean, few
from tensoradapt.files import explained, open_bytes
from tensoradapt.lab.analysis.column_types import TRUTHS, TYPES, typed
from tensoradapt.lab.analysis.names import display
from tensoradapt.lab.metrics.library import LESS_IS_BETTER, range_of
from tensoradapt.lab.runs.row import COLUMNS, FAILED, FLAGS, NUMBERS, REFERENCES, STATUSES, WHOLE, Row
from tensoradapt.lab.runs.store import SWEEPS, Failure, Run, load_failures, load_runs
from tensoradapt.planning.spec import AdapterSpec
from tensoradapt.text import bonds_text, plain
from tensoradapt.training.options import Training

HELP = {
    f.name: f.metadata["help"] for record in (AdapterSpec, Training) for f in fields(record) if "help" in f.metadata
}


def meanings() -> Iterator[dict[str, str]]:
    """Yield what the columns of runs, means, comparisons and verdicts mean, from ``columns.toml``."""
    text = resources.files("tensoradapt.lab.analysis").joinpath("columns.toml").read_text(encoding="utf-8")
    runs, *others = tomllib.loads(text).values()
    yield (runs := {name: text or HELP[name] for name, text in runs.items()})
    yield from ({name: text or runs[name] for name, text in table.items()} for table in others)


RUN, MEANS, COMPARED, VERDICTS = meanings()
COSTS = {  # what a frontier can be drawn over, and its name on an axis
    "n_params": "trained parameters of the adapter",
    "n_trained": "trained parameters, head included",
    **{name: RUN[name] for name in ("adapter_bytes", "peak_memory_bytes", "peak_device_bytes")},
    **{name: RUN[name] for name in ("step_seconds_median", "seconds")},
}
CALLED = {  # other names of columns, of which one is a heading of printed tables
    **dict.fromkeys(("parameters", "params", "num_params", "n_parameters", "num_parameters"), "n_params"),
    **dict.fromkeys(("accuracy", "acc", "mean", "value", "result", "f1", "test_accuracy", "test_score"), "score"),
    **dict.fromkeys(("name", "adapter", "algorithm", "peft", "config"), "method"),
}
LOST = ("at chance", "diverged")
CONFIGURATION = ("task", "kind", "method", "layout", "rank", "budget", "n_params", "steps")
MOST_RUNS = 1_000_000
OPERATORS = {
    "<=": operator.le,
    ">=": operator.ge,
    "!=": operator.ne,
    "=": operator.eq,
    "<": operator.lt,
    ">": operator.gt,
}


def table_of(source: Path | str | Iterable[Run] | Iterable[Mapping[str, Any]] | DataFrame) -> DataFrame:
    """Return what stands for runs as a table with all columns of ``RUN``, without runs that failed.

    Args:
        source: a folder of runs, runs of ``load_runs``, or a CSV file, DataFrame or list of dicts with a row for each
            run.

    Raises:
        TensorAdaptError: for a folder without runs, a file that cannot be read, and as ``complete`` does.
    """
    if is_csv(source):
        source = read_csv(Path(source))
    if isinstance(source, str | os.PathLike):
        source = with_sweep(frame(load_runs(Path(source))), Path(source))
    if isinstance(source, list | tuple) and source and all(isinstance(row, Mapping) for row in source):
        source = DataFrame([*source])
    if not isinstance(source, DataFrame):
        source = frame(items(of_kind(Run), source, "runs", most=MOST_RUNS))
    table = complete(source)
    return table[table["status"] != FAILED].reset_index(drop=True)


def is_csv(source: Any) -> TypeGuard[str | os.PathLike[str]]:
    """Say whether a source of runs is the path of a CSV file."""
    return isinstance(source, str | os.PathLike) and str(source).lower().endswith(".csv") and not Path(source).is_dir()


def read_csv(path: Path) -> DataFrame:
    """Read a CSV file with a row for each run, without empty columns, whose type a file does not say.

    Raises TensorAdaptError where it cannot be read.
    """
    wanted = "expected a CSV file with a row for each run, as runs.to_csv(path, index=False) writes"
    with explained("read", path, wanted, ValueError), open_bytes(path) as file:
        return pd.read_csv(file, low_memory=False).dropna(axis="columns", how="all")


def frame(runs: Iterable[Run], failures: Iterable[Failure] = ()) -> DataFrame:
    """Return runs and failures as a table, by task, method, parameters, seed and rate; see ``RUN``."""
    every: list[Run | Failure] = [*runs, *failures]
    rows = [_plain_row(one.row) | {"path": str(one.path)} for one in every]
    rows.sort(key=lambda row: (row["task"], row["method"], row["n_params"] or 0, row["seed"], row["lr"] or 0))
    measured = dict.fromkeys(name for row in rows for name in row if name not in (*COLUMNS, "path"))
    table = DataFrame(rows, columns=[*COLUMNS, *measured, "path"])
    kinds = dict.fromkeys((*NUMBERS, *measured), "float64")
    kinds |= {**dict.fromkeys(WHOLE, "Int64"), **dict.fromkeys(FLAGS, "boolean")}
    kinds |= {"rank": "Int64" if all(isinstance(row["rank"], int | None) for row in rows) else "object"}
    kinds["tuning"] = "bool"
    table = table.astype({name: kind for name, kind in kinds.items() if name in table})
    table["n_trained"] = table["n_params"] + table["n_trained_base"].fillna(0)
    table["lost"] = table["status"].isin(LOST)
    table["tuned_on"], table["sweep"] = tuned_on(table), None
    table["score"] = table["score"].where(table["status"] != "diverged", table["chance"])
    return table[[*RUN, *(name for name in table if name not in RUN)]]


def _plain_row(row: Row) -> Row:
    """Return a row with ranks by bond as text, and with texts that every file can hold."""
    own = {**row, "rank": bonds_text(row["rank"]) if isinstance(row["rank"], Mapping) else row["rank"]}
    return {key: plain(value, "\n") if isinstance(value, str) else value for key, value in own.items()}


def folder(root: Path) -> DataFrame:
    """Return the finished and failed runs of a folder as a table."""
    return with_sweep(frame(load_runs(root), load_failures(root).values()), root)


def with_sweep(table: DataFrame, root: Path) -> DataFrame:
    """Return the runs of a folder with the id of its specification, where it was begun by one alone."""
    ids = [path.stem for path in root.glob(f"{SWEEPS}/*.json")]
    return table.assign(sweep=(ids[0] if len(ids) == 1 else "") if ids else None)


def tuned_on(table: DataFrame) -> Series:
    """Return for each run the seeds that rates of its method on its task were chosen on; None where one was given."""
    seeds: dict[tuple[Any, Any], set[int]] = {}
    tuning = table[table["tuning"]]
    for task, method, seed in zip(tuning["task"], tuning["method"], tuning["seed"], strict=True):
        seeds.setdefault((task, method), set()).add(int(seed))
    texts = {key: " ".join(map(str, sorted(own))) for key, own in seeds.items()}
    found = [texts.get(key) for key in zip(table["task"], table["method"], strict=True)]
    return Series(found, table.index, dtype="object")


def complete(table: DataFrame) -> DataFrame:
    """Return somebody's table of runs with all columns of ``RUN``; what it lacks is missing or follows from the others.

    Every table passes here. It needs ``method``, ``score`` (or "test") and a cost such as ``n_params``. Rows without
    ``seed`` count in means, and comparisons leave them out, unless no configuration has two; a row without ``metric``
    has the metric "score".

    Raises:
        TensorAdaptError: for a column that is needed and not there, naming the closest; for a cell that is missing or
            that its column cannot have, with its row; for two columns of one name; and for a metric of which, by its
            name, less is better.
    """
    table = _with_needed(table)
    table = table if table.index.is_unique else table.reset_index(drop=True)
    table = typed(table.assign(**{name: None for name in RUN if name not in table}))
    texts = {name: kind for kind, label in REFERENCES.items() for name in (kind, label)}
    table["kind"] = table["kind"].fillna(table["method"].map(lambda name: texts.get(name, "adapter")))
    own = table["kind"] == table["method"]  # a table of others may call the frozen base "head"
    table["method"] = table["method"].where(~own, table["method"].map(REFERENCES))
    table["metric"] = table["metric"].fillna("score")
    table["status"] = table["status"].fillna("finished")
    table["tuning"] = table["tuning"].fillna(False).astype(bool)
    table["lost"] = table["lost"].fillna(table["status"].isin(LOST)).astype(bool)
    table["n_trained"] = table["n_trained"].fillna(table["n_params"])
    _check_scores(table)
    _check_directions(table)
    _add_ranges(table)
    rows = Series([plain(f"row {i}") for i in table.index], table.index, dtype=object)
    table["id"] = table["id"].fillna(rows)
    counted = table[~table["tuning"] & (table["status"] != FAILED)]
    again = counted.index[counted["id"].duplicated()]  # as in tables that were joined
    table.loc[again, "id"] = [f"{name}, {row}" for name, row in zip(table["id"][again], rows[again], strict=True)]
    if table["seed"].isna().all() and not counted.duplicated([*CONFIGURATION]).any():
        table["seed"] = table["seed"].fillna(0)
    return table


def _with_needed(table: DataFrame) -> DataFrame:
    """Return the table, its scores under the name "score"; raise TensorAdaptError where a column is missing."""
    names = list(map(str, table.columns))
    if twice := [name for i, name in enumerate(names) if name in names[:i]]:
        raise TensorAdaptError(f"the table has two columns {twice[0]!r}; expected one of each name")
    if not 0 < len(table) <= MOST_RUNS:
        raise TensorAdaptError(f"the table has {len(table)} rows; expected one for each run, at most {MOST_RUNS:,}")
    if "score" not in names and "test" in names:
        table = table.rename(columns={"test": "score"})
    for name in ("method", "score"):
        if name not in list(table.columns):
            raise TensorAdaptError(f"the table has no column {name!r}; {renaming(name, table)}")
    return table


def renaming(name: str, table: DataFrame) -> str:
    """Say which columns a table has, and how the one that may be meant gets a name: text for a method or a number."""
    names = [str(one) for one in table.columns]
    kind = {"exclude" if name == "method" else "include": "number"}
    others = [one for one in table.select_dtypes(**kind).columns if isinstance(one, str) and one not in RUN]
    meant = next(called(name, table), None) or closest(name, names) or next(iter(others), None)
    rename = f". Rename the one that is meant: table.rename(columns={{{meant!r}: {name!r}}})" if meant else ""
    return f"found {few(names)}{rename}"


def called(name: str, table: DataFrame) -> Iterator[str]:
    """Yield the columns of a table whose names stand for another column in other tables, such as parameters."""
    return (str(one) for one in table.columns if CALLED.get(str(one).lower()) == name)


def _check_scores(table: DataFrame) -> None:
    """Fill in what diverged runs score; raise TensorAdaptError for a row without a method or score."""
    diverged = (table["status"] == "diverged") & table["score"].isna()
    table["score"] = table["score"].where(~diverged, table["chance"])
    without = (table["status"] == FAILED) | table["tuning"]  # a rate is chosen on validation
    for name, missing in (("method", table["method"].isna()), ("score", table["score"].isna() & ~without)):
        if missing.any():
            at = int(missing.to_numpy(bool).argmax())
            value = table[name].astype(object).iloc[at]
            raise TensorAdaptError(f"row {table.index[at]!r} has {name} {shown(value)}; expected {TYPES[name][2]}")


def _check_directions(table: DataFrame) -> None:
    """Raise TensorAdaptError for a metric that, by its name, is better the lower it is; negated ones are below zero."""
    for metric, scores in table.groupby("metric")["score"]:
        if LESS_IS_BETTER.search(str(metric)) and (scores > 0).any():
            raise TensorAdaptError(
                f"of {metric!r} less is better, by its name, and tables take more to be better; give its negative, as "
                f'runs.assign(score=-runs["score"], metric="negative {metric}")'
            )


def _add_ranges(table: DataFrame) -> None:
    """Fill in the range of metrics that are known by their names; scores above 1.5 are taken to be in percent."""
    most = table.groupby("metric")["score"].transform("max").gt(1.5).map({True: 100.0, False: 1.0})
    ends = {metric: range_of(_known_name(str(metric))) for metric in table["metric"].unique()}
    for i, name in enumerate(("metric_low", "metric_high")):
        table[name] = table[name].astype("float64").fillna(most * table["metric"].map(lambda m, i=i: ends[m][i]))


def _known_name(metric: str) -> str:
    return metric.replace(" ", "_").removeprefix("test_").lower()


def meeting(table: DataFrame, conditions: Sequence[str]) -> DataFrame:
    """Return the runs that meet all conditions, such as "task=sst2" or "n_params<=5000".

    A missing value meets "!=" alone.

    Raises:
        TensorAdaptError: for a condition that cannot be read, an unknown column, and a value that a column cannot have.
    """
    for text in conditions:
        table = table[_meets(table, *_condition(text, list(table.columns)))]
    return table.reset_index(drop=True)


def _condition(text: str, columns: Sequence[str]) -> tuple[str, str, Any]:
    sign = re.search("<=|>=|!=|=|<|>", text)
    if sign is None:
        raise TensorAdaptError(f"condition {text!r} has none of {' '.join(OPERATORS)}; expected one such as task=sst2")
    column, value = text[: sign.start()].strip(), text[sign.end() :].strip()
    if column not in columns:
        now = CALLED.get(column.lower())
        hint = f"; it is called {now}" if now in columns else did_you_mean(column, columns)
        raise TensorAdaptError(f"condition {text!r}: unknown column {column!r}{hint}")
    return column, sign.group(), _wanted(text, column, value)


def _wanted(text: str, column: str, value: str) -> Any:
    """Return the value of a condition, of the type that its column has."""
    if column in (*FLAGS, "lost", "tuning"):
        if value.lower() not in TRUTHS:
            raise TensorAdaptError(
                f"condition {text!r}: {value!r} is neither yes nor no; expected one, as in {column}=no"
            )
        return TRUTHS[value.lower()]
    valid = (*STATUSES, FAILED)
    if column == "status" and value.lower() not in valid:
        raise TensorAdaptError(f"condition {text!r}: unknown status {value!r}{did_you_mean(value, valid)}")
    if column not in (*NUMBERS, "score", "n_trained"):  # a rank may be by bond
        return display(value).lower() if column == "method" else value.lower()
    try:
        return float(value)
    except ValueError:
        raise TensorAdaptError(
            f"condition {text!r}: {value!r} is no number; expected one, as {column} is a number: such as 5000 or 1e-3"
        ) from None


def _meets(table: DataFrame, column: str, sign: str, wanted: Any) -> Series:
    """Return whether each run's value compares with the wanted one: numbers as numbers, everything else as text."""
    values, compare = table[column], OPERATORS[sign]
    known = values.notna()
    if column == "rank" and str(wanted).isdigit() and not values[known].map(lambda v: isinstance(v, str)).any():
        values, wanted = values.astype("float64"), float(wanted)
    elif isinstance(wanted, str):
        values = values.where(known, "").map(display if column == "method" else str).str.lower()
    met = compare(values.where(known, wanted), wanted).astype(bool)
    return (met & known) if sign != "!=" else (met | ~known)
