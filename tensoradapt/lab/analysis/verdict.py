"""What runs say, in one to three sentences for each task: written from comparisons, never from a mean alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pandas import NA, DataFrame, isna

from tensoradapt.lab.analysis.facts import listed, named, reported
from tensoradapt.lab.analysis.names import display
from tensoradapt.lab.analysis.results import CONFIGURATION, table_of
from tensoradapt.lab.analysis.tables import LEVEL, compare, compare_means, how_made, methods_of, reference_of, summarise
from tensoradapt.text import count_text, plain

MARGIN = 0.01  # what a method may lose and still be within the reference
MOST = 12  # methods that a sentence names
NOTE = 90  # characters of a run's note
REMEDY = (
    "try lower learning rates where the training loss rose, larger ones where it hardly fell, or more steps or data"
)


@dataclass(frozen=True)
class Compared:
    """The comparisons of one task that its verdict is written from; each table is that of ``compare``, or empty.

    ``base``: to the frozen base; ``fixed``: to one size of the reference, its rank 8 or its largest; ``paired``: to the
    reference at the same budget, where there are budgets, else as ``fixed``.
    """

    task: str
    runs: DataFrame
    base: DataFrame = field(default_factory=DataFrame)
    fixed: DataFrame = field(default_factory=DataFrame)
    paired: DataFrame = field(default_factory=DataFrame)
    reference: str = ""
    margin: float = MARGIN


def compared(source: Any, reference: str | None = None, margin: float = MARGIN) -> list[Compared]:
    """Return the comparisons of each task, tasks by name; runs that only helped to choose a rate are left out.

    Args:
        source: a folder of runs, runs, or a DataFrame with a row for each run.
        reference: method that others are compared with; None is LoRA, or where it did not run the method with the most
            sizes.
        margin: difference in score that a method may lose and still be within the reference.

    Raises:
        TensorAdaptError: as ``compare`` does.
    """
    runs = reported(table_of(source))
    reference = reference_of(runs.drop_duplicates([*CONFIGURATION]), reference)
    return [_compared(str(task or ""), own, reference, margin) for task, own in runs.groupby(runs["task"].fillna(""))]


def _compared(task: str, runs: DataFrame, reference: str, margin: float) -> Compared:
    adapters = runs[runs["kind"] == "adapter"]
    if adapters.empty or adapters["lost"].all():
        return Compared(task, runs, reference=reference, margin=margin)
    means, made = summarise(runs), how_made(runs)
    base, paired = (
        compare_means(means, method, margin=margin, runs=made) if there else DataFrame()
        for method, there in (("head", "head" in set(runs["kind"])), (reference, bool(methods_of(runs, reference))))
    )
    if paired.empty or adapters["budget"].isna().all():
        return Compared(task, runs, base, paired, paired, reference, margin)
    # without budgets the reference is one size, by which "times fewer" is counted; two may have led to one size
    one_size = runs.assign(budget=NA).drop_duplicates([*CONFIGURATION, "seed"])
    fixed, budgets = compare(one_size, reference, margin=margin), runs.set_index("id")["budget"]
    fixed["budget"] = [budgets[names[0]] for names in fixed["runs"]]
    return Compared(task, runs, base, fixed, paired, reference, margin)


def lines(source: Any, reference: str | None = None) -> list[str]:
    """Return the verdict of ``sentences`` as a paragraph for each task, which begins with its name.

    Args and errors: those of ``compared``.
    """
    told = [(one.task, " ".join(sentences(one))) for one in compared(source, reference)]
    return [f"{task}: {said}" if task else said for task, said in told]


def sentences(one: Compared) -> Iterator[str]:
    """Yield one to three sentences of a task.

    They say that no adapter is needed, or which are decided to be above the frozen base; which are decided to lose
    less than the margin on the reference, with how many times fewer parameters, beside the reference's method at the
    nearest count; what is undecided and how many more seeds that would take; and which runs are lost, and why. Decided:
    p < 0.05 after Holm's correction over all comparisons of the task, and validation does not say the contrary.
    """
    adapters = one.runs[one.runs["kind"] == "adapter"]
    if adapters.empty:
        yield "No adapter was run, so there is nothing to compare."
    elif not adapters["lost"].all():
        yield _over_base(one)
        yield _against(one)
    if lost := _lost(one):
        yield lost


def _over_base(one: Compared) -> str:
    heads, gaps = one.runs[one.runs["kind"] == "head"], one.base
    if heads.empty:
        return "No run of the frozen base says what an adapter adds to it."
    base = f"the frozen base ({heads['score'].mean():.3f})"
    best = one.runs[one.runs["kind"] == "adapter"].groupby([*CONFIGURATION], dropna=False)["score"].mean().max()
    if heads["score"].mean() >= best:
        return f"No adapter is needed: a head on {base} has no less than the best of them ({best:.3f})."
    if gaps.empty:
        return f"No adapter shares a seed with {base}, so nothing says what it adds."
    if gaps["p_holm"].isna().all():
        return f"Nothing is decided about {base}: {_too_few(gaps)}."
    above, below = (gaps[gaps["decided"] & (gaps["difference"] * sign > 0)] for sign in (1, -1))
    if len(above) == len(gaps):
        methods = list(dict.fromkeys(map(display, gaps["method"])))
        sizes = " at every size" if len(gaps) > len(methods) else ""
        are = "are" if len(methods) > 1 else "is"
        return f"{listed(methods, MOST)} {are} decided to be above {base}{sizes}{_of_one_seed(gaps)}."
    parts = [
        f"Decided to be above {base}: {_methods(above, gaps)}" if len(above) else f"None is decided to be above {base}",
        f"below it: {_methods(below, gaps)}" if len(below) else "",
        _undecided(gaps, gaps["decided"]),
    ]
    return "; ".join(filter(None, parts)) + _of_one_seed(gaps) + "."


def _against(one: Compared) -> str:
    name, gaps = display(one.reference), one.paired
    if one.fixed.empty or gaps.empty:
        adapters = one.runs[one.runs["kind"] == "adapter"]
        own = methods_of(adapters, one.reference)
        if set(adapters["method"]) == own:
            return f"All adapters are {name}, with which others would be compared."
        if own:
            return f"No other adapter shares a seed with {name}, so none is compared with it."
        return f"There is no run of {name} to compare with, so methods are not told apart."
    if one.runs.loc[one.runs["method"].isin(methods_of(one.runs, one.reference)), "lost"].all():
        return f"All runs of {name} are lost, so nothing is compared with it."
    if gaps["p_holm"].isna().all():
        return f"No difference to {name} is decided: {_too_few(gaps)}."
    alike = gaps["budget"].notna() & gaps["reference_rank"].isna()  # a reference with a rank has no budget
    where = " at the same budget" if alike.any() else ""
    better, worse = (gaps[gaps["decided"] & (gaps["difference"] * sign > 0)] for sign in (1, -1))
    parts = [
        _within(one),
        f"decided to be better{where}: {_methods(better, gaps)}" if len(better) else "",
        f"decided to be worse{where}: {_methods(worse, gaps)}" if len(worse) else "",
        _undecided(gaps, gaps["decided"] | gaps["within"]),
    ]
    return "; ".join(filter(None, parts)) + _of_one_seed(gaps) + "."


def _of_one_seed(gaps: DataFrame) -> str:
    """Say what nothing but the test examples of one seed decides, which tells nothing of other seeds."""
    one = gaps[gaps["over"] == "test examples of one seed"]
    if len(one) == len(gaps):
        return " (over the test examples of one seed)"
    held = one[one["decided"] | one["within"]]
    return f", {_methods(held, gaps)} over the test examples of one seed" if len(held) else ""


def _within(one: Compared) -> str:
    """Say which method is within the margin of the reference with fewest parameters, and how many times fewer."""
    row = one.fixed.iloc[0]
    size = {"method": row["reference"], "rank": row["reference_rank"], "budget": NA}
    share = 100 * row["margin_share"]
    gain = "" if isna(share) else f" ({share:.0f} % of what it gains over the frozen base)"
    against = f"{one.margin:g}{gain} of {named(size)} ({row['reference_n_params']:,.0f} parameters)"
    inside = one.fixed[one.fixed["within"]].sort_values("n_params").drop_duplicates("method")
    if inside.empty:
        return f"None of {len(one.fixed)} is decided to be within {against}{_would_be(one.fixed)}"
    return f"Within {against}: {listed([_fewer(row) for _, row in inside.iterrows()], 3)}"


def _would_be(gaps: DataFrame) -> str:
    """Say which comparison would be decided to be within the margin first, and how many seeds that takes."""
    more = gaps["seeds_within"].astype(float) - gaps["n_seeds"]
    if not (more > 0).any():
        return ""
    nearest = gaps.loc[more.where(more > 0).idxmin()]
    return f"; {named(nearest)} would be with {count_text(round(more[nearest.name]), 'more seed')} like these"


def _fewer(row: Any) -> str:
    return f"{named(row)} with {row['n_params']:,.0f} parameters ({times(row['times_fewer'])}{_beside_control(row)})"


def _beside_control(row: Any) -> str:
    """Say how a size stands to LoRA of about as many parameters."""
    if isna(row["control_difference"]):
        return ""
    gap = row["control_difference"]
    decided = "decided" if row["control_p_holm"] < LEVEL else "not decided"
    to = f"{abs(gap):.3f} {'above' if gap > 0 else 'below'} {row['control']}, {decided}"
    return f"; {to}, which has {row['control_n_params']:,.0f}"


def times(fewer: float) -> str:
    """Say how many times fewer parameters, or more.

    >>> times(12.34), times(1.0), times(0.25)
    ('12 times fewer', 'as many', '4.0 times more')
    """
    if not 0.95 < fewer < 1.05:
        n, what = (fewer, "fewer") if fewer > 1 else (1 / fewer if fewer else float("inf"), "more")
        return f"{n:,.0f} times {what}" if n >= 10 else f"{n:.1f} times {what}"
    return "as many"


def _methods(those: DataFrame, every: DataFrame) -> str:
    """Return the methods of some comparisons, with their sizes where these are not all that there are."""
    said = []
    for method, own in those.groupby("method", sort=False):
        n = int((every["method"] == method).sum())
        sizes = "" if len(own) == n else f" at {len(own)} of {n} sizes" if len(own) > 1 else f" ({_only(own.iloc[0])})"
        said.append(display(method) + sizes)
    return listed(said, MOST)


def _only(row: Any) -> str:
    return named(row).removeprefix(display(row["method"])).strip() or f"{row['n_params']:,.0f} parameters"


def _undecided(gaps: DataFrame, decided: Any) -> str:
    """Say how many comparisons are undecided, and how many more seeds would decide them, or half of them."""
    rest = gaps[~decided.astype(bool)]
    if rest.empty:
        return ""
    if len(rest) == len(gaps):
        count = f"all {len(gaps)} differences are undecided" if len(gaps) > 1 else "the difference is undecided"
    else:
        count = f"{len(rest)} of {len(gaps)} differences {'is' if len(rest) == 1 else 'are'} undecided"
    more = rest["seeds_needed"].astype(float) - rest["n_seeds"]
    more = more.where(more > 0, float("inf")).median()  # where seeds would do, too few test examples leave it undecided
    whom = "that" if len(rest) == 1 else "half of them"
    if more == float("inf"):
        return f"{count} (200 seeds would not decide {whom})"
    return f"{count} ({count_text(round(more), 'more seed')} would decide {whom} if means and spread stay)"


def _too_few(gaps: DataFrame) -> str:
    seeds = int(gaps["n_seeds"].max())
    return f"{'one seed' if seeds == 1 else count_text(seeds, 'seed')} without scores of test examples"


def _lost(one: Compared) -> str:
    """Say which runs are lost and why."""
    runs = lost_of(one.runs)
    if runs.empty:
        return ""
    said = [f"{listed(_counted(own), MOST)} {status}{_why(own)}" for status, own in runs.groupby("status", sort=False)]
    half = f"; {REMEDY}" if 2 * len(runs) >= (one.runs["kind"] != "head").sum() else ""
    count = count_text(len(one.runs), "run")
    begin = f"All {count} are lost" if len(runs) == len(one.runs) > 1 else f"Lost of {count}"
    return f"{begin}: {'; '.join(said)}{half}."


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
