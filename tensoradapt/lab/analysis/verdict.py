"""One verdict on each size: five words and one sentence, the same in figures, tables, reports and terminals.

What a size loses on the reference is compared with a margin, one point where the metric is a share. All p values are
after Holm's correction over the sizes of a task, and nothing is said that validation contradicts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from pandas import DataFrame, concat, isna

from tensoradapt.errors import TensorAdaptError
from tensoradapt.lab.analysis.comparisons import LEVEL, check_comparison, compared_rows, methods_of, reference_of
from tensoradapt.lab.analysis.descriptions import listed, named, reported
from tensoradapt.lab.analysis.names import display
from tensoradapt.lab.analysis.results import COMPARED, CONFIGURATION, VERDICTS, table_of
from tensoradapt.lab.analysis.tables import Row, mean_rows, typed_table
from tensoradapt.lab.frames import Verdicts
from tensoradapt.text import count_text, plain

OUTCOMES = ("kept", "close", "worse", "open", "failed")  # the five words, without their numbers
ALIKE = 1.29  # times as many parameters at which two sizes are no longer nearly alike
MOST = 6  # sizes that a sentence names
NOTE = 90  # characters of a run's note
REMEDY = (
    "try lower learning rates where the training loss rose, larger ones where it hardly fell, or more steps or data"
)


@dataclass(frozen=True)
class Judged:
    """One task: its runs, its verdicts, and the comparisons with the head on the frozen base; empty where none is."""

    task: str
    runs: DataFrame
    verdicts: DataFrame = field(default_factory=DataFrame)
    base: DataFrame = field(default_factory=DataFrame)
    reference: str = ""


def verdict(
    runs: Any, reference: str | None = None, at: int | str | None = None, margin: float | None = None
) -> DataFrame:
    """Return a row for each size of each method: what is shown of it, in one of five words and in one sentence.

    The words are "less than 1 point lost", "less than 2 points lost", "worse" (or "worse, but by less than 2 points"),
    "not settled" and "1 of 10 runs failed". Examples are in docs/guides/sweeps/results.md.

    Args:
        runs: a folder of runs, runs of ``load_runs``, or a DataFrame or list of dicts with a row for each run.
        reference: method that others are compared with; None is LoRA, or where it did not run the method with the most
            sizes.
        at: which size of the reference, as ``compare`` takes it; None is rank 8, or else its largest size, for all.
        margin: loss of score that hardly matters; by default one point where the metric is a share, else 0.01.

    Returns:
        A DataFrame with the columns of ``compare``, and ``VERDICTS``, which docs/reference/columns.md explains: among
        them ``verdict`` (the words), ``sentence`` and ``seeds_settle``.

    Raises:
        TensorAdaptError: as ``compare`` does.

    >>> import pandas as pd
    >>> import tensoradapt as ta
    >>> runs = pd.DataFrame({"method": ["lora", "cp"] * 3, "seed": [0, 0, 1, 1, 2, 2], "n_params": [9216, 1008] * 3})
    >>> runs["score"] = [0.81, 0.841, 0.83, 0.86, 0.82, 0.849]
    >>> runs["metric"] = "accuracy"
    >>> ta.verdict(runs)["verdict"].tolist()
    ['less than 1 point lost']
    """
    tables = [one.verdicts for one in judge(runs, reference, at, margin) if len(one.verdicts)]
    return Verdicts(concat(tables, ignore_index=True)) if tables else DataFrame()


def judge(
    source: Any, reference: str | None = None, at: int | str | None = None, margin: float | None = None
) -> list[Judged]:
    """Return the verdicts of each task, tasks by name; runs that only helped to choose a rate are left out.

    Args and errors: those of ``verdict``.
    """
    check_comparison(at, margin)
    runs = reported(table_of(source))
    reference = reference_of(runs.drop_duplicates([*CONFIGURATION]), reference)
    by_task = runs.groupby(runs["task"].fillna(""))
    return [_judged(str(task or ""), own, reference, at, margin) for task, own in by_task]


def _judged(task: str, runs: DataFrame, reference: str, at: int | str | None, margin: float | None) -> Judged:
    if (runs["kind"] != "adapter").all():
        return Judged(task, runs, reference=reference)
    # without budgets the reference is one size, by which "times fewer" is counted; two may have led to one size
    means = mean_rows(runs if at else runs.assign(budget=None).drop_duplicates([*CONFIGURATION, "seed"]))
    base: list[Row] = []
    if "head" in set(runs["kind"]):
        with suppress(TensorAdaptError):  # a head may be of another protocol, as of a rate that was given
            base = compared_rows(means, reference_of(runs, "head"))
    points = _points(means[0])
    margin = margin or (0.01 if isna(points) else 1 / points)
    budgets, rows = runs.set_index("id")["budget"], compared_rows(means, reference, at or "auto", margin)
    for row in rows:
        row |= {"points": points, "budget": budgets[row["runs"][0]]}
        row["outcome"] = outcome(row)
        row["seeds_settle"] = _settling(row) if row["outcome"] == "open" else None
        row |= {"verdict": words(row), "sentence": sentence(row)}
    return Judged(task, runs, typed_table(rows, [*COMPARED, *VERDICTS]), typed_table(base, COMPARED), reference)


def outcome(row: Any) -> str:
    """Return which of the five words a comparison has."""
    if row["n_lost"] or row["reference_lost"]:
        return "failed"
    if row["within"]:
        return "kept"
    if row["decided"] and row["difference"] < 0:
        return "worse"
    return "close" if row["within_twice"] else "open"


def words(row: Any) -> str:
    """Return the words of a verdict, with the margin in the unit of the metric."""
    one, two = (amount(times * row["margin"], row["points"]) for times in (1, 2))
    failed, whose = (row["n_lost"], "") if row["n_lost"] else (row["reference_lost"], " of the reference")
    return {
        "kept": f"less than {one} lost",
        "close": f"less than {two} lost",
        "worse": f"worse, but by less than {two}" if row["within_twice"] else "worse",
        "open": "not settled",
        "failed": f"{failed} of {count_text(row['n_seeds'], 'run')}{whose} failed",
    }[row["outcome"]]


def sentence(row: Any) -> str:
    """Return what is shown of a size, in one sentence."""
    size = f"{named(row)} ({row['n_params']:,.0f} parameters, {fewer(row['times_fewer'])})"
    against, said, gap = _reference(row), words(row), row["difference"]
    mean = f"its mean is {amount(abs(gap), row['points'])} {'lower' if gap < 0 else 'higher'}"
    if row["outcome"] == "failed":
        return f"{size} is not compared with {against}: {said}."
    if row["outcome"] == "open":
        return f"{size} is not settled against {against}: {mean}{_more(row)}{_beside(row)}."
    if row["outcome"] == "worse":
        return f"{size} is {said.replace('worse', f'worse than {against}', 1)}: {mean}{_beside(row)}."
    if row["decided"] and gap > 0:
        return f"{size} is better than {against}: {mean}{_beside(row)}."
    share = f", {100 * row['margin_share']:.0f} % of what that gains over the frozen base"
    told = "" if row["outcome"] == "close" or isna(row["margin_share"]) else share
    return f"{size} loses {said.removesuffix(' lost')} on {against}{told}: {mean}{_beside(row)}."


def _more(row: Any) -> str:
    """Say how many more seeds would settle a size."""
    if isna(row["seeds_settle"]):
        return "; one seed settles nothing" if row["n_seeds"] == 1 else "; 200 seeds would not settle it"
    return f"; {count_text(int(row['seeds_settle'] - row['n_seeds']), 'more seed')} like these would settle it"


def _settling(row: Any) -> Any:
    """Return the fewest seeds that show a size to be worse, or to lose less than the margin; None above 200."""
    asked = [row[name] for name in ("seeds_needed", "seeds_within") if row[name] is not None]
    more = [seeds for seeds in asked if seeds > row["n_seeds"]]  # where seeds would do, it takes more test examples
    return min(more, default=None)


def _beside(row: Any) -> str:
    """Say how a size stands to the reference's method with about as many parameters."""
    gap = row["control_difference"]
    if isna(gap):
        return ""
    control = f"{row['control']} with {row['control_n_params']:,.0f}"
    p = row.get("control_p_holm")  # which one seed does not have
    if p is None or not p < LEVEL:
        return f"; {control} does not differ from it"
    return f"; {control} is {amount(abs(gap), row['points'])} {'lower' if gap > 0 else 'higher'}"


def _reference(row: Any) -> str:
    return named({"method": row["reference"], "rank": row["reference_rank"]})


def _points(row: Row) -> float:
    """Return how many points a metric's unit has, a share of 1 or of 100; nan for a metric that is no share."""
    low, high = (math.nan if row[name] is None else float(row[name]) for name in ("metric_low", "metric_high"))
    return 100 / high if low == 0 and math.isfinite(high) and high > 0 else math.nan


def amount(value: float, points: float) -> str:
    """Return a difference in points, or in the metric's own unit where that is no share.

    >>> amount(0.01, 100), amount(0.0144, 100), amount(1.0, 1), amount(0.0144, math.nan)
    ('1 point', '1.4 points', '1 point', '0.0144')
    """
    if isna(points):
        return f"{value:.3g}"
    text = f"{points * value:.1f}".removesuffix(".0")
    return f"{text} point{'s' * (text != '1')}"


def fewer(times: float) -> str:
    """Say how many times fewer parameters, or more.

    >>> fewer(12.34), fewer(1.0), fewer(0.25), fewer(1.5)
    ('12× fewer', 'as many', '4× more', '1.5× fewer')
    """
    if isna(times) or 0.95 < times < 1.05 or times <= 0:
        return "as many"
    n = times if times > 1 else 1 / times
    text = f"{n:,.0f}" if n >= 2.95 else f"{n:.1f}".removesuffix(".0")
    return f"{text}× {'fewer' if times > 1 else 'more'}"


def lines(source: Any, reference: str | None = None) -> list[str]:
    """Return the summary of each task as a paragraph, which begins with the task's name.

    Args and errors: those of ``verdict``.
    """
    told = [(one.task, " ".join(summary(one))) for one in judge(source, reference)]
    return [f"{task}: {said}" if task else said for task, said in told]


def summary(one: Judged) -> Iterator[str]:
    """Yield what the runs of a task say: the answer, then what is worse or open, LoRA of each size, floor, failures."""
    if (one.runs["kind"] != "adapter").all():
        yield "No adapter was run, so there is nothing to compare."
        return
    if not one.runs[one.runs["kind"] == "adapter"]["lost"].all():
        yield f"{answer(one.verdicts)}." if len(one.verdicts) else _without_verdicts(one)
        yield from _others(one.verdicts) if len(one.verdicts) else ()
    yield from filter(None, (_over_base(one), _failed(one.runs)))


def answer(verdicts: DataFrame) -> str:
    """Return the answer of one task: the fewest parameters that are shown to lose less than the margin.

    ``verdicts``: rows of ``verdict``.
    """
    first = verdicts.iloc[0]
    against, margin = _reference(first), amount(first["margin"], first["points"])
    kept = verdicts[(verdicts["outcome"] == "kept") & (verdicts["times_fewer"] > 1.05)].sort_values("n_params")
    if len(kept):
        like = kept[kept["n_params"] < ALIKE * kept["n_params"].iloc[0]]
        times, names = fewer(like["times_fewer"].mean()), listed(sorted(set(map(display, like["method"]))), 3)
        return f"{plain(names)}: {times} parameters than {against}, less than {margin} lost"
    if verdicts["reference_n_params"].nunique() > 1:
        return _at_equal_size(verdicts)
    if (verdicts["reference_lost"] == verdicts["n_seeds"]).all():
        return f"All runs of {against} failed, so nothing is compared with it"
    return f"No smaller adapter is shown to lose less than {margin} on {against}"


def _at_equal_size(verdicts: DataFrame) -> str:
    """Return the answer where the reference has a size for each size of the others."""
    name, decided, up = display(verdicts["reference"].iloc[0]), verdicts["decided"], verdicts["difference"] > 0
    counts = ((int((decided & up).sum()), "better"), (int((decided & ~up).sum()), "worse"))
    told = " and ".join(f"{n} of {len(verdicts)} {'is' if n == 1 else 'are'} {word}" for n, word in counts if n)
    return f"At equal size {told} than {name}" if told else f"At equal size none differs measurably from {name}"


def _others(verdicts: DataFrame) -> Iterator[str]:
    """Say which sizes are better, worse or not settled, and how the reference's method does at their counts."""
    decided, up = verdicts["decided"], verdicts["difference"] > 0
    unsettled, controls = verdicts[verdicts["outcome"] == "open"], verdicts[verdicts["control_p_holm"].notna()]
    for word, those in (("Better", decided & up), ("Worse", verdicts["outcome"] == "worse")):
        if those.any():
            yield f"{word}: {_sizes(verdicts[those], verdicts)}."
    if len(unsettled):
        yield f"Not settled: {_sizes(unsettled, verdicts)}{_half(unsettled)}."
    like = f"{display(verdicts['reference'].iloc[0])} of about as many parameters"
    differ, higher = controls["control_p_holm"] < LEVEL, controls["control_difference"] > 0
    for word, those in (("Better", differ & higher), ("Worse", differ & ~higher)):
        if those.any():
            yield f"{word} than {like}: {_sizes(controls[those], controls)}."
    if len(controls) and not differ.any():
        yield f"None differs measurably from {like}."


def _half(unsettled: DataFrame) -> str:
    """Say how many more seeds would settle them, or half of them."""
    if (unsettled["n_seeds"] == 1).all():
        return " (one seed settles nothing)"
    more = (unsettled["seeds_settle"].astype(float) - unsettled["n_seeds"]).fillna(math.inf).median()
    whom = "it" if len(unsettled) == 1 else "half of them"
    if math.isinf(more):
        return f" (200 seeds would not settle {whom})"
    return f" (about {count_text(round(more), 'more seed')} would settle {whom})"


def _sizes(those: DataFrame, every: DataFrame) -> str:
    """Return sizes by method: the method alone where all its sizes are among them and it is not the reference."""
    said = []
    for method, own in those.groupby("method", sort=False):
        whole = len(own) == (every["method"] == method).sum() and method != own["reference"].iloc[0]
        said += [plain(display(str(method)))] if whole else [named(row) for row in own.to_dict("records")]
    return listed(said, MOST)


def _without_verdicts(one: Judged) -> str:
    """Say why no size has a verdict."""
    name, adapters = display(one.reference), one.runs[one.runs["kind"] == "adapter"]
    own = methods_of(adapters, one.reference)
    if set(adapters["method"]) == own:
        return f"All adapters are {name}, with which others would be compared."
    if own:
        return f"No other adapter shares a seed with {name}, so none is compared with it."
    return f"There is no run of {name} to compare with, so methods are not told apart."


def _over_base(one: Judged) -> str:
    """Say which sizes are shown to be better than a head on the frozen base, the floor."""
    heads, gaps = one.runs[one.runs["kind"] == "head"], one.base
    if heads.empty or one.runs[one.runs["kind"] == "adapter"]["lost"].all():
        return ""
    base = f"a head on the frozen base ({heads['score'].mean():.3f})"
    best = one.runs[one.runs["kind"] == "adapter"].groupby([*CONFIGURATION], dropna=False)["score"].mean().max()
    if heads["score"].mean() >= best:
        return f"No adapter is needed: {base} is as good as the best of them ({best:.3f})."
    if gaps.empty:
        return f"No adapter is compared with {base}: none shares its seeds and its protocol."
    above = gaps["decided"] & (gaps["difference"] > 0)
    if above.all():
        return f"All are better than {base}." if len(gaps) > 1 else f"It is better than {base}."
    return f"Not shown to be better than {base}: {_sizes(gaps[~above], gaps)}."


def _failed(runs: DataFrame) -> str:
    """Say which runs failed and why."""
    lost = lost_of(runs)
    if lost.empty:
        return ""
    said = [f"{listed(_counted(own), MOST)} {status}{_why(own)}" for status, own in lost.groupby("status", sort=False)]
    half = f"; {REMEDY}" if 2 * len(lost) >= (runs["kind"] != "head").sum() else ""
    begin = f"All {len(runs)} runs" if len(lost) == len(runs) > 1 else f"{len(lost)} of {count_text(len(runs), 'run')}"
    return f"{begin} failed: {'; '.join(said)}{half}."


def lost_of(runs: DataFrame) -> DataFrame:
    """Return the runs that are lost; a frozen base at chance is none of them, as that is what it may well score."""
    return runs[runs["lost"] & ((runs["kind"] != "head") | (runs["status"] == "diverged"))]


def _counted(runs: DataFrame) -> list[str]:
    return [f"{n} of {display(str(method))}" for method, n in runs.groupby("method", sort=False).size().items()]


def _why(runs: DataFrame) -> str:
    """Return the first note of some runs, cut where it is long; where there are others too, it is said to be one's."""
    notes = list(dict.fromkeys(plain(str(note)) for note in runs["note"].dropna() if note))
    one = "one of them: " if len(notes) > 1 else ""
    return f" ({one}{notes[0][:NOTE]}{'...' if len(notes[0]) > NOTE else ''})" if notes else ""
