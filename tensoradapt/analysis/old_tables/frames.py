"""Read a pandas DataFrame with a row for each run, by anyone, as the runs that tables and figures are made of.

What a table lacks is not made up: without the scores of test examples differences are paired over seeds alone, and
without a level of chance no score is a share of the way from there to perfect. The range of a metric is known by its
name, as a column has nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tensoradapt.analysis.old_tables.comparable import REFERENCES, metric_name, percent, runs_of
from tensoradapt.checks import is_number, shown, text
from tensoradapt.errors import TensorAdaptError, did_you_mean
from tensoradapt.metrics.table import LESS_IS_BETTER, range_of
from tensoradapt.runs.row import COLUMNS
from tensoradapt.runs.store import Run

SCORES = ("test", "score")  # columns of which another one, "metric", may say what they are
MOST_ROWS = 1_000_000


@dataclass(frozen=True)
class Columns:
    """The names of columns: a cost ``x``, the score ``y``, the method and the seed.

    None is "test" for ``y``, and "seed" for ``seed``; without such a column each row of a method and size is a seed.
    ``others``: further names by the usual ones.
    """

    x: str = "n_params"
    y: str | None = None
    method: str = "method"
    seed: str | None = None
    others: Mapping[str, str] | None = None


USUAL = Columns()


def is_frame(value: Any) -> bool:
    """Return whether a value is a pandas DataFrame."""
    kinds = type(value).__mro__
    return any(kind.__name__ == "DataFrame" and kind.__module__.split(".")[0] == "pandas" for kind in kinds)


def as_runs(value: Any, columns: Columns = USUAL) -> list[Run]:
    """Return given runs as a list, or a table's rows as runs.

    Raises TensorAdaptError for a table without rows or without a column that is named, and for a score, cost or method
    that is missing or of another type, with its row.
    """
    return _of_frame(value, columns) if is_frame(value) else runs_of(value)


def _of_frame(frame: Any, columns: Columns) -> list[Run]:
    others = {usual: text(name, usual) for usual, name in (columns.others or {}).items()}
    names = [str(name) for name in frame.columns]
    if twice := [name for i, name in enumerate(names) if name in names[:i]]:
        raise TensorAdaptError(f"the table has two columns {twice[0]!r}; expected one of each name")
    if not 0 < len(frame) <= MOST_ROWS:
        raise TensorAdaptError(f"the table has {len(frame)} rows; expected one for each run, at most {MOST_ROWS:,}")
    y = columns.y or "test"
    for role, name in (("x", columns.x), ("y", y), ("method", columns.method), ("seed", columns.seed)):
        if name is not None:
            _require(names, role, name)
    for usual, name in others.items():
        if name != usual:
            _require(names, usual, name)
    renamed = {name: usual for usual, name in others.items()}
    rows = [
        (index, {renamed.get(name, name): _plain(value) for name, value in zip(names, values, strict=True)})
        for index, values in zip(frame.index, frame.itertuples(index=False, name=None), strict=True)
    ]
    rows = [(index, row) for index, row in rows if row.get("status") != "failed"]
    seeds = _seeds(rows, columns, "seed" if columns.seed is None and "seed" in names else columns.seed)
    runs = [_run(index, row, seed, columns, y) for (index, row), seed in zip(rows, seeds, strict=True)]
    for run in runs:
        _check_direction(run)
    largest = 100.0 if percent([run.row["test"] for run in runs if run.row["test"] is not None]) else 1.0
    for run in runs:
        low, high = range_of(metric_name(run).replace(" ", "_").removeprefix("test_").lower())
        run.row.update(metric_low=largest * low, metric_high=largest * high, perfect=largest)
    return runs


def _check_direction(run: Run) -> None:
    """Raise TensorAdaptError for a metric that, by its name, is better the lower it is; negated ones are below zero."""
    metric = metric_name(run)
    if LESS_IS_BETTER.search(metric) and (run.row["test"] or 0) > 0:
        raise TensorAdaptError(
            f"of {metric!r} less is better, by its name, and figures take more to be better; give its negative, as "
            f'runs.assign(**{{"negative {metric}": -runs["{metric}"]}}) and y="negative {metric}"'
        )


def _require(names: Sequence[str], role: str, name: Any) -> None:
    if name not in names:
        what = f"{role}={shown(name)}" if name != role else shown(name)
        raise TensorAdaptError(f"the table has no column {what}{did_you_mean(name, names)}")


def _plain(value: Any) -> Any:
    """Return a cell as a plain Python value; None where it is missing."""
    value = value.item() if hasattr(value, "item") and getattr(value, "ndim", 0) == 0 else value
    missing = type(value).__name__ in ("NAType", "NaTType") or (isinstance(value, float) and math.isnan(value))
    return None if missing else value


def _seeds(rows: Sequence[tuple[Hashable, Mapping[str, Any]]], columns: Columns, seed: str | None) -> list[Any]:
    """Return the seed of each row; without such a column the number of the row among those of its method and size."""
    if seed is not None:
        values = [row[seed] for _, row in rows]
        if odd := [index for (index, _), value in zip(rows, values, strict=True) if value is None]:
            raise TensorAdaptError(f"row {odd[0]!r} has no {seed}; expected one in each row, or no such column")
        whole = all(isinstance(value, int) or (isinstance(value, float) and value.is_integer()) for value in values)
        return [int(value) if whole else str(value) for value in values]
    keys = ("task", "rank", "budget", columns.x)
    alike: dict[tuple[Any, ...], int] = {}
    found = []
    for _, row in rows:
        key = (row[columns.method], *(row.get(name) for name in keys))
        found.append(alike.setdefault(key, 0))
        alike[key] += 1
    return found


def _run(index: Hashable, row: Mapping[str, Any], seed: Any, columns: Columns, y: str) -> Run:
    method = row[columns.method]
    if not isinstance(method, str) or not method.strip():
        raise TensorAdaptError(f"row {index!r} has {columns.method} {shown(method)}; expected the name of a method")
    status = row.get("status") or "finished"
    score = _number(index, row, y, missing=status == "diverged" and row.get("chance") is not None)
    cost = _number(index, row, columns.x, missing=columns.x != "n_params")
    n_params = cost if row.get("n_params") is None else _number(index, row, "n_params")
    kinds = {name: kind for kind, name in REFERENCES.items()}
    metric = row.get("metric") if y in SCORES and row.get("metric") else y
    name = str(row.get("id") or f"row {index}")
    made = {
        **dict.fromkeys(COLUMNS),
        **row,
        **{"id": name, "status": status, "method": method, "seed": seed, "rank": rank_of(row.get("rank"))},
        **{"kind": row.get("kind") or kinds.get(method, "adapter"), "tuning": bool(row.get("tuning"))},
        **{"n_params": n_params, columns.x: cost, "metric": metric, "test": score, "note": ""},
        "score_name": f"test {metric}" if y == "test" else metric,
    }
    return Run(name, Path(str(row.get("path") or name)), made)


def _number(index: Hashable, row: Mapping[str, Any], name: str, missing: bool = False) -> Any:
    value = row[name]
    if value is None and missing:
        return None
    if not is_number(value):
        raise TensorAdaptError(f"row {index!r} has {name} {shown(value)}; expected a finite number")
    return int(value) if isinstance(value, float) and value.is_integer() and name == "n_params" else value


def rank_of(value: Any) -> Any:
    """Return a rank of a table, which may be a number or a text of ranks by bond.

    >>> rank_of(8.0), rank_of("8"), rank_of("layer=2 out=4"), rank_of(None)
    (8, 8, {'layer': 2, 'out': 4}, None)
    """
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if not isinstance(value, str):
        return value
    parts = [part.rpartition("=") for part in value.split()]
    if not parts or not all(number.isdigit() for _, _, number in parts):
        return None
    ranks = {bond: int(number) for bond, _, number in parts}
    return ranks.get("") or ranks
