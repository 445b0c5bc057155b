"""Means over seeds of a table of runs, and which of them are on the frontier of score and cost."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pandas import DataFrame, Series

from tensoradapt.checks import check_is, is_number, shown
from tensoradapt.errors import TensorAdaptError, did_you_mean
from tensoradapt.lab.analysis import protocol
from tensoradapt.lab.analysis.column_types import TYPES
from tensoradapt.lab.analysis.results import CONFIGURATION, COSTS, MEANS, called, renaming, table_of
from tensoradapt.lab.analysis.statistics.intervals import non_dominated, on_frontier_probability, t_interval
from tensoradapt.lab.runs.store import Run
from tensoradapt.planning.size import Size

Row = dict[str, Any]
Source = Path | str | Iterable[Run] | Any  # a folder of runs, runs, or a DataFrame or dicts with a row for each run
# what the runs of a configuration have in common, beside what it is told by
SAME = (
    *("model", "metric", "parameterization", "projections", "scale", "optimizer", "chance"),
    *("metric_low", "metric_high", "n_trained", "lr"),
)
BY_SEED = {"scores": "score", "validations": "validation", "seeds": "seed", "lost": "lost", "runs": "id"}
BY_SEED |= {"paths": "path"}
DRAWS, DRAWN = 4000, 20_000_000  # how often means are drawn for ``p_frontier``, and how many means at most
KINDS = {  # types of the columns of means and comparisons that are not "float64"
    **{name: kind for name, (kind, *_) in TYPES.items()},
    **dict.fromkeys((*BY_SEED, "reference", "reference_rank", "control", "over"), "object"),
    **dict.fromkeys(("n_seeds", "n_lost", "reference_n_params", "reference_lost", "control_n_params"), "Int64"),
    **dict.fromkeys(("seeds_needed", "seeds_within", "seeds_settle"), "Int64"),
    **dict.fromkeys(("outcome", "verdict", "sentence"), "str"),
    **dict.fromkeys(("on_frontier", "decided", "within", "within_twice"), "bool"),
}


def summarise(runs: Source, cost: str = "n_params") -> DataFrame:
    """Return a row for each configuration and reference, by task and cost: its mean over seeds with a 95 % t interval.

    A configuration is what has one task, method, layout, size and number of steps. Runs at chance stay in the mean,
    diverged ones count as chance; runs that only chose a rate are left out. Examples are in
    docs/guides/sweeps/results.md.

    Args:
        runs: a folder of runs, runs of ``load_runs``, or a DataFrame (``ta.results``) or list of dicts with a row for
            each run.
        cost: the column that the frontier is drawn over, such as "n_params", "n_trained" or "seconds"; its median over
            seeds is ``cost``.

    Returns:
        A DataFrame with the columns ``MEANS``, which docs/reference/columns.md explains: among them ``mean``, ``low``,
        ``high`` and ``sd`` of the score over ``n_seeds`` seeds, and ``on_frontier``.

    Raises:
        TensorAdaptError: for runs that do not compare (two models or metrics of a task), two runs of one seed, two
            rates or another setting apart in a configuration, and a cost that a run lacks.

    >>> import pandas as pd
    >>> import tensoradapt as ta
    >>> runs = pd.DataFrame({"method": ["lora", "cp"] * 3, "seed": [0, 0, 1, 1, 2, 2], "n_params": [9216, 1008] * 3})
    >>> runs["score"] = [0.81, 0.841, 0.83, 0.86, 0.82, 0.849]
    >>> ta.summarise(runs)[["method", "mean", "n_seeds", "on_frontier"]].round(2).to_numpy().tolist()
    [['cp', 0.85, 3, True], ['lora', 0.82, 3, False]]
    """
    return typed_table(mean_rows(reported(runs), cost), MEANS)


def mean_rows(runs: DataFrame, cost: str = "n_params") -> list[Row]:
    """Return the rows of ``summarise`` of reported runs, as dicts with how the runs were made too (``protocol``)."""
    _check_cost(runs, cost)
    alike = [name for name in protocol.ALIKE if name in runs and _varies(runs[name])]
    made = [name for name in ("sweep", *protocol.PROTOCOL) if name in runs]
    used = dict.fromkeys((*CONFIGURATION, *SAME, *BY_SEED.values(), cost, *made, *alike))
    rows: list[Row] = []
    for of_task in grouped(records(runs[[*used]]), "task"):
        _check_task(of_task)
        means = [_mean(own, cost) for own in grouped(of_task, *CONFIGURATION)]
        rows += _on_frontier(sorted(means, key=lambda row: (row["cost"], row["method"], str(row["layout"]))))
    return rows


def typed_table(rows: Sequence[Row], columns: Iterable[str]) -> DataFrame:
    """Return rows as a table of some columns, each of its type."""
    table = DataFrame(rows, columns=list(columns))
    return table.astype({name: KINDS.get(name, "float64") for name in table})


def records(table: DataFrame) -> list[Row]:
    """Return the rows of a table as dicts of plain Python values; None where one is missing."""
    names = list(table)
    columns = [table[name].astype(object).where(table[name].notna(), None).tolist() for name in names]
    return [dict(zip(names, cells, strict=True)) for cells in zip(*columns, strict=True)]


def _varies(values: Series) -> bool:
    """Say whether a column may have two values, of which a missing one is one."""
    try:
        return bool(values.nunique(dropna=False) > 1)
    except TypeError:  # lists cannot be told apart so
        return True


def grouped(rows: Sequence[Row], *keys: str) -> list[list[Row]]:
    """Return the rows of each combination of values, in the order of their first."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    return list(groups.values())


def reported(runs: Source) -> DataFrame:
    """Return the runs that means are of as a table: all but those that only helped to choose a learning rate."""
    table = table_of(runs)
    return table[~table["tuning"]]


def frontier(runs: Source, cost: str = "n_params") -> DataFrame:
    """Return the rows of ``summarise`` that are on the frontier: no other mean is as high at as little cost.

    A configuration whose runs are all lost is on none, and references are no part of it. Examples are in
    docs/guides/sweeps/results.md.

    Args:
        runs: a folder of runs, runs of ``load_runs``, or a DataFrame or list of dicts with a row for each run.
        cost: the column of the cost.

    Returns:
        A DataFrame with the columns ``MEANS``.

    Raises:
        TensorAdaptError: as ``summarise`` does.

    >>> import pandas as pd
    >>> import tensoradapt as ta
    >>> runs = pd.DataFrame({"method": ["lora", "cp"] * 3, "seed": [0, 0, 1, 1, 2, 2], "n_params": [9216, 1008] * 3})
    >>> runs["score"] = [0.81, 0.841, 0.83, 0.86, 0.82, 0.849]
    >>> ta.frontier(runs)["method"].tolist()
    ['cp']
    """
    means = summarise(runs, cost)
    return means[means["on_frontier"]].reset_index(drop=True)


def _check_cost(table: DataFrame, cost: str) -> None:
    check_is("cost", cost, str)
    if cost not in table:
        raise TensorAdaptError(f"cost is {shown(cost)}{did_you_mean(cost, [*COSTS, *table.columns])}")
    if table[cost].isna().all() and next(called(cost, table), None):
        raise TensorAdaptError(f"the table has no column {cost!r}; {renaming(cost, table.dropna(axis=1, how='all'))}")
    for row in records(table[table["kind"] == "adapter"][list(dict.fromkeys(("id", cost)))]):
        if not is_number(row[cost]):
            raise TensorAdaptError(
                f"run {row['id']} has no {cost} that is a number; expected one for each run: choose another cost"
            )


def _mean(own: Sequence[Row], cost: str) -> Row:
    """Return the row of one configuration."""
    own = sorted(own, key=lambda row: (row["seed"] is None, row["score"] if row["seed"] is None else row["seed"]))
    _check_configuration(own)
    interval = t_interval([row["score"] for row in own])
    costs, checked = ([row[name] for row in own if row[name] is not None] for name in (cost, "validation"))
    return {
        **{name: own[0][name] for name in (*CONFIGURATION, *SAME, "sweep", *protocol.PROTOCOL) if name in own[0]},
        **{"cost": statistics.median(costs) if costs else math.nan, "mean": interval.mean, "low": interval.low},
        **{"high": interval.high, "sd": interval.sd, "n_seeds": interval.n, "n_lost": sum(row["lost"] for row in own)},
        "validation": statistics.fmean(checked) if checked else math.nan,
        **{name: tuple(row[column] for row in own) for name, column in BY_SEED.items()},
    }


def _check_configuration(own: Sequence[Row]) -> None:
    """Raise TensorAdaptError if the runs of a configuration have two learning rates or share a seed."""
    named = name_of(own[0])
    protocol.check_alike(named, own)
    rates = sorted({row["lr"] for row in own if row["lr"] is not None})
    if len(rates) > 1:
        raise TensorAdaptError(
            f"{named} has runs with learning rates {', '.join(map(str, rates))}; expected one, chosen on validation: "
            "select the runs of that rate first, by spec= or where= (--spec, --where)"
        )
    seeds = Counter(row["seed"] for row in own if row["seed"] is not None)
    if twice := [row["id"] for row in own if seeds[row["seed"]] > 1]:
        raise TensorAdaptError(
            f"{named} has several runs of one seed: {', '.join(twice)}; expected one run per seed: select the "
            "runs that share all other settings first, those of one sweep by spec=, or by where= (--spec, --where)"
        )


def name_of(row: Row) -> str:
    """Return a configuration's name in errors: those of its method and size as they were given."""
    return f"{row['method']} {Size.of(row).text}".strip()


def _check_task(own: Sequence[Row]) -> None:
    """Raise TensorAdaptError unless the runs of a task share model and metric."""
    for key in ("model", "metric"):
        values = sorted({str(row[key]) for row in own})
        if len(values) > 1:
            raise TensorAdaptError(
                f"the runs have {len(values)} {key}s: {', '.join(values)}; expected one, as scores of different "
                f"{key}s do not compare: select the runs of one first, as by where='{key}={values[0]}' (--where)"
            )


def _on_frontier(means: list[Row]) -> list[Row]:
    """Return the rows of a task with whether each is on the frontier, and how probable that is."""
    able = [row for row in means if row["kind"] == "adapter" and row["n_lost"] < row["n_seeds"]]
    cost, mean, sd, n = (np.array([row[key] for row in able]) for key in ("cost", "mean", "sd", "n_seeds"))
    on = non_dominated(cost, mean)
    chances = on_frontier_probability(cost, mean, sd, n, max(1, min(DRAWS, DRAWN // max(len(able), 1))))
    for row in means:
        noisy = row["kind"] == "adapter" and row["n_seeds"] > 1
        row |= {"on_frontier": False, "p_frontier": 0.0 if noisy else math.nan}
    least = min(cost, default=math.nan)  # the cheapest is on any frontier, whatever its score
    for row, is_on, share in zip(able, on, chances, strict=True):
        row |= {"on_frontier": bool(is_on), "p_frontier": math.nan if row["cost"] == least else float(share)}
    return means
