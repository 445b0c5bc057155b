"""Score against rank, budget, steps, seconds or learning rate, a line for each method.

>>> import tensoradapt as ta
>>> import itertools
>>> import pandas as pd
>>> rows = itertools.product(("lora", "cp"), (1, 2, 4), (0, 1, 2))
>>> runs = pd.DataFrame(rows, columns=["method", "rank", "seed"])
>>> runs = runs.assign(n_params=500 * runs["rank"], score=0.8 + 0.02 * runs["rank"] + 0.01 * runs["seed"])
>>> ax = ta.plots.curves(runs)
>>> ax.get_xlabel(), ax.get_ylabel()
('rank', 'test score')
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from tensoradapt.checks import is_number
from tensoradapt.errors import TensorAdaptError, did_you_mean
from tensoradapt.lab.analysis.comparisons import shared_seeds
from tensoradapt.lab.analysis.descriptions import listed, where_tuned
from tensoradapt.lab.analysis.names import Look, display, tone
from tensoradapt.lab.analysis.names import looks as looks_of
from tensoradapt.lab.analysis.plots import _parts
from tensoradapt.lab.analysis.statistics.significance import holm, paired_p
from tensoradapt.lab.analysis.tables import summarise
from tensoradapt.planning.size import Size

X = {
    "rank": "rank",
    "budget": "parameters asked for",
    "steps": "steps of training",
    "seconds": "seconds",
    "lr": "learning rate",
}
OTHERS: Mapping[str, Callable[[Any], str]] = {
    "rank": _parts.rank_text,
    "budget": lambda n: Size(budget=int(n)).short,  # a float where other methods have none
    "steps": lambda n: f"{int(n):,} steps",
}
GOES_WITH = {"budget": "rank", "seconds": "steps"}  # what follows from an x
APART = ["method", "rank", "budget"]  # what rates are tuned for, where each size has its own


def rows(runs: pd.DataFrame, *, x: str = "rank") -> pd.DataFrame:
    """Return a row for each method at each value of ``x``, as ``summarise`` gives it, by method and x.

    ``cost`` is the value of x, ``x`` its name, and ``setting`` what tells lines of one method apart, as "r=8" where x
    is steps.

    With ``x="lr"`` a row is a run that tuned: its validation score, the ``mean`` over the runs of its method, size and
    rate, and ``chosen`` where the reported runs have this rate (those of this size, where sizes were tuned apart).

    Args:
        runs: of one task.
        x: "rank", "budget", "steps", "seconds" or "lr".

    Raises:
        TensorAdaptError: for another x, a method without it (as ranks by bond), fewer than two values of it, two
            configurations of a method at one value, and for rates where none was tuned.
    """
    if x not in X:
        raise TensorAdaptError(f"x is {x!r}{did_you_mean(x, X)}")
    return _rates(runs) if x == "lr" else _means(runs, x)


def _means(runs: pd.DataFrame, x: str) -> pd.DataFrame:
    adapters = runs[(runs["kind"] == "adapter") & ~runs["tuning"]]
    for _, run in adapters.iterrows():
        if not is_number(run[x], 0):
            has = run[x] if isinstance(run[x], str) else f"no {x}" if pd.isna(run[x]) else f"{x} {run[x]}"
            raise TensorAdaptError(
                f"{display(run['method'])} has {has}; expected methods with a {x} that is a number above 0: draw the "
                "frontier instead, or another x"
            )
    values = sorted(set(adapters[x]))
    if len(values) < 2:
        found = f"every adapter has {x} {values[0]:,}" if values else "there is no adapter"
        raise TensorAdaptError(f"{found}; expected runs with two values of {x} or more")
    means = summarise(runs.assign(**{x: pd.to_numeric(runs[x], errors="coerce")}), x)
    means = means.assign(x=x, setting=settings(means, x))
    means = means.sort_values(["method", "setting", "cost"], ignore_index=True)
    _check_one(means[means["kind"] == "adapter"], x)
    return means


def settings(means: pd.DataFrame, x: str = "") -> pd.Series:
    """Return what tells the lines of a method apart: its size or its steps, where it has several; x is on the axis."""
    texts = pd.Series("", means.index)
    for name, text in OTHERS.items():
        if name not in (x, GOES_WITH.get(x)):
            several = means.groupby("method")[name].transform("nunique") > 1
            own = [", " + text(value) if pd.notna(value) else "" for value in means[name]]
            texts = texts.where(~several, texts + own)
    return texts.str.removeprefix(", ")


def _check_one(lines: pd.DataFrame, x: str) -> None:
    for (method, _, value), own in lines.groupby(["method", "setting", "cost"]):
        if len(own) > 1:
            differ = [name for name in own if own[name].map(str).nunique() > 1 and name in (*OTHERS, "layout", "lr")]
            raise TensorAdaptError(
                f"{display(method)} has {len(own)} configurations at {x} {value:,.0f}, which differ in "
                f"{' and '.join(differ) or 'their numbers of parameters'}; expected one: select runs first"
            )


def _rates(runs: pd.DataFrame) -> pd.DataFrame:
    tried = runs[runs["tuning"]]
    if tried.empty:
        raise TensorAdaptError("no learning rate was tuned; expected runs of a sweep with several learning rates")
    if not (tried["lr"] > 0).all():
        raise TensorAdaptError("a run that tuned has no learning rate above 0; expected one of each")
    apart = where_tuned(runs) != "at its middle size"
    keys = [*(APART if apart else APART[:1]), "lr"]
    kept = set(_keys(runs[~runs["tuning"]], keys))
    found = tried.assign(
        x="lr",
        mean=tried.groupby([*APART, "lr"], dropna=False)["validation"].transform("mean"),
        chosen=[key in kept for key in _keys(tried, keys)],
        setting=settings(tried),
    )
    columns = ["task", "metric", "metric_low", "metric_high", "kind", *APART, "n_params", "lr", "seed", "validation"]
    found = found[[*columns, "mean", "chosen", "lost", "status", "setting", "x", "id"]]
    return found.sort_values(["method", "n_params", "setting", "lr", "seed"], ignore_index=True)


def _keys(runs: pd.DataFrame, keys: Sequence[str]) -> list[tuple[str, ...]]:
    return [tuple(map(str, key)) for key in runs[[*keys]].itertuples(index=False)]


def draw(
    rows: pd.DataFrame,
    ax: Axes,
    *,
    looks: Mapping[str, Look] | None = None,
    focus: str | None = None,
    names: bool = True,
) -> Axes:
    """Draw means with 95 % t intervals; hollow: a run ended at chance or diverged; a cross at the edge: a mean below.

    Methods of one x stand side by side, a few points apart: x was chosen, so that hides nothing. Rates that are kept
    have a ring.
    """
    styles, x = in_focus(looks or looks_of(rows["method"]), focus), rows["x"].iloc[0]
    means = _rate_means(rows) if x == "lr" else rows[rows["kind"] == "adapter"]
    values, ends = sorted(means["cost"].unique()), []
    _values_axis(ax, values)
    ax.set_ylim(_parts.score_limits(means))
    if x != "lr":
        _parts.references(ax, rows[rows["kind"] != "adapter"])
    for own, look, shift in _parts.lines(ax, means, styles):
        ax.plot(
            own["cost"],
            own["mean"],
            look.line,
            color=look.colour,
            lw=1.2,
            transform=_parts.moved(ax, shift),
            gid="line",
        )
        for _, row in (
            own.iterrows() if look.colour != tone(_parts.PALE) else ()
        ):  # grey lines are the setting of another
            _parts.point(ax, row["cost"], row, look, row["n_lost"] == 0, shift)
            if row.get("chosen"):
                _ring(ax, row, look, shift)
        ends.append((look, own["mean"].iloc[-1]))
    ax.set(xlabel=X[x], ylabel=_parts.score_name(rows, "validation" if x == "lr" else "test"))
    _parts.bare(ax)
    if names and x == "lr":
        ring = Line2D([], [], ls="", marker="o", mfc="none", mec=tone(_parts.GREY), ms=9, label="rate kept")
        _parts.legend(ax, [*_parts.handles(look for look, _ in ends), ring], below=_parts.narrow(ax))
    elif names:
        _parts.end_names(ax, {look.name: (y, look.colour) for look, y in ends})
        _values_axis(ax, values)  # for fewer numbers where names made the axes narrower
    return ax


def in_focus(looks: Mapping[str, Look], focus: str | None) -> dict[str, Look]:
    """Return the looks of methods, where one is in focus those of the others in grey."""
    return {m: k if focus in (None, m) else k._replace(colour=tone(_parts.PALE)) for m, k in looks.items()}


def _values_axis(ax: Axes, values: Sequence[float]) -> None:
    """Make x logarithmic with numbers at the values that were run, as many as there is room for."""
    room = (values[-1] / values[0]) ** (0.09 if len(values) > 1 else 0) * 1.06
    ax.set(xscale="log", xlim=(values[0] / room, values[-1] * room))
    _parts.value_ticks(ax, values, "{:,g}".format, 0.12 + 0.11 * max(len(f"{value:,g}") for value in values))


def _rate_means(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the mean of each rate as a row like one of ``summarise``, from its runs with each seed."""
    means = []
    for (*_, lr), own in rows.groupby([*APART, "lr"], dropna=False):
        first, scores = own.iloc[0], own["validation"].astype(float).fillna(-math.inf)
        lost = own["lost"].to_numpy(bool) | np.isinf(scores)
        kept = first[["method", "setting", "rank", "n_params", "chosen", "metric_low", "metric_high"]]
        seeds = {"scores": tuple(scores), "lost": tuple(lost), "n_seeds": len(own), "n_lost": lost.sum()}
        mean = -math.inf if pd.isna(first["mean"]) else first["mean"]
        means.append({**kept, **seeds, "cost": lr, "mean": mean, "low": math.nan, "high": math.nan})
    return pd.DataFrame(means).sort_values("cost")


def _ring(ax: Axes, row: pd.Series, look: Look, shift: float) -> None:
    """Draw the ring of a rate that is kept."""
    ring: dict[str, Any] = {"mfc": "none", "mec": look.colour, "ms": 9 if _parts.narrow(ax) else 11, "mew": 1.1}
    at = row["cost"], max(row["mean"], ax.get_ylim()[0])
    ax.plot(*at, "o", zorder=2.8, gid="chosen", clip_on=False, transform=_parts.moved(ax, shift), **ring)


def caption(runs: pd.DataFrame, rows: pd.DataFrame) -> str:
    """Return what a reader needs to judge the figure."""
    if rows["x"].iloc[0] == "lr":
        seeds = sorted(set(rows["seed"].dropna()))
        how = f"means over seeds {', '.join(map(str, seeds))}" if len(seeds) > 1 else "one run each"
        return (
            f"Validation score at each learning rate tried ({how}). A ring: the rate of the reported runs. Hollow: a "
            "run ended at chance or diverged."
        )
    n, x = sorted(set(rows["n_seeds"])), rows["x"].iloc[0]
    if n == [1]:
        how = "One seed, so without intervals."
    else:
        over = " to ".join(map(str, dict.fromkeys((n[0], n[-1]))))
        how = f"Means over {over} seeds with 95 % t intervals."
    beside = f" Methods of one {x} are side by side." if rows["method"].nunique() > 1 else ""
    lost = " Hollow: a run ended at chance or diverged." if rows["n_lost"].any() else ""
    return f"{how}{beside}{lost}"


def headline(rows: pd.DataFrame) -> str:
    """Return the answer in a sentence: which methods the largest x helps, or which rates were kept."""
    if rows["x"].iloc[0] == "lr":
        return _kept(rows)
    x, changes = rows["x"].iloc[0], list[tuple[str, float, float]]()
    for (method, setting), own in rows[rows["kind"] == "adapter"].groupby(["method", "setting"], sort=False):
        first, last = own.iloc[0], own.iloc[-1]
        least, most = (dict(zip(row["seeds"], row["scores"], strict=True)) for row in (first, last))
        if len(own) > 1 and (seeds := shared_seeds(last, first)):
            gap = np.array([most[seed] - least[seed] for seed in seeds])
            p = paired_p(gap) if len(gap) > 1 else 1.0
            changes.append((f"{display(method)} {setting}".strip(), float(gap.mean()), p))
    holds = holm([p for *_, p in changes]) < 0.05
    shown = sorted(
        (change for change, is_so in zip(changes, holds, strict=True) if is_so), key=lambda one: -abs(one[1])
    )
    if not shown:
        return f"The {'fewest and the most' if x == 'steps' else 'least and the largest'} {x} do not differ measurably"
    said = [
        f"{verb}{'' if x == 'steps' else 's'} {listed([f'{n} ({_parts.signed(gap)})' for n, gap in some], most=3)}"
        for verb, is_up in (("help", True), ("hurt", False))
        if (some := [(name, gap) for name, gap, _ in shown if (gap > 0) == is_up])
    ]
    rest = len(changes) - len(shown)
    left = f"; {rest} of {len(changes)} {'does' if rest == 1 else 'do'} not differ measurably" if rest else ""
    return f"{'More' if x == 'steps' else 'A larger'} {x} {' and '.join(said)}{left}"


def _kept(rows: pd.DataFrame) -> str:
    kept = rows[rows["chosen"]].groupby("method", sort=False)["lr"].agg(["min", "max"])
    if kept.empty:
        return "No rate is kept yet: no run that is reported has ended"
    rates = {display(method): " to ".join(dict.fromkeys((f"{a:g}", f"{b:g}"))) for method, a, b in kept.itertuples()}
    same = len(set(rates.values())) == 1 < len(rates)
    text = f"{next(iter(rates.values()))} for all methods" if same else listed(map(" ".join, rates.items()), 3)
    ends = [display(method) for method, own in rows.groupby("method", sort=False) if _at_an_end(own)]
    return f"Rates kept: {text}{f'; the lowest or highest tried for {listed(ends)}' if ends else ''}"


def _at_an_end(own: pd.DataFrame) -> bool:
    """Say whether a size of a method keeps its lowest or highest rate, where rates are not all alike."""
    for _, curve in own.groupby(["rank", "budget"], dropna=False):
        outer = {curve["lr"].min(), curve["lr"].max()}
        if curve["mean"].nunique(dropna=False) > 1 and (curve["chosen"] & curve["lr"].isin(outer)).any():
            return True
    return False


def size(rows: pd.DataFrame, *, width: float = 5.6) -> tuple[float, float]:
    """Return inches of a new figure; a legend below narrow axes has two names a line."""
    named = len(rows[["method", "setting"]].drop_duplicates()) if "chosen" in rows and width < 4.2 else 0
    return width, max(2.4, 0.64 * width) + 0.09 * named
