"""Every configuration beside a reference: paired over seeds and test examples, and corrected for their number."""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from pandas import DataFrame

from tensoradapt.checks import check_is, is_number, is_whole, shown
from tensoradapt.errors import TensorAdaptError, did_you_mean
from tensoradapt.lab.analysis import protocol
from tensoradapt.lab.analysis.names import display
from tensoradapt.lab.analysis.results import COMPARED, CONFIGURATION, table_of
from tensoradapt.lab.analysis.statistics.examples import paired_scores
from tensoradapt.lab.analysis.statistics.intervals import Floats, Interval, crossed_p, paired_difference, t_interval
from tensoradapt.lab.analysis.statistics.significance import crossed_paired_p, holm, mcnemar, paired_p, seeds_needed
from tensoradapt.lab.analysis.tables import Row, Source, grouped, mean_rows, name_of, reported, typed_table
from tensoradapt.lab.runs.row import REFERENCES
from tensoradapt.planning.size import Size

SIZED = re.compile(r"(.+?)[ ,]*r ?= ?(\d+)")
LEVEL = 0.05  # Holm's p below which a difference is shown
LORA_RANK = 8
AT = ("auto", "budget", "size", "n_params")
P_VALUES = ("p", "p_within", "p_within_twice", "control_p")  # each a family of tests with a correction of its own
JUDGED = (*COMPARED, "within_twice", "n_lost", "reference_lost")  # what verdicts are made of


@dataclass(frozen=True)
class _Pair:
    """Two configurations on the seeds that both have; ``cells`` are columns that are not as ``own`` has them."""

    own: Row
    other: Row
    first: Floats  # scores (seeds,)
    second: Floats  # (seeds,)
    cells: Row
    folders: tuple[tuple[Path, Path], ...] = ()  # of the runs; empty where scores are interpolated


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
        without scores of test examples. Where validation says the contrary, no difference counts as shown.

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
    table = reported(table_of(runs))
    means = mean_rows(table)
    rows = compared_rows(means, reference_of(table.drop_duplicates([*CONFIGURATION]), reference), at, margin)
    if not rows and table["seed"].isna().any():
        raise TensorAdaptError(
            "rows without a seed are not compared, as nothing but their order would pair them; expected a column "
            "'seed' with the seed of each run"
        )
    return typed_table(rows, COMPARED)


def check_comparison(at: Any, margin: Any) -> None:
    """Raise TensorAdaptError for a size of the reference or a margin that there cannot be; None is a default."""
    if at is not None and not (at in AT if isinstance(at, str) else is_whole(at, 1)):
        raise TensorAdaptError(f"at is {shown(at)}; expected a rank, or one of {', '.join(AT)}")
    if margin is not None and not is_number(margin, above=0):
        raise TensorAdaptError(f"margin is {shown(margin)}; expected a difference in score above 0, such as 0.01")


def compared_rows(means: Sequence[Row], reference: str, at: int | str = "auto", margin: float = 0.01) -> list[Row]:
    """Return the rows of ``compare``, with the columns ``JUDGED``, from ``mean_rows``.

    ``reference``: of ``reference_of``.
    """
    named = DataFrame(means, columns=["kind", "method", "parameterization"])
    methods, rows = methods_of(named, reference), list[Row]()
    for of_task in grouped(means, "task"):
        rows += corrected([_compared(*pairs, margin) for pairs in _pairs(of_task, methods, at)])
    return [row | {"reference": reference} for row in rows]


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


def _pairs(means: Sequence[Row], methods: set[str], at: int | str) -> Iterator[tuple[_Pair, _Pair | None]]:
    """Yield the comparisons of one task, each with that of its control.

    Raises TensorAdaptError for one with a reference of another protocol.
    """
    references = [row for row in means if row["method"] in methods]
    floor = max((float(row["mean"]) for row in means if row["kind"] == "head"), default=math.nan)  # of two the better
    adapters = [row for row in means if row["kind"] == "adapter"]
    if at == "n_params":
        yield from _interpolated([row for row in adapters if row["method"] not in methods], references)
        return
    for row in adapters:
        other = _other(row, _of_same("steps", row, _comparable(row, references)), at)
        if other is None and (odd := _other(row, references, at)) is not None:
            raise protocol.refused(name_of(row), name_of(odd), row, odd)
        if other is not None and other is not row and (pair := _paired(row, other)):
            control = _control(row, other, _comparable(row, adapters))
            pair.cells.update(floor=floor, **_on_validation(row, other))
            yield pair, _paired(row, control) if control else None


def _comparable(row: Row, others: Sequence[Row]) -> list[Row]:
    """Return those of other rows that were made by a row's protocol."""
    return [one for one in others if not protocol.apart(row, one)]


def _of_same(name: str, row: Row, others: Sequence[Row]) -> Sequence[Row]:
    """Return those of other rows that have a row's steps, or its layout; all of them where none has."""
    return [one for one in others if one[name] == row[name]] or others


def _other(row: Row, references: Sequence[Row], at: int | str) -> Row | None:
    """Return the row of the reference that a row is compared with; of several over other layouts that of its own."""
    if references and references[0]["kind"] != "adapter":
        return max(references, key=lambda one: float(one["mean"]))  # of two floors the better one
    budget, rank = row["budget"], row["rank"]
    sizes: dict[int | str, Any] = {"size": rank if budget is None else None, "auto": LORA_RANK}
    ranked = sizes.get(at, at)
    chosen = [one for one in references if at in AT and budget is not None and one["budget"] == budget]
    if not chosen and at != "budget":
        chosen = [one for one in references if ranked is not None and one["rank"] == ranked]
    if not chosen and at == "auto":
        chosen = list(_of_same("layout", row, references)[-1:])
    return next(iter(_of_same("layout", row, chosen)), None)


def _control(row: Row, reference: Row, adapters: Sequence[Row]) -> Row | None:
    """Return the size of the reference's method, on any matrices, whose count is nearest to a row's.

    None for the reference's own sizes, and where the reference itself is nearest: then it is the control.
    """
    sizes = [one for one in adapters if one["n_params"] and _alike(one, reference)]
    if _alike(row, reference) or not row["n_params"] or not sizes:
        return None
    nearest = min(sizes, key=lambda one: abs(math.log(one["n_params"] / row["n_params"])))
    return None if nearest is reference else nearest


def _alike(row: Row, reference: Row) -> bool:
    known = row["parameterization"] is not None and reference["parameterization"] is not None
    name = "parameterization" if known else "method"
    return bool(row[name] == reference[name])


def shared_seeds(*rows: Row) -> list[int]:
    """Return the seeds that all rows have, in the order of the first; runs without a seed are no pair."""
    first, *others = (row["seeds"] for row in rows)
    return [seed for seed in first if seed is not None and all(seed in seeds for seeds in others)]


def _by_seed(row: Row, name: str, seeds: Sequence[int]) -> list[Any]:
    """Return what a row has by seed, for some seeds."""
    return [row[name][row["seeds"].index(seed)] for seed in seeds]


def _paired(row: Row, other: Row) -> _Pair | None:
    """Return two rows on the seeds that both have; None where there is none."""
    if not (seeds := shared_seeds(row, other)):
        return None
    scores, paths, runs, lost = (
        [_by_seed(one, name, seeds) for one in (row, other)] for name in ("scores", "paths", "runs", "lost")
    )
    known = all(isinstance(path, str) for side in paths for path in side)
    folders = tuple((Path(a), Path(b)) for a, b in zip(*paths, strict=True)) if known else ()
    cells = {"runs": tuple(name for pair in zip(*runs, strict=True) for name in pair)}
    first, second = np.array(scores)
    return _Pair(row, other, first, second, cells | _lost(*lost), folders)


def _lost(own: Sequence[bool], other: Sequence[bool]) -> Row:
    return {"n_lost": sum(own), "reference_lost": sum(other)}


def _on_validation(row: Row, other: Row) -> Row:
    """Return the mean difference of validation scores over the seeds that two rows share, with its 95 % t interval."""
    seeds = shared_seeds(row, other)
    pairs = zip(*(_by_seed(one, "validations", seeds) for one in (row, other)), strict=True)
    gaps = np.array([a - b for a, b in pairs if a is not None and b is not None])
    known = len(gaps) and np.isfinite(gaps).all()
    gap = t_interval(gaps) if known else Interval(math.nan, math.nan, math.nan, 0, math.nan)
    return {"validation_difference": gap.mean, "validation_low": gap.low, "validation_high": gap.high}


def _interpolated(means: Sequence[Row], references: Sequence[Row]) -> Iterator[tuple[_Pair, None]]:
    """Yield each method at each size of the reference within its own sizes; those of one protocol are compared."""
    for sizes in grouped(means, "method", "layout", "steps"):
        others = _of_same("layout", sizes[0], _of_same("steps", sizes[0], references))
        fitting = [(other, fit) for other in others if (fit := _comparable(other, sizes))]
        if references and not fitting:
            row, odd = sizes[0], references[0]
            raise protocol.refused(name_of(row), name_of(odd), row, odd)
        for other, fit in fitting:
            twins = [one for one, _ in fitting if one["n_params"] == other["n_params"]]
            if len(_comparable(other, twins)) == 1 and (pair := _between(_nearest(fit, other["n_params"]), other)):
                yield pair, None


def _nearest(sizes: Sequence[Row], n_params: int) -> list[Row]:
    """Return the sizes next to a number of parameters, or that of as many; none where there is no one such size."""
    counts = [row["n_params"] for row in sizes]
    if not n_params or not min(counts) <= n_params <= max(counts):
        return []
    ends = max(n for n in counts if n <= n_params), min(n for n in counts if n >= n_params)
    nearest = [row for row in sizes if row["n_params"] in ends]
    return sorted(nearest, key=lambda row: row["n_params"]) if len(nearest) == len(set(ends)) else []


def _between(sizes: Sequence[Row], other: Row) -> _Pair | None:
    """Return the comparison at a size of the reference, over seeds that the method's nearest sizes share with it.

    A seed counts as lost where one of its runs is.
    """
    if not sizes or len(seeds := shared_seeds(other, *sizes)) < 2:
        return None
    cost = np.log([row["n_params"] for row in sizes])
    scores = np.array([_by_seed(row, "scores", seeds) for row in sizes])
    first = np.array([np.interp(np.log(other["n_params"]), cost, each) for each in scores.T])
    lost = np.any([_by_seed(row, "lost", seeds) for row in sizes], axis=0).tolist()
    cells = {"n_params": other["n_params"], "rank": None}
    cells |= {"runs": tuple(name for row in (*sizes, other) for name in row["runs"])}
    cells |= _lost(lost, _by_seed(other, "lost", seeds))
    return _Pair(sizes[0], other, first, np.array(_by_seed(other, "scores", seeds)), cells)


def _compared(pair: _Pair, control: _Pair | None, margin: float) -> Row:
    """Return a comparison as a row, its p values uncorrected."""
    gap, p, (within, twice), over = _tested(pair, margin, 2 * margin)
    if any(side["n_lost"] == side["n_seeds"] for side in (pair.own, pair.other)):
        within, twice = max(within, 1.0), max(twice, 1.0)  # nothing is within what is at chance; NaN stays
    row, reference = {**pair.own, **pair.cells}, pair.other["n_params"]
    scores = float(pair.first.mean()), float(pair.second.mean())
    return {
        **{name: row[name] for name in JUDGED if name in row},
        **gains(*scores, row.get("floor", math.nan), margin),
        **_beside(control),
        **{"reference_rank": pair.other["rank"], "reference_n_params": reference},
        "times_fewer": reference / row["n_params"] if row["n_params"] and reference is not None else math.nan,
        **{"difference": gap.mean, "low": gap.low, "high": gap.high},
        **{"sd": gap.sd, "sd_examples": gap.sd_examples, "n_seeds": gap.n, "over": over, "margin": margin},
        **{"p": p, "p_within": within, "p_within_twice": twice},
    }


def gains(own: float, reference: float, floor: float, margin: float) -> dict[str, float]:
    """Return which share of the reference's gain over the floor a score keeps, and which the margin is.

    Both are nan without a floor, and where the reference does not gain on it.

    >>> {name: round(value, 3) for name, value in gains(0.84, 0.85, 0.80, 0.01).items()}
    {'floor': 0.8, 'share': 0.8, 'margin_share': 0.2}
    """
    gain = reference - floor
    shares = ((own - floor) / gain, margin / gain) if gain > 0 else (math.nan, math.nan)
    return {"floor": floor, "share": shares[0], "margin_share": shares[1]}


def _beside(control: _Pair | None) -> Row:
    """Return the columns of a comparison that are of its control."""
    if control is None:
        return dict.fromkeys(("control", "control_n_params", "control_difference", "control_p"), math.nan)
    gap, p, _, _ = _tested(control)
    other = control.other
    return {
        **{"control": f"{display(other['method'])} {Size.of(other).text}".strip()},
        **{"control_n_params": other["n_params"], "control_difference": gap.mean},
        **{"control_low": gap.low, "control_high": gap.high, "control_p": p},
    }


def _tested(pair: _Pair, *margins: float) -> tuple[Interval, float, list[float], str]:
    """Return the difference, its p value, the one-sided ones that it is as low as minus each margin, and over what."""
    examples = paired_scores(pair.folders) if pair.folders else None
    first, second = examples or (pair.first, pair.second)
    test: Callable[[Floats, Floats], float]
    if examples is None:
        test, gap, over = paired_p, t_interval(first - second), "seeds"
        if len(first) < 2:
            return gap, math.nan, [math.nan for _ in margins], over
    else:
        several = len(first) > 1
        test, gap = crossed_paired_p if several else crossed_p, paired_difference(first, second)
        over = "seeds and test examples" if several else "test examples of one seed"
    mean = float((first - second).mean())
    within = [one_sided(test(first + margin, second), mean + margin) for margin in margins]
    if len(first) == 1 and all(set(np.unique(side)) <= {0.0, 1.0} for side in (first, second)):
        return gap, mcnemar(first[0], second[0]), within, over  # exact
    return gap, test(first, second), within, over


def one_sided(two_sided: float, mean: float) -> float:
    """Return the one-sided p that a mean is not above 0, of the two-sided p that it is 0."""
    return two_sided / 2 if mean > 0 else 1 - two_sided / 2


def corrected(rows: list[Row]) -> list[Row]:
    """Return the comparisons of a task with Holm's p values, what they show, and how many seeds would show it."""
    for name in P_VALUES:
        tested = [row for row in rows if math.isfinite(row.get(name, math.nan))]
        for row, value in zip(tested, holm([row[name] for row in tested]), strict=True):
            row[f"{name}_holm"] = float(value)
    for row in rows:
        p, one, two = (row.setdefault(f"{name}_holm", math.nan) for name in P_VALUES[:3])
        checked, margin = row.get("validation_difference", math.nan), row["margin"]
        row["decided"] = p < LEVEL and not checked * row["difference"] < 0
        row["within"] = one < LEVEL / 2 and not checked <= -margin
        row["within_twice"] = two < LEVEL / 2 and not checked <= -2 * margin
    for name, p, holds in (("seeds_needed", "p", "decided"), ("seeds_within", "p_within", "within")):
        tested = [row for row in rows if math.isfinite(row["p"])]
        before = sorted(row[p] for row in tested if row[holds])
        for row in rows:
            # Holm's correction divides the level by the comparisons that do not hold before; others stay as they are
            n = max(1, len(tested) - bisect_left(before, row[p]))
            gap = _to_exclude(row, name == "seeds_within")
            row[name] = seeds_needed(gap, n) if tested and gap is not None else None
    return rows


def _to_exclude(row: Row, within: bool) -> Interval | None:
    """Return the difference to 0, or to the loss of the margin; None where no number of seeds puts it within that."""
    names = ("difference", "low", "high", "n_seeds", "sd", "sd_examples")
    gap = Interval(*(row[name] for name in names))
    if not within:
        return gap
    above = replace(gap, mean=gap.mean + row["margin"])
    return above if above.mean > 0 and row["p_within"] < 1 else None
