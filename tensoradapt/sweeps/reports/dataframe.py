"""Runs as a pandas DataFrame, ``tensoradapt.results``, and as Parquet."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tensoradapt.analysis.old_tables.comparable import runs_of
from tensoradapt.checks import flag, place, strings
from tensoradapt.errors import missing_extra
from tensoradapt.files import replace_file
from tensoradapt.runs.row import COLUMNS, FLAGS, NUMBERS, WHOLE, Row
from tensoradapt.runs.store import Failure, Run
from tensoradapt.sweeps.reports.results import every_column, matching, plain_rows, rows_of, select


def results(
    source: Path | str | Iterable[Run],
    *,
    tuning: bool = False,
    where: Sequence[str] | str = (),
    spec: Path | str | None = None,
) -> Any:
    """Return the runs of a folder, or given ones, as a pandas DataFrame with a row for each run.

    Columns are those of ``tensoradapt results`` (task, method, projections, scale, layout, rank, n_params, lr, seed,
    metric, validation, test and all other settings) and ``path``, the folder of the run. ``test`` is the score of
    ``metric``.
    Failed runs of a folder are rows with the status "failed" and no score. The functions of ``tensoradapt.plots`` take
    the table as it is, also joined with rows of other experiments (docs/sweeps/results.md).

    Args:
        source: a folder of runs, or runs of ``load_runs``.
        tuning: with the runs that only helped to choose a learning rate, whose ``tuning`` is True.
        where: conditions that all rows meet, such as "task=sst2".
        spec: of a folder, only the runs of this sweep.

    Returns:
        The DataFrame.

    Raises:
        TensorAdaptError: where pandas is not installed, and as ``tensoradapt results`` does.
    """
    try:
        import pandas
    except ImportError:
        raise missing_extra("pandas", "results", "a DataFrame of runs") from None
    flag(tuning, "tuning")
    conditions = strings(where, "where")
    runs, failed = _found(source, conditions, spec)
    paths = {run.name: str(run.path) for run in runs}
    rows = [row for row in rows_of(runs, failed) if tuning or not row["tuning"]]
    table = pandas.DataFrame(plain_rows(rows), columns=list(COLUMNS))
    table["path"] = [paths.get(row["id"]) for row in rows]
    kinds = {**dict.fromkeys(NUMBERS, "float64"), **dict.fromkeys(WHOLE, "Int64"), **dict.fromkeys(FLAGS, "boolean")}
    kinds |= {"rank": _rank_kind(rows), "tuning": "bool"}
    return table.astype(kinds)


def _found(
    source: Path | str | Iterable[Run], where: Sequence[str], spec: Path | str | None
) -> tuple[list[Run], Mapping[str, Failure]]:
    if isinstance(source, str | os.PathLike):
        return select(place(source, "source"), where, None if spec is None else place(spec, "spec"))
    runs = runs_of(source)
    return [run for run in runs if matching(run.row, where)], {}


def _rank_kind(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return pandas' kind of the column of ranks: whole numbers, or text where a run has ranks by bond."""
    return "string" if any(isinstance(row["rank"], Mapping) for row in rows) else "Int64"


def write_parquet(rows: Sequence[Row], path: Path) -> Path:
    """Write the rows as Parquet and return the path; raises TensorAdaptError without pandas and pyarrow."""
    try:
        import pandas
        import pyarrow  # noqa: F401  # what pandas writes it with
    except ImportError as error:
        raise missing_extra(str(error.name), "results", "a Parquet table") from None
    data = io.BytesIO()
    frame = pandas.DataFrame(plain_rows(rows), columns=list(every_column(rows)))
    texts = {column: "string" for column in frame if column not in NUMBERS and frame[column].dtype == object}
    frame.astype(texts).to_parquet(data, index=False)
    return replace_file(Path(path), data.getvalue())
