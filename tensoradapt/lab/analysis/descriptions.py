"""Sentences about how runs were made: seeds, learning rates, what methods do not have in common, what is lost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pandas import DataFrame, notna

from tensoradapt.lab.analysis.names import display, displayed
from tensoradapt.lab.analysis.results import CONFIGURATION
from tensoradapt.lab.runs.row import SETUP
from tensoradapt.planning.size import Size
from tensoradapt.text import count_text, plain

LISTED = 6  # rates, or methods, that a sentence lists one by one
GRIDS = 3  # different lists of rates, or values of a setting, that a sentence has room for
LOST = {"at chance": "ended at chance", "diverged": "diverged"}  # statuses in a sentence
NAMES = {"projections": "Targets", "scale": "Scales", "optimizer": "Optimizers", "layout": "Layouts"}


def facts(runs: DataFrame) -> str:
    """Return what a reader needs to judge means of these runs, in a paragraph.

    It says model, task, metric, seeds, learning rates and how they were chosen, what methods do not have in common,
    precision and threads where they are not the usual ones, and which runs are lost. ``runs`` has a row for each run,
    with those that tuned, from which it follows how rates were chosen.
    """
    scored = reported(runs)
    about = " on ".join(", ".join(map(str, own)) for name in ("model", "task") if (own := _values(scored, name)))
    sentences = (
        f"{plain(about)}{': ' if about else ''}{score_name(scored)} {_seeds(scored)}.",
        _rates(runs),
        _how_stepped(scored),
        how_unequal(scored),
        _how_computed(scored),
        _how_lost(scored),
    )
    return " ".join(filter(None, sentences))


def reported(runs: DataFrame) -> DataFrame:
    """Return the runs that means are of: those with a result that did not only help to choose a rate."""
    return runs[~runs["tuning"].astype(bool) & (runs["status"] != "failed")]


def named(row: Mapping[str, Any]) -> str:
    """Return a configuration's method, as its paper writes it, and its size."""
    return f"{plain(display(row['method']))} {Size.of(row).short}".strip()


def listed(names: Iterable[str], most: int = LISTED, last: str = " and ") -> str:
    """Return names as a list in a sentence; of many the first, and how many others there are.

    >>> listed(["a", "b", "c"]), listed("abcdef", most=2)
    ('a, b and c', 'a, b and 4 others')
    """
    every = list(names)
    if len(every) > most + 1:
        every = [*every[:most], f"{len(every) - most} others"]
    return last.join(filter(None, (", ".join(every[:-1]), *every[-1:])))


def score_name(runs: DataFrame) -> str:
    """Return what the score is called in sentences."""
    return f"test {listed(_values(runs, 'metric'))}".replace("_", " ")


def _values(runs: DataFrame, column: str) -> list[Any]:
    """Return the values of a column in order, each once; none of the missing ones."""
    return sorted(runs[column].dropna().unique())


def _seeds(runs: DataFrame) -> str:
    counts = sorted(set(runs.groupby([*CONFIGURATION], dropna=False).size()))
    if counts == [1]:
        return "of one seed, so without intervals"
    return f"over {' to '.join(map(str, dict.fromkeys((counts[0], counts[-1]))))} seeds (means with 95 % t intervals)"


def _rates(runs: DataFrame) -> str:
    """Return the learning rates of each method, from its smallest size up, and how they were chosen, in a sentence.

    Nothing is said of how they were chosen where ``runs`` has none that tuned, as these may have been left out.
    """
    scored = reported(runs)
    texts = {}
    for method, own in scored[(scored["kind"] == "adapter") & scored["lr"].notna()].groupby("method"):
        chosen = own.sort_values("n_params").drop_duplicates(["rank", "budget", "n_params", "lr"])["lr"]
        texts[str(method)] = "/".join(f"{rate:g}" for rate in (chosen if chosen.nunique() > 1 else chosen[:1]))
    if not texts:
        return ""
    how = f" {how_chosen(runs)}" if runs["tuning"].any() else ""
    how += ", smallest size first" if any("/" in text for text in texts.values()) else ""
    if len(set(texts.values())) == 1:
        return f"Learning rates{how}: {next(iter(texts.values()))}{' for all' if len(texts) > 1 else ''}."
    names = displayed(texts)
    return f"Learning rates{how}: {', '.join(f'{names[method]} {text}' for method, text in sorted(texts.items()))}."


def how_chosen(runs: DataFrame) -> str:
    """Say how learning rates were chosen: on validation only where runs among these tried others."""
    tuning = runs["tuning"].astype(bool)
    tried, names = runs[tuning], displayed(runs["method"])
    if tried.empty:
        return "as given"
    given = sorted(set(runs[(runs["kind"] == "adapter") & ~tuning]["method"]) - set(tried["method"]))
    others = f"as given for {listed(names[method] for method in given)}, and " if given else ""
    seeds = [f"{seed:.0f}" for seed in _values(tried, "seed")]
    by = f"mean over seeds {', '.join(seeds)}" if len(seeds) > 1 else f"seed {''.join(seeds) or 'not stated'}"
    each = "each other" if given else "each"
    return f"{others}chosen on validation among {_tried(tried, each, names)} {where_tuned(runs)} ({by})"


def _tried(tried: DataFrame, each: str, names: Mapping[str, str]) -> str:
    """Return the rates that were tried, as text; they are written once where every method has the same."""
    grids: dict[str, list[str]] = {}
    for method, own in tried.groupby("method"):
        grids.setdefault(_grid(_values(own, "lr")), []).append(names[str(method)])
    if len(grids) == 1:
        return f"{next(iter(grids))} for {each} method"
    if len(grids) > GRIDS:
        every = _values(tried, "lr")
        return f"{each} method's own rates, {every[0]:g} to {every[-1]:g},"
    own_rates = "; ".join(f"{listed(who)} {text}" for text, who in grids.items())
    return f"{each} method's own rates ({own_rates})"


def _grid(rates: Sequence[float]) -> str:
    if len(rates) > LISTED:
        return f"{len(rates)} rates from {rates[0]:g} to {rates[-1]:g}"
    return ", ".join(f"{rate:g}" for rate in rates)


def where_tuned(runs: DataFrame) -> str:
    """Say at which size rates were tuned.

    A search tries other rates at each size and reports one size of each method; a grid has rates that sizes share.
    """
    sized = runs.assign(size=[Size.of(row).text for _, row in runs.iterrows()], tuning=runs["tuning"].astype(bool))
    searched, several = True, False
    for _, own in sized.groupby(["task", "method"], dropna=False):
        tried, reports = own[own["tuning"]].drop_duplicates(["size", "lr"]), own[~own["tuning"]]
        if tried["size"].nunique() > 1:
            several = True
            searched &= tried["lr"].is_unique and reports["size"].nunique() <= 1
    return "at its middle size" if not several else "over the sizes searched" if searched else "at each size"


def _how_stepped(runs: DataFrame) -> str:
    equal = set(runs[runs["kind"] == "adapter"]["optimizer"]) == {"equal_steps"}
    return "Adapters take equal steps: the rate is how far the weights move." if equal else ""


def how_unequal(runs: DataFrame) -> str:
    """Say which targets, scales, optimizers and layouts adapters have, where not all have the same."""
    said, names = [], displayed(runs["method"])
    for key in SETUP:
        values: dict[str, set[str]] = {}
        for _, row in runs[runs["kind"] == "adapter"].iterrows():
            values.setdefault(_setting(row, key), set()).add(names[row["method"]])
        if len(values) > 1:
            by = "; ".join(f"{value} of {listed(sorted(values[value]), last=', ')}" for value in sorted(values))
            said.append(f"{NAMES[key]} differ{' between methods' if len(values) > GRIDS else f': {by}'}.")
    return " ".join(said)


def _setting(row: Mapping[str, Any], key: str) -> str:
    alpha = row.get("alpha") if key == "scale" else None
    text = str(row[key]) if notna(row[key]) else "not stated"
    return f"{text}, alpha {alpha}".removesuffix(".0") if notna(alpha) else text


def _how_computed(runs: DataFrame) -> str:
    """Say the precision, where it is not fp32, and the number of threads, where runs differ in it."""
    used = sorted(runs["precision"].fillna("fp32").unique()) if "precision" in runs else ["fp32"]
    threads = [f"{n:.0f}" for n in _values(runs, "threads") if n] if "threads" in runs else []
    said = [f"Computed in {listed(used)}."] if used != ["fp32"] else []
    said += [f"Runs used {listed(threads)} threads, which changes last digits."] if len(threads) > 1 else []
    return " ".join(said)


def _how_lost(runs: DataFrame) -> str:
    counts = {what: int((runs["status"] == status).sum()) for status, what in LOST.items()}
    said = [f"{n} {what}" for what, n in counts.items() if n]
    if said:
        return f"Of {count_text(len(runs), 'run')}, {listed(said)}; means count them."
    return f"{len(runs)} runs, none at chance or diverged." if len(runs) > 1 else ""
