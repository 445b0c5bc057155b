"""The runs of a folder as a table, of all its sweeps or of one: ``tensoradapt.results``."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tensoradapt.checks import as_path, flag, items, of_kind, strings
from tensoradapt.errors import TensorAdaptError
from tensoradapt.lab.analysis.protocol import differing
from tensoradapt.lab.analysis.results import MOST_RUNS, complete, folder, frame, is_csv, meeting, read_csv
from tensoradapt.lab.runs.store import Run
from tensoradapt.lab.sweeps import record
from tensoradapt.lab.sweeps.due import Due, due

if TYPE_CHECKING:
    from pandas import DataFrame


def results(
    source: Path | str | Iterable[Run],
    *,
    tuning: bool = False,
    where: Sequence[str] | str = (),
    spec: Path | str | Mapping[str, Any] | None = None,
) -> DataFrame:
    """Return runs as a pandas DataFrame with a row for each run, by task, method, parameters and seed.

    Columns are those of ``lab.analysis.results.RUN`` (task, method, rank, n_params, seed, score and more) and
    all settings of a run (docs/reference/fields.md). ``summarise``, ``compare``, ``frontier`` and ``ta.plots`` take the
    table as it is, also joined with rows of other experiments (docs/guides/sweeps/results.md). Failed runs of a folder
    are rows with the status "failed" and no score.

    Args:
        source: a folder of runs, runs of ``load_runs``, or a CSV file with a row for each run, as of other experiments
            or ``table.to_csv``.
        tuning: with the runs that only helped to choose a learning rate, whose ``tuning`` is True.
        where: conditions that all rows meet, such as "task=sst2"; a missing value meets "!=" alone.
        spec: of a folder, only the runs of this sweep, a file or what it holds, under the names that it gives to
            methods.

    Returns:
        The DataFrame.

    Raises:
        TensorAdaptError: for a missing folder, a damaged run or file, a condition that cannot be read, and a
            specification that was not run into the folder.

    >>> import tempfile
    >>> import tensoradapt as ta
    >>> spec = {"model": "tiny-random-bert", "task": "planted", "method": "cp", "rank": 2}
    >>> spec |= {"lr": 1e-3, "seed": 0, "steps": 3}
    >>> folder = tempfile.mkdtemp()
    >>> done = ta.sweep(spec, folder, executor="inline", probe=False, say=lambda line: None)
    >>> ta.results(folder, where="task=planted")["n_params"].tolist()
    [82]
    """
    flag(tuning, "tuning")
    conditions = strings(where, "where")
    if is_csv(source):
        table = complete(read_csv(as_path(source, "source")))
    elif isinstance(source, str | os.PathLike):
        table = _of_folder(as_path(source, "source"), as_path(spec, "spec") if isinstance(spec, str) else spec)
    elif hasattr(source, "columns"):
        raise TensorAdaptError(
            "source is a table; expected a folder of runs: compare, summarise and ta.plots take a table as it is"
        )
    else:
        table = frame(items(of_kind(Run), source, "runs", most=MOST_RUNS))
    return meeting(table if tuning else table[~table["tuning"]], conditions)


def _of_folder(root: Path, spec: Path | Mapping[str, Any] | None) -> DataFrame:
    """Return the runs of a folder, or those of one sweep."""
    table = folder(root)
    if spec is not None:
        plans = {one.spec.id: due(one) for one in record.read_all(root, spec)}
        return of_sweeps(marked(table, plans), [*plans.values()])
    return marked(table, _plans(root)) if (table["sweep"] == "").any() and differing(table) else table


def _plans(root: Path) -> dict[str, Due]:
    """Return what each sweep of a folder asks for, by the id of its specification; none for a damaged record."""
    found = {}
    for path in record.paths(root):
        with suppress(TensorAdaptError):
            found[path.stem] = due(record.read(path))
    return found


def marked(table: DataFrame, plans: Mapping[str, Due]) -> DataFrame:
    """Return runs with the ids of the specifications that ask for each; missing where none does."""
    asked: dict[str, list[str]] = {}
    for name, plan in plans.items():
        for config in plan.configs:
            asked.setdefault(config.id, []).append(name)
    return table.assign(sweep=[" ".join(asked[name]) if name in asked else None for name in table["id"]])


def of_sweeps(table: DataFrame, plans: Sequence[Due]) -> DataFrame:
    """Return the runs of sweeps under the names that these give to methods; another sweep may have run them too."""
    named = {config.id: config.method for plan in plans for config in plan.configs}
    own = table[table["id"].isin(list(named))]
    return own.assign(method=own["id"].map(named))
