"""The runs of a folder as a table, of all its sweeps or of one: ``tensoradapt.results``."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tensoradapt.analysis.results import MOST_RUNS, folder, frame, meeting
from tensoradapt.checks import flag, items, of_kind, place, strings
from tensoradapt.errors import TensorAdaptError
from tensoradapt.runs.store import Run
from tensoradapt.sweeps import record
from tensoradapt.sweeps.spec import read_spec

if TYPE_CHECKING:
    from pandas import DataFrame


def results(
    source: Path | str | Iterable[Run],
    *,
    tuning: bool = False,
    where: Sequence[str] | str = (),
    spec: Path | str | None = None,
) -> DataFrame:
    """Return runs as a pandas DataFrame with a row for each run, by task, method, parameters and seed.

    Columns are those of ``tensoradapt.analysis.results.RUN`` (task, method, rank, n_params, seed, score and more) and
    all settings of a run (docs/reference/fields.md). ``summarise``, ``compare``, ``frontier`` and ``ta.plots`` take the
    table as it is, also joined with rows of other experiments (docs/sweeps/results.md). Failed runs of a folder are
    rows with the status "failed" and no score.

    Args:
        source: a folder of runs, or runs of ``load_runs``.
        tuning: with the runs that only helped to choose a learning rate, whose ``tuning`` is True.
        where: conditions that all rows meet, such as "task=sst2"; a missing value meets "!=" alone.
        spec: of a folder, only the runs of this sweep, under the names that it gives to methods.

    Returns:
        The DataFrame.

    Raises:
        TensorAdaptError: for a missing folder, a damaged run, a condition that cannot be read, and a specification that
            was not run into the folder.
    """
    flag(tuning, "tuning")
    conditions = strings(where, "where")
    if isinstance(source, str | os.PathLike):
        table = _of_folder(place(source, "source"), None if spec is None else place(spec, "spec"))
    else:
        table = frame(items(of_kind(Run), source, "runs", most=MOST_RUNS))
    return meeting(table if tuning else table[~table["tuning"]], conditions)


def _of_folder(root: Path, spec: Path | None) -> DataFrame:
    """Return the runs of a folder, or those of one sweep under its own names of methods."""
    table = folder(root)
    if spec is None:
        return table
    named = {config.id: config.method for one in sweeps(root, spec) for config in one.due(root).configs}
    own = table[table["id"].isin(named)]
    return own.assign(method=own["id"].map(named))


def sweeps(root: Path, spec: Path | None = None) -> list[record.Recorded]:
    """Return the sweeps recorded in a folder, or that of a specification; raises TensorAdaptError if it is missing."""
    if spec is None:
        return [record.read(path) for path in record.paths(root)]
    path = record.place(root, read_spec(spec))
    if not path.is_file():
        raise TensorAdaptError(
            f"{root} has no sweep of {spec} on record; expected the specification as it was run: run it into this "
            "folder, or leave it out to take the runs of every sweep"
        )
    return [record.read(path)]
