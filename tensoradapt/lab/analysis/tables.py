"""What follows from a table of runs: means over seeds, the frontier, and paired comparisons with a reference."""

from __future__ import annotations

import math
import re
import statistics
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from pandas import DataFrame, Series

from tensoradapt.checks import check_is, is_number, is_whole, shown
from tensoradapt.errors import TensorAdaptError, did_you_mean
from tensoradapt.habits import answers_keywords
from tensoradapt.lab.analysis import protocol
from tensoradapt.lab.analysis.beside import control_of, floor_of, gains, on_validation, shared_seeds, sizes_of
from tensoradapt.lab.analysis.names import display
from tensoradapt.lab.analysis.results import CONFIGURATION, COSTS, RUN, called, renaming, table_of
from tensoradapt.lab.analysis.statistics.examples import paired_scores
from tensoradapt.lab.analysis.statistics.intervals import (
    Floats,
    Interval,
    crossed_p,
    non_dominated,
    on_frontier_probability,
    paired_difference,
    t_interval,
)
from tensoradapt.lab.analysis.statistics.significance import crossed_paired_p, holm, mcnemar, paired_p, seeds_needed
from tensoradapt.lab.runs.row import REFERENCES
from tensoradapt.lab.runs.store import Run
from tensoradapt.planning.size import Size

Row = dict[str, Any]
Source = Path | str | Iterable[Run] | Any  # a folder of runs, runs, or a DataFrame or dicts with a row for each run
SAME = (  # what the runs of a configuration have in common, beside what it is told by
    *("model", "metric", "parameterization", "projections", "scale", "optimizer", "chance", "metric_low"),
    *("metric_high", "n_trained"),
)
BY_SEED = {
    "scores": "score",
    "validations": "validation",
    "seeds": "seed",
    "lost": "lost",
    "runs": "id",
    "paths": "path",
}  # by seed
SIZED = re.compile(r"(.+?)[ ,]*r ?= ?(\d+)")
LEVEL = 0.05  # Holm's p below which a difference is decided
LORA_RANK = 8
DRAWS, DRAWN = 4000, 20_000_000  # how often means are drawn for ``p_frontier``, and how many means at most
AT = ("auto", "budget", "size", "n_params")
P_VALUES, SEEDS, HOLDS = ("p", "p_within"), ("seeds_needed", "seeds_within"), ("decided", "within")
CONTROL = "control_p"
MEANS = {  # what a column of ``summarise`` means, beside those of ``RUN``
    **{name: RUN[name] for name in RUN if name in (*CONFIGURATION, *SAME[:6], "n_trained", "lr")},
    "cost": "median over seeds of the cost",
    "mean": "mean score over seeds",
    "low": "lower end of the 95 % t interval of the mean; missing for one seed",
    "high": "upper end of it",
    "sd": "standard deviation of the scores; missing for one seed",
    "validation": "mean validation score over these seeds; other seeds chose rates on it",
    "n_seeds": "number of runs",
    "n_lost": "how many of them ended at chance or diverged",
    "scores": "score of each seed",
    "validations": "validation score of each seed",
    "seeds": "the seeds",
    "lost": "whether the run of each seed ended at chance or diverged",
    "runs": "id of each seed's run",
    "paths": "folder of each seed's run",
    **{name: RUN[name] for name in ("chance", "metric_low", "metric_high")},
    "on_frontier": "whether no other mean is as high at as little cost",
    "p_frontier": "probability of that, given the noise of seeds; missing for one seed, and for the least cost, which "
    "is on it by definition; of 4,000 draws, and of fewer above 5,000 configurations: 100 of 200,000",
}
USED = (
    *CONFIGURATION,
    *SAME,
    "lr",
    "seed",
    "score",
    "validation",
    "lost",
    "id",
    "path",
)  # columns of runs that means are made of
COMPARED = {  # what a column of ``compare`` means, beside those of ``RUN``
    **{
        name: RUN[name] for name in ("task", "metric", "kind", "method", "parameterization", "layout", "rank", "budget")
    },
    "n_params": RUN["n_params"],
    "steps": RUN["steps"],
    "reference": "method that it is compared with; of a parameterization over several layouts that over its own one",
    "reference_rank": "rank of the reference",
    "reference_n_params": "trained parameters of the reference",
    "times_fewer": "the reference's parameters, divided by its own",
    "difference": "mean score minus that of the reference",
    "low": "lower end of the 95 % interval of the difference, of this comparison alone; it may leave 0 out where p is "
    "above 0.05, as p is the larger of two; missing where one seed has no test examples",
    "high": "upper end of it",
    "sd": "standard deviation of the difference over seeds",
    "sd_examples": "what test examples add to the standard deviation of the mean difference, with any number of seeds",
    "n_seeds": "number of seeds that both have",
    "p": "p value that there is no difference, of this comparison alone",
    "p_holm": "p after Holm's correction over all comparisons of the task",
    "decided": "whether p_holm is below 0.05, and the difference on validation has the same sign",
    "margin": "loss of score that does not matter",
    "p_within": "one-sided p value that it loses the margin or more, of this comparison alone",
    "p_within_holm": "p_within after Holm's correction over all comparisons of the task",
    "within": "whether p_within_holm is below 0.025, and the loss on validation is below the margin too",
    "validation_difference": "mean validation score minus that of the reference, over the same seeds",
    "validation_low": "lower end of its 95 % t interval over seeds; missing for one seed",
    "validation_high": "upper end of it",
    "floor": "mean score of the head on the frozen base, if it was run",
    "share": "share that it keeps of what the reference gains over the floor",
    "margin_share": "share of that gain that the margin is",
    "control": "the reference's method at the size whose count is nearest, such as LoRA r=2",
    "control_n_params": "its trained parameters",
    "control_difference": "mean score minus that of the control",
    "control_low": "lower end of its 95 % interval, as of the difference to the reference",
    "control_high": "upper end of it",
    "control_p_holm": "p value that it does not differ from its control, after Holm's correction over all controls of "
    "the task",
    "seeds_needed": "fewest seeds that decide a difference of this size and spread where the other comparisons stay as "
    "they are; missing above 200, and where it takes more test examples",
    "seeds_within": "fewest seeds with which ``within`` holds for such a difference and spread; likewise",
    "over": "what is paired: seeds, seeds and test examples, or test examples of one seed",
    "runs": "ids of the runs of both",
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
    table = reported(runs)
    _check_cost(table, cost)
    rows: list[Row] = []
    more = [cost, *(name for name in protocol.ALIKE if name in table and _varies(table[name]))]
    more = [name for name in more if name not in USED]
    for own in _grouped(records(table[[*USED, *dict.fromkeys(more)]]), ("task",)):
        _check_task(own)
        of_task = [_mean(group, cost) for group in _grouped(own, CONFIGURATION)]
        rows += _on_frontier(sorted(of_task, key=lambda row: (row["cost"], row["method"], str(row["layout"]))))
    means = DataFrame(rows, columns=list(MEANS))
    return means.astype(_kinds(means))


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


def _grouped(rows: Sequence[Row], keys: Sequence[str]) -> list[list[Row]]:
    """Return the rows of each combination of values, in the order of their first."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    return list(groups.values())


def _kinds(table: DataFrame) -> dict[str, str]:
    """Return the types of the columns of means and comparisons."""
    whole = ("budget", "n_params", "n_trained", "steps", "n_seeds", "n_lost", "reference_n_params", *SEEDS)
    others = ("task", "kind", "method", "layout", "rank", *SAME[:6], *BY_SEED, "reference", "reference_rank", "over")
    flags = ("on_frontier", "decided", "within")
    kinds = {**dict.fromkeys(whole, "Int64"), **dict.fromkeys(others, "object"), **dict.fromkeys(flags, "bool")}
    kinds |= {"control": "object", "control_n_params": "Int64"}
    return {name: kinds.get(name, "float64") for name in table}


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
    found = t_interval([row["score"] for row in own])
    costs = [row[cost] for row in own if row[cost] is not None]
    return {
        **{name: own[0][name] for name in (*CONFIGURATION, *SAME, "lr")},
        **{"cost": statistics.median(costs) if costs else math.nan, "mean": found.mean, "low": found.low},
        **{"high": found.high, "sd": found.sd, "n_seeds": found.n, "n_lost": sum(row["lost"] for row in own)},
        "validation": _mean_of(row["validation"] for row in own),
        **{name: tuple(row[column] for row in own) for name, column in BY_SEED.items()},
    }


def _mean_of(values: Iterable[float | None]) -> float:
    """Return the mean of the values that there are; nan of none."""
    there = [value for value in values if value is not None]
    return statistics.fmean(there) if there else math.nan


def _check_configuration(own: Sequence[Row]) -> None:
    """Raise TensorAdaptError if the runs of a configuration have two learning rates or share a seed."""
    named = _called(own[0])
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


def _called(row: Row) -> str:
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


@dataclass(frozen=True)
class Matched:
    """Two configurations on the seeds that both have: their scores by seed, and the folders of their runs.

    ``own`` has the columns that a comparison takes over; ``cells`` replaces some of them, and adds what stands beside
    it. ``control``: the same with the reference's method at the nearest count.
    """

    own: Row
    other: Row
    first: Floats  # (seeds,)
    second: Floats  # (seeds,)
    folders: tuple[tuple[Path, Path], ...] = ()  # empty where scores are interpolated
    cells: Row = field(default_factory=dict)
    control: Matched | None = None


@answers_keywords(
    rank='it is called at, as in compare(runs, "lora", at=8)',
    alpha="a difference is decided where p_holm is below 0.05",
)
def compare(runs: Source, reference: str | None = None, at: int | str = "auto", margin: float = 0.01) -> DataFrame:
    """Compare every configuration with a reference: paired over seeds and test examples, corrected for their number.

    Examples are in docs/guides/sweeps/results.md.

    Args:
        runs: a folder of runs, runs of ``load_runs``, or a DataFrame or list of dicts with a row for each run.
        reference: a method in any spelling, or a parameterization that ran over several layouts, of which each layout
            has its own; "head" (frozen base and head), "full" (full fine-tuning) or "bitfit"; None is LoRA, or where it
            did not run the method with the most sizes.
        at: which size of the reference. A rank; "budget", the same budget; "size", the same budget or rank;
            "n_params", each size of the reference within a method's own, where the method's scores are interpolated
            linearly in the logarithm of parameters, and nothing is extrapolated; "auto", the same budget where both
            have budgets, else rank 8, else the largest size. Where it ran with several numbers of steps, it is the one
            with as many.
        margin: how much worse counts as "within", in the unit of the score.

    Returns:
        A DataFrame with the columns ``COMPARED``, which docs/reference/columns.md explains. ``p_holm`` is after Holm
        (1979); ``within`` is a test of non-inferiority (Piaggio et al., JAMA 308, 2012). p is missing for one seed
        without scores of test examples. Where validation says the contrary, nothing is decided.

    Raises:
        TensorAdaptError: for a reference that no run has, an unknown ``at``, and runs that do not compare, such as
            those of two specifications with other steps, data or choice of rates.

    >>> import pandas as pd
    >>> import tensoradapt as ta
    >>> runs = pd.DataFrame({"method": ["lora", "cp"] * 3, "seed": [0, 0, 1, 1, 2, 2], "n_params": [9216, 1008] * 3})
    >>> runs["score"] = [0.81, 0.841, 0.83, 0.86, 0.82, 0.849]
    >>> ta.compare(runs, "lora")[["method", "difference", "decided"]].round(2).to_numpy().tolist()
    [['cp', 0.03, True]]
    """
    check_comparison(at, margin)
    table = table_of(runs)
    found = compare_means(summarise(table), reference, at, margin, how_made(table))
    if found.empty and table["seed"].isna().any():
        raise TensorAdaptError(
            "rows without a seed are not compared, as nothing but their order would pair them; expected a column "
            "'seed' with the seed of each run"
        )
    return found


def check_comparison(at: Any, margin: Any) -> None:
    """Raise TensorAdaptError for a size of the reference or a margin that there cannot be; None is a default."""
    if at is not None and not (at in AT if isinstance(at, str) else is_whole(at, 1)):
        raise TensorAdaptError(f"at is {shown(at)}; expected a rank, or one of {', '.join(AT)}")
    if margin is not None and not is_number(margin, above=0):
        raise TensorAdaptError(f"margin is {shown(margin)}; expected a difference in score above 0, such as 0.01")


def how_made(table: DataFrame) -> dict[str, Row]:
    """Return by id what tells for each run of a table whether it compares with another."""
    told = records(table[["id", "sweep", *(name for name in protocol.PROTOCOL if name in table)]])
    return {row["id"]: row for row in told}


def compare_means(
    means: DataFrame,
    reference: str | None,
    at: int | str = "auto",
    margin: float = 0.01,
    runs: Mapping[str, Row] | None = None,
) -> DataFrame:
    """Return what ``compare`` does, from rows of ``summarise``; ``runs``: how each was made, by id, where known."""
    chosen = reference_of(means, reference)
    methods = methods_of(means, chosen)
    rows: list[Row] = []
    for own in _grouped(records(means), ("task",)):
        rows += corrected([_compared(pair, margin) for pair in _pairs(own, methods, at, runs or {})])
    found = DataFrame(rows, columns=list(COMPARED)).assign(reference=chosen)
    return found.astype(_kinds(found))


def reference_of(means: DataFrame, wanted: str | None = None) -> str:
    """Return the method in a table of means that a text names; raises TensorAdaptError for one that no run has.

    It is a parameterization where this ran over several layouts, and so under several names (``methods_of``). None is
    LoRA, or where it did not run the method with the most sizes; "" without an adapter.
    """
    names = list(dict.fromkeys(means["method"]))
    if wanted is None:
        counts = means[means["kind"] == "adapter"]["method"].value_counts()
        usual = [name for name in (*counts.index, *_over_layouts(means)) if display(name) == "LoRA"]
        return next(iter([*usual, *sorted(counts.index, key=lambda name: (-counts[name], name))]), "")
    check_is("reference", wanted, str)
    shown_as, over = display(REFERENCES.get(wanted, wanted)), _over_layouts(means)
    alike = [name for name in names if display(name) == shown_as] or [n for n in over if display(n) == shown_as]
    alike = alike or list(means["method"][means["kind"] == wanted])
    if not alike:
        sized = SIZED.fullmatch(wanted)  # "LoRA r=8", as figures name a size
        there = sized is not None and display(sized[1]) in map(display, [*names, *over])
        hint = f"; expected reference={sized[1]!r}, at={sized[2]}" if sized and there else did_you_mean(wanted, names)
        raise TensorAdaptError(f"reference is {wanted!r}{hint}")
    return wanted if wanted in alike else alike[0]


def _over_layouts(means: DataFrame) -> list[str]:
    """Return the parameterizations whose methods differ in their layouts alone: in each they have one of each size."""
    adapters = means[(means["kind"] == "adapter") & means["parameterization"].notna()]
    cell = [name for name in ("task", "layout", "rank", "budget", "steps") if name in means]
    methods = adapters.groupby(["parameterization", *cell], dropna=False)["method"].nunique()
    most = methods.groupby("parameterization").max()
    return [str(name) for name in most[most == 1].index]


def methods_of(means: DataFrame, reference: str) -> set[str]:
    """Return the methods that a reference of ``reference_of`` stands for: itself, or those of a parameterization."""
    if reference in set(means["method"]):
        return {reference}
    return set(means["method"][(means["kind"] == "adapter") & (means["parameterization"] == reference)])


def _pairs(means: Sequence[Row], methods: set[str], at: int | str, runs: Mapping[str, Row]) -> Iterator[Matched]:
    """Yield the comparisons of one task; raise TensorAdaptError for one with a reference of another protocol."""
    others = [row for row in means if row["method"] in methods]
    floor = floor_of(means)
    own = [row for row in means if row["kind"] == "adapter"]
    if at == "n_params":
        yield from _interpolated([row for row in own if row["method"] not in methods], others, runs)
        return
    alike = protocol.comparable(runs)
    sizes: dict[int, list[Row]] = {}  # those of the parameterization of each reference
    for row in own:
        other = _other(row, _of_same("steps", row, [one for one in others if alike(row, one)]), at)
        if other is None and (odd := _other(row, others, at)) is not None:
            raise protocol.refused(_called(row), _called(odd), runs[row["runs"][0]], runs[odd["runs"][0]])
        if other is not None and other is not row:
            if id(other) not in sizes:
                sizes[id(other)] = sizes_of(other, own)
            control = control_of(row, other, [one for one in sizes[id(other)] if alike(row, one)])
            for pair in _paired(row, other):
                beside = {"floor": floor, **on_validation(row, other)}
                controls = _paired(row, control) if control else ()
                yield replace(pair, cells={**pair.cells, **beside}, control=next(iter(controls), None))


def _of_same(name: str, row: Row, others: Sequence[Row]) -> Sequence[Row]:
    """Return those of other rows that have a row's steps, or its layout; all of them where none has."""
    return [one for one in others if one[name] == row[name]] or others


def _other(row: Row, references: Sequence[Row], at: int | str) -> Row | None:
    """Return the row of the reference that a row is compared with; of several over other layouts that of its own."""
    if references and references[0]["kind"] != "adapter":
        return max(references, key=lambda one: float(one["mean"]))  # of two floors the better one
    budget, rank = row["budget"], row["rank"]
    same_budget = [one for one in references if budget is not None and one["budget"] == budget]
    sizes: dict[int | str, Any] = {"size": rank if budget is None else None, "auto": LORA_RANK}
    ranked = sizes.get(at, at)
    at_rank = [one for one in references if ranked is not None and one["rank"] == ranked]
    found = same_budget if at in AT else []
    if not found and at != "budget":
        found = at_rank
    if not found and at == "auto":
        found = list(_of_same("layout", row, references)[-1:])
    return next(iter(_of_same("layout", row, found)), None)


def _paired(row: Row, other: Row) -> Iterator[Matched]:
    mine, theirs = ({seed: i for i, seed in enumerate(one["seeds"])} for one in (row, other))
    seeds = shared_seeds(row, other)
    if not seeds:
        return
    at = [(mine[seed], theirs[seed]) for seed in seeds]
    paths = [(row["paths"][i], other["paths"][j]) for i, j in at]
    known = all(isinstance(path, str) for pair in paths for path in pair)
    scores = np.array([(row["scores"][i], other["scores"][j]) for i, j in at])
    ids = tuple(name for i, j in at for name in (row["runs"][i], other["runs"][j]))
    folders = tuple((Path(a), Path(b)) for a, b in paths) if known else ()
    yield Matched(row, other, scores[:, 0], scores[:, 1], folders, {"runs": ids})


def _interpolated(means: Sequence[Row], references: Sequence[Row], runs: Mapping[str, Row]) -> Iterator[Matched]:
    """Yield each method at each size of the reference within its own sizes; those of one protocol are compared."""
    alike = protocol.comparable(runs)
    for sizes in _grouped(means, ("method", "layout", "steps")):
        others = _of_same("layout", sizes[0], _of_same("steps", sizes[0], references))
        fitting = [(other, fit) for other in others if (fit := [row for row in sizes if alike(row, other)])]
        if references and not fitting:
            row, odd = sizes[0], references[0]
            raise protocol.refused(_called(row), _called(odd), runs[row["runs"][0]], runs[odd["runs"][0]])
        for other, fit in fitting:
            if sum(one["n_params"] == other["n_params"] and alike(one, other) for one, _ in fitting) == 1:
                yield from _between(_beside(fit, other["n_params"]), other)


def _beside(sizes: Sequence[Row], n_params: int) -> list[Row]:
    """Return the sizes next to a number of parameters, or that of as many; none where there is no one such size."""
    counts = [row["n_params"] for row in sizes]
    if not n_params or not min(counts) <= n_params <= max(counts):
        return []
    ends = max(n for n in counts if n <= n_params), min(n for n in counts if n >= n_params)
    nearest = [row for row in sizes if row["n_params"] in ends]
    return nearest if len(nearest) == len(set(ends)) else []


def _between(sizes: Sequence[Row], other: Row) -> Iterator[Matched]:
    """Yield the comparison at a size of the reference, over seeds that the method's nearest sizes share with it."""
    seeds = shared_seeds(other, *sizes)
    if not sizes or len(seeds) < 2:
        return
    *mine, theirs = ([row["scores"][row["seeds"].index(seed)] for seed in seeds] for row in (*sizes, other))
    cost = np.log([row["n_params"] for row in sizes])
    budget = np.log(other["n_params"])
    scores = np.array([np.interp(budget, cost, each) for each in np.array(mine)[np.argsort(cost)].T])
    runs = tuple(name for row in (*sizes, other) for name in row["runs"])
    cells = {"n_params": other["n_params"], "rank": None, "runs": runs}
    yield Matched(sizes[0], other, scores, np.array(theirs), cells=cells)


def _compared(pair: Matched, margin: float) -> Row:
    """Return a comparison as a row, its p values uncorrected."""
    examples = paired_scores(pair.folders) if pair.folders else None
    found = t_interval(pair.first - pair.second) if examples is None else paired_difference(*examples)
    p, p_within = _p_values(pair, examples, margin)
    if any(side["n_lost"] == side["n_seeds"] for side in (pair.own, pair.other)):
        p_within = max(p_within, 1.0)  # nothing is within what is at chance; NaN stays
    several = "seeds and test examples" if len(pair.first) > 1 else "test examples of one seed"
    row = {**pair.own, **pair.cells}
    scores = float(pair.first.mean()), float(pair.second.mean())
    return {
        **{name: row[name] for name in COMPARED if name in row and name not in ("low", "high", "sd")},
        **gains(*scores, row.get("floor", math.nan), margin),
        **(_beside_control(pair.control) if pair.control else {}),
        **{"reference_rank": pair.other["rank"], "reference_n_params": pair.other["n_params"]},
        **{"times_fewer": _times_fewer(pair.other["n_params"], row["n_params"])},
        **{"difference": found.mean, "low": found.low, "high": found.high},
        **{"sd": found.sd, "sd_examples": found.sd_examples, "n_seeds": found.n},
        **{"p": p, "p_within": p_within, "margin": margin, "over": "seeds" if examples is None else several},
    }


def _times_fewer(reference: int | None, own: int) -> float:
    return reference / own if own and reference is not None else math.nan


def _beside_control(pair: Matched) -> Row:
    """Return the columns of a comparison that are of its control."""
    examples = paired_scores(pair.folders) if pair.folders else None
    found = t_interval(pair.first - pair.second) if examples is None else paired_difference(*examples)
    return {
        **{"control": f"{display(pair.other['method'])} {Size.of(pair.other).text}".strip()},
        **{"control_n_params": pair.other["n_params"], "control_difference": found.mean},
        **{"control_low": found.low, "control_high": found.high, "control_p": _p_values(pair, examples, 1.0)[0]},
    }


def _p_values(pair: Matched, examples: tuple[Floats, Floats] | None, margin: float) -> tuple[float, float]:
    """Return the p value that there is no difference, and the one-sided one that it is as low as minus the margin."""
    first, second = examples or (pair.first, pair.second)
    if examples is None:
        if len(first) < 2:
            return math.nan, math.nan
        shifted = paired_p(first + margin, second)
        return paired_p(first, second), one_sided(shifted, float((first - second).mean()) + margin)
    if len(first) > 1:
        shifted = crossed_paired_p(first + margin, second)
        return crossed_paired_p(first, second), one_sided(shifted, float((first - second).mean()) + margin)
    exact = all(set(np.unique(side)) <= {0.0, 1.0} for side in examples)
    p = mcnemar(first[0], second[0]) if exact else crossed_p(first, second)
    return p, one_sided(crossed_p(first + margin, second), float((first - second).mean()) + margin)


def one_sided(two_sided: float, mean: float) -> float:
    """Return the one-sided p that a mean is not above 0, of the two-sided p that it is 0."""
    return two_sided / 2 if mean > 0 else 1 - two_sided / 2


def corrected(rows: list[Row]) -> list[Row]:
    """Return the comparisons of a task with Holm's p values and what they decide."""
    tested = [row for row in rows if math.isfinite(row["p"])]
    for name in P_VALUES:
        adjusted = holm([row[name] for row in tested])
        for row, value in zip(tested, adjusted, strict=True):
            row[f"{name}_holm"] = float(value)
    controlled = [row for row in rows if math.isfinite(row.get(CONTROL, math.nan))]
    for row, value in zip(controlled, holm([row[CONTROL] for row in controlled]), strict=True):
        row[f"{CONTROL}_holm"] = float(value)
    for row in rows:
        gap = row.get("validation_difference", math.nan)
        row["decided"] = row.setdefault("p_holm", math.nan) < LEVEL and not gap * row["difference"] < 0
        row["within"] = row.setdefault("p_within_holm", math.nan) < LEVEL / 2 and not gap <= -row["margin"]
    held = [sorted(one[p] for one in tested if one[holds]) for p, holds in zip(P_VALUES, HOLDS, strict=True)]
    for row in rows:
        interval = Interval(*(row[name] for name in ("difference", "low", "high", "n_seeds", "sd", "sd_examples")))
        above = replace(interval, mean=interval.mean + row["margin"])  # the loss of the margin, which is to be excluded
        gaps = interval, above if above.mean > 0 and row["p_within"] < 1 else None
        for name, gap, p, before in zip(SEEDS, gaps, P_VALUES, held, strict=True):
            # Holm's correction divides the level by the comparisons that do not hold before; others stay as they are
            n = max(1, len(tested) - bisect_left(before, row[p]))
            row[name] = seeds_needed(gap, n) if tested and gap is not None else None
    return rows
