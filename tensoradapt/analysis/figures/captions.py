"""The text below a figure: what a reader needs to judge it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tensoradapt.analysis.names import displayed
from tensoradapt.analysis.old_tables.comparable import methods, reported, runs_of, score_name, tuned, tuned_where
from tensoradapt.analysis.old_tables.frontier import Point, points, references
from tensoradapt.analysis.old_tables.setup import unequal
from tensoradapt.analysis.statistics.significance import Comparison, least_p
from tensoradapt.errors import TensorAdaptError
from tensoradapt.runs.store import Run

LISTED = 6  # rates that a caption lists one by one
GRIDS = 3  # different lists of rates that a caption has room for
AT_CHANCE = (("at chance", "ended at chance"), ("diverged", "diverged"))  # statuses as text


def caption(runs: Iterable[Run], *, total: int | None = None, failed: int = 0, extra: str = "") -> str:
    """Return the caption of a figure of the reported runs.

    It says model, task, seeds, intervals, learning rates and how they were chosen, what methods do not have in common,
    runs at chance, and how many of ``total`` runs are missing or failed.

    ``runs``: with those that tuned, from which it follows how rates were chosen. Raises TensorAdaptError without a run.
    """
    every = some_runs(runs)
    shown = reported(every)
    drawn = points(shown, compare=False)
    counts = {point.interval.n for point in drawn} | {interval.n for interval in references(shown).values()}
    about = subject(shown[0])
    sentences = (
        f"{about}{': ' if about else ''}{score_name(shown[0])} {_seeds(counts)}.",
        _rates(drawn, how_chosen(every)),
        how_stepped(shown),
        how_unequal(shown),
        _how_computed(shown),
        _at_chance(shown),
        how_partial(every, total, failed),
        extra,
    )
    return " ".join(filter(None, sentences))


def subject(run: Run) -> str:
    """Return a caption's start: model and task, as far as they are known."""
    return " on ".join(str(value) for key in ("model", "task") if (value := run.config.get(key)))


def how_stepped(runs: Iterable[Run]) -> str:
    """Say what a learning rate means where all adapters took equal steps."""
    taken = {run.row["optimizer"] for run in runs if run.row["kind"] == "adapter"}
    equal = taken == {"equal_steps"}
    return "Adapters take equal steps: the rate is how far the weights move." if equal else ""


def how_unequal(runs: Iterable[Run]) -> str:
    """Say which targets, scales, optimizers and layouts methods have, where not all have the same."""
    every = list(runs)
    differing, shown = unequal(every), displayed(run.row["method"] for run in every)
    names = {"projections": "Targets", "scale": "Scales", "optimizer": "Optimizers", "layout": "Layouts"}
    return " ".join(f"{names[key]} differ{_by_method(differing[key], shown)}." for key in names if key in differing)


def _by_method(values: Mapping[str, Sequence[str]], shown: Mapping[str, str]) -> str:
    """Return each value with its methods, where a caption has room for that."""
    if len(values) > GRIDS:
        return " between methods"
    return ": " + "; ".join(
        f"{value} of {', '.join(_few([shown[n] for n in names]))}" for value, names in values.items()
    )


def _few(names: Sequence[str]) -> list[str]:
    return [*names[:LISTED], f"{len(names) - LISTED} others"] if len(names) > LISTED + 1 else [*names]


def how_run(runs: Sequence[Run]) -> str:
    """Say in sentences how the learning rates were chosen, and what methods do not have in common."""
    rates = f"Learning rates {how_chosen(runs)}." if any(run.row["lr"] is not None for run in runs) else ""
    return " ".join(filter(None, (rates, how_unequal(reported(runs)))))


def _how_computed(runs: Iterable[Run]) -> str:
    """Say the precision, where not that of all earlier runs, and the number of threads, where runs differ in it."""
    every = list(runs)
    used = {run.row["precision"] or "fp32" for run in every}
    threads = sorted({n for run in every if (n := run.row["threads"])})
    said = [f"Computed in {' and '.join(sorted(used))}."] if used != {"fp32"} else []
    if len(threads) > 1:
        said.append(f"Runs used {' and '.join(map(str, threads))} threads, which changes last digits.")
    return " ".join(said)


def some_runs(runs: Iterable[Run]) -> list[Run]:
    """Return the runs as a list; raises TensorAdaptError if a plot can show none of them."""
    every = runs_of(runs)
    if not any(run.row["kind"] in ("adapter", "head", "full") for run in reported(every)):
        raise TensorAdaptError("no run to plot; expected one or more finished runs: run the sweep first")
    return every


def how_chosen(runs: Sequence[Run]) -> str:
    """Say how the learning rates of these runs were chosen: on validation only where runs among them tried others."""
    tried = [run for run in runs if tuned(run)]
    if not tried:
        return "as given"
    shown = displayed(run.row["method"] for run in runs)
    given = sorted(set(methods(runs)) - {run.row["method"] for run in tried})
    others, each = (
        (f"as given for {', '.join(shown[label] for label in given)}, and ", "each other") if given else ("", "each")
    )
    return f"{others}chosen on validation among {_tried(tried, each, shown)} {tuned_size(runs)} ({tuning_seeds(tried)})"


def tuning_seeds(tuning: Sequence[Run]) -> str:
    """Return the seeds that rates were tuned with, as text."""
    seeds = [str(seed) for seed in sorted({run.row["seed"] for run in tuning})]
    return f"mean over seeds {', '.join(seeds)}" if len(seeds) > 1 else f"seed {seeds[0]}"


def _tried(tuning: Sequence[Run], each: str, shown: Mapping[str, str]) -> str:
    """Return the rates that were tried, as text; they are written once where every method has the same."""
    rates: dict[str, set[float]] = {}
    for run in tuning:
        rates.setdefault(run.row["method"], set()).add(run.row["lr"])
    tried: dict[str, list[str]] = {}
    for label, grid in sorted(rates.items()):
        tried.setdefault(_listed(grid), []).append(shown[label])
    if len(tried) == 1:
        return f"{next(iter(tried))} for {each} method"
    if len(tried) > GRIDS:
        every = set().union(*rates.values())
        return f"{each} method's own rates, {min(every):g} to {max(every):g},"
    named = "; ".join(f"{', '.join(labels)} {text}" for text, labels in tried.items())
    return f"{each} method's own rates ({named})"


def _listed(rates: set[float]) -> str:
    ordered = sorted(rates)
    if len(ordered) > LISTED:
        return f"{len(ordered)} rates from {ordered[0]:g} to {ordered[-1]:g}"
    return ", ".join(f"{rate:g}" for rate in ordered)


def tuned_size(runs: Sequence[Run], its: str = "its") -> str:
    """Say at which size rates were tuned."""
    named = {"search": "over the sizes searched", "size": "at each size", "method": f"at {its} middle size"}
    return named[tuned_where(runs)]


def tried_rates(runs: Sequence[Run], rows: Sequence[Mapping[str, Any]]) -> str:
    """Say what a figure of learning rates shows; ``rows`` are those of the runs."""
    seeds, where = tuning_seeds([run for run in runs if tuned(run)]), tuned_where(runs)
    size = tuned_size(runs, "the method's")
    several = seeds.startswith("mean")
    how = (
        f"lines are {seeds.replace('mean', 'means')}, ticks single runs"
        if several
        else f"one run each ({seeds}, so without intervals)"
    )
    return (
        f"at each learning rate tried, {how}, {size}. A ring: the rate that all reported runs of the method"
        f"{' at this size' if where == 'size' else ''} have. Hollow, on the strip: {'a run ' if several else ''}"
        f"ended at chance or diverged.{'' if where == 'search' else at_an_end(rows)}"
    )


def how_partial(runs: Sequence[Run], total: int | None, failed: int = 0) -> str:
    """Say how many of ``total`` runs are finished and how many failed; return "" where none is missing."""
    if total is not None and len(runs) + failed < total:
        gone = f", {failed} failed" if failed else ""
        return f"Partial: {len(runs)} of {total} runs finished{gone}{_tuning(runs)}."
    return f"{failed} {'run' if failed == 1 else 'runs'} failed{_tuning(runs)}." if failed else ""


def _tuning(runs: Sequence[Run]) -> str:
    return ", tuning included" if any(map(tuned, runs)) else ""


def _seeds(counts: set[int]) -> str:
    if counts == {1}:
        return "of one seed, so without intervals"
    number = str(max(counts)) if len(counts) == 1 else f"{min(counts)} to {max(counts)}"
    drawn = "ticks are seeds, bars and bands 95 % t-intervals over seeds, an arrow where one goes on"
    return f"over {number} seeds (means; {drawn})"


def _rates(drawn: Sequence[Point], how: str) -> str:
    """Return the learning rates of each method, from its smallest size up, as text; a rate that all share once."""
    chosen: dict[str, list[float]] = {}
    for point in drawn:
        if point.lr is not None:
            chosen.setdefault(point.method, []).append(point.lr)
    texts = {
        label: "/".join(f"{rate:g}" for rate in (rates if len(set(rates)) > 1 else rates[:1]))
        for label, rates in chosen.items()
    }
    if not texts:
        return ""
    how += ", smallest size first" if any("/" in text for text in texts.values()) else ""
    if len(set(texts.values())) == 1:
        return f"Learning rates {how}: {next(iter(texts.values()))}{' for all' if len(texts) > 1 else ''}."
    shown = displayed(texts)
    return f"Learning rates {how}: {', '.join(f'{shown[label]} {text}' for label, text in sorted(texts.items()))}."


def _at_chance(runs: Sequence[Run]) -> str:
    statuses = [run.row["status"] for run in runs]
    counts = [f"{statuses.count(status)} {what}" for status, what in AT_CHANCE if status in statuses]
    if not counts:
        return f"{len(runs)} runs, none at chance or diverged." if len(runs) > 1 else ""
    return (
        f"Of {len(runs)} runs, {' and '.join(counts)}: ticks on the strip, kept in the means. A mean with such a "
        "run is hollow, and on the strip if all its runs are or it is out of range of the others."
    )


def at_an_end(rows: Sequence[Mapping[str, Any]]) -> str:
    """Name the methods whose rate is the lowest or highest tried, so that a better one may lie beyond it.

    A method with several sizes is named with its size. Methods that score the same at every rate, as a head with a rate
    of its own, are left out.
    """
    tried: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        tried.setdefault((row["method"], row["size"]), []).append(row)
    ends: dict[str, list[str]] = {}
    for (label, size), curve in tried.items():
        outer = {fold(row["lr"] for row in curve) for fold in (min, max)}
        if len({row["mean"] for row in curve}) > 1 and any(row["chosen"] and row["lr"] in outer for row in curve):
            ends.setdefault(label, []).append(size)
    apart = {label for label, _ in tried if sum(other == label for other, _ in tried) > 1}
    shown = displayed(ends)
    names = ", ".join(
        f"{shown[label]} ({', '.join(sizes)})" if label in apart else shown[label] for label, sizes in ends.items()
    )
    return f" The rate is the lowest or highest tried, and a better one may lie beyond it, for {names}." if ends else ""


def tested(comparisons: Sequence[Comparison]) -> str:
    """Return the test behind comparisons of one seed, as text; "" where there are none."""
    if not any("one seed" in comparison.over for comparison in comparisons):
        return ""
    return " (of one seed over test examples alone: McNemar's test of answers that are right or wrong, else a t test)"


def over_seeds(counts: set[int]) -> str:
    """Describe a cell of the grid, by the numbers of seeds that there are."""
    if counts == {1}:
        return "test score of one seed, without interval"
    some = " where there are several" if 1 in counts else ""
    return f"mean test score over {' or '.join(map(str, sorted(counts)))} seeds, ± half of its 95 % t interval{some}"


def too_few(tasks: int, ranked: int) -> str:
    """Return a warning where so few tasks cannot tell so many methods apart, else ""."""
    least = least_p(ranked, tasks)
    if least < 0.05:
        return ""
    return (
        f" With {tasks} tasks the smallest corrected p of {math.comb(ranked, 2)} comparisons is {least:.2g}, so this "
        "test cannot tell any two methods apart; read the ranks only."
    )
