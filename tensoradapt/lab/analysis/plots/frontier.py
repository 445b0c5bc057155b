"""Score against parameters or another cost: what can be had for less, beside one reference.

The green zone is less than a point below the reference. Bars are 95 % intervals of the paired difference to it, filled
marks are shown to be in the zone. Sizes that are nearly alike stand side by side.

>>> import pandas as pd
>>> import tensoradapt as ta
>>> runs = pd.DataFrame({"method": ["lora", "cp"] * 3, "seed": [0, 0, 1, 1, 2, 2], "n_params": [9216, 1008] * 3})
>>> runs["score"] = [0.81, 0.84, 0.83, 0.86, 0.82, 0.85]
>>> ax = ta.plots.frontier(runs)
>>> ax.get_xlabel(), ax.get_ylabel()
('trained parameters of the adapter', 'test score')
"""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import fill
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from tensoradapt.errors import TensorAdaptError, did_you_mean
from tensoradapt.lab.analysis.descriptions import named
from tensoradapt.lab.analysis.names import Look, display, tone
from tensoradapt.lab.analysis.names import looks as look_up
from tensoradapt.lab.analysis.plots import _parts
from tensoradapt.lab.analysis.results import COSTS, VERDICTS
from tensoradapt.lab.analysis.tables import summarise
from tensoradapt.lab.analysis.verdict import ALIKE, amount, answer, fewer, verdict
from tensoradapt.text import short_count

TICK = 0.62  # inches that a tick's words take
MOST = 8  # methods that have a colour each; of more, those without a size that is shown to be in the zone are grey
NARROW = {"n_params": "parameters", "n_trained": "parameters, with the head"}  # names of costs below narrow axes
TAKEN = ("difference", "margin", "times_fewer", "over", "reference", "reference_rank", "reference_n_params", *VERDICTS)
TAKEN += ("decided", "within", "control_p_holm", "control_difference", "margin_share")


def size(rows: pd.DataFrame, *, width: float = 7) -> tuple[float, float]:
    """Return inches of a new figure."""
    return width, 1.75 + 0.35 * width


def rows(
    runs: pd.DataFrame,
    *,
    x: str = "n_params",
    reference: str | None = None,
    at: int | str | None = None,
    margin: float | None = None,
    verdicts: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Return a row for each configuration, the least cost first (``summarise``), with its verdict, and ``cost_name``.

    ``y`` is where a size stands: at the reference's mean plus its difference, over the seeds that both have. ``low``
    and ``high`` are the ends of that difference's interval. Without a comparison they are of the mean.

    Args:
        runs: of one model, and of one task in each panel.
        x: the cost, a column of numbers such as "n_params" or "seconds".
        reference: method that others are compared with; None: LoRA, else the method with the most sizes.
        at: the reference's size (``verdict``), but for "n_params", which is of scores between sizes.
        margin: loss of score that hardly matters, drawn as a zone; None: one point, or 0.01 of what is no share.
        verdicts: rows of ``verdict`` for these runs, where they are known.

    Raises:
        TensorAdaptError: for an x that is no column of numbers above 0, for runs without an adapter, and for
            at="n_params".
    """
    if at == "n_params":
        raise TensorAdaptError(
            "at is 'n_params', which compares scores between sizes, and a frontier shows the sizes that were run; "
            "expected a rank, budget, size or auto, or another figure, as ta.plots.differences"
        )
    if x not in runs:
        raise TensorAdaptError(
            f"x is {x!r}{did_you_mean(x, [c for c in COSTS if c in runs])}, or any column of numbers"
        )
    found = summarise(runs, x).assign(cost_name=x)
    adapters = found[found["kind"] == "adapter"]
    if adapters.empty:
        raise TensorAdaptError("no run is of an adapter; expected at least one, with its score and cost")
    if len(odd := adapters[~(adapters["cost"].astype(float) > 0)]):
        raise TensorAdaptError(
            f"{display(odd['method'].iloc[0])} has a {x} of {odd['cost'].iloc[0]}; expected a number above 0 in each "
            "run of an adapter: choose another x, or leave those runs out"
        )
    return _judged(found, verdict(runs, reference, at, margin) if verdicts is None else verdicts)


def _judged(means: pd.DataFrame, verdicts: pd.DataFrame) -> pd.DataFrame:
    """Return means with the verdict of each, and which is the reference; without verdicts, with their own intervals."""
    means = means.assign(is_reference=False, outcome=None, y=means["mean"])
    if verdicts.empty:
        return means
    by_id: dict[str, Any] = {row["runs"][0]: row for row in verdicts.to_dict("records")}
    others = {name for row in by_id.values() for name in row["runs"][1::2]}
    own: list[Any] = [next((by_id[name] for name in names if name in by_id), {}) for names in means["runs"]]
    told = {name: [row.get(name) for row in own] for name in TAKEN}
    means = means.assign(**told, is_reference=[not others.isdisjoint(names) for names in means["runs"]])
    tops = means["mean"][means["is_reference"]]
    for row, at in zip(own, means.index, strict=True):
        if row:  # of several references each size stands at its own mean
            top = tops.iloc[0] if len(tops) == 1 else means["mean"][at] - row["difference"]
            means.loc[at, ["y", "low", "high"]] = [top + row[name] for name in ("difference", "low", "high")]
        elif means["kind"][at] == "adapter":
            means.loc[at, ["low", "high"]] = np.nan
    return means


def draw(
    rows: pd.DataFrame,
    ax: Axes,
    *,
    focus: str | None = None,
    looks: Mapping[str, Look] | None = None,
    names: bool = True,
) -> Axes:
    """Draw the figure; of more than eight methods those that are shown to be in the zone have a colour.

    Args:
        rows: of ``rows``.
        ax: axes.
        focus: the method that is in colour, with the others in grey.
        looks: name, colour and marker of each method.
        names: whether methods are named within the axes.
    """
    adapters, styles = rows[rows["kind"] == "adapter"].copy(), dict(looks or look_up(rows["method"]))
    vivid, own = _vivid(adapters, focus), adapters[adapters["is_reference"]]
    low, high = adapters["cost"].min(), adapters["cost"].max()
    room = max((high / low) ** 0.06, 1.25)
    ax.set(xlim=(low / room, high * room), ylim=_limits(rows))
    ax.set_xscale("log")
    if len(own) == 1:
        top, margin = own["mean"].iloc[0], float(adapters["margin"].dropna().iloc[0])
        ax.axhspan(max(top - margin, ax.get_ylim()[0]), top, color=_parts.zone_colour(), lw=0, zorder=0)
        ax.axhline(top, color=tone(0), lw=0.9, zorder=1, gid="reference")
    _parts.references(ax, rows[rows["kind"] != "adapter"])
    adapters["at"] = _places(ax, adapters[adapters["method"].isin(vivid)]).reindex(adapters.index)
    adapters["at"] = adapters["at"].fillna(adapters["cost"])
    for method, line in adapters.groupby("method", sort=False):
        _line(ax, line, styles[str(method)], method in vivid)
    cost = rows["cost_name"].iloc[0]
    called = COSTS if _parts.inches(ax) > 2.3 else NARROW
    ax.set(xlabel=called.get(cost, cost.replace("_", " ")), ylabel=_parts.score_name(rows))
    _ticks(ax, adapters, cost)
    _parts.bare(ax)
    _parts.fit_text(ax)
    if names or focus is not None:
        _names(ax, adapters[adapters["method"].isin(vivid)], styles, names)
    return ax


def _vivid(adapters: pd.DataFrame, focus: str | None) -> set[str]:
    """Return the methods that have a colour."""
    methods = sorted(set(adapters["method"]))
    if focus is not None:
        if focus not in methods:
            raise TensorAdaptError(f"focus is {focus!r}{did_you_mean(focus, methods)}")
        return {focus}
    alone = adapters["is_reference"] & (adapters["is_reference"].sum() == 1)
    shown = (adapters["outcome"] == "kept") | alone | (adapters["on_frontier"] & ~alone.any())
    return set(methods if len(methods) <= MOST else adapters["method"][shown])


def _limits(rows: pd.DataFrame) -> tuple[float, float]:
    """Return limits of y that hold the zone, the means that did not fail, and intervals as far as usual ones."""
    adapters = rows[rows["kind"] == "adapter"]
    margin = rows["margin"].dropna() if "margin" in rows else pd.Series()
    if not len(margin) or adapters["is_reference"].sum() != 1:
        return _parts.score_limits(rows[rows["kind"] != "head"])
    top, step = float(adapters["mean"][adapters["is_reference"]].iloc[0]), float(margin.iloc[0])
    sound = adapters[adapters["outcome"] != "failed"]
    reach = max(3.2 * step, 1.15 * (top - sound["y"].quantile(0.1)))
    full = rows["mean"][(rows["kind"] == "full") & (rows["mean"] - top).between(0, 4 * step)]
    ends = [top - 1.3 * step, top + 0.5 * step, *sound["y"], *sound["low"].dropna(), *sound["high"].dropna(), *full]
    low, high = np.clip([min(ends), max(ends)], top - reach, top + reach)
    return float(low - 0.06 * (high - low)), float(high + 0.06 * (high - low))


def _places(ax: Axes, adapters: pd.DataFrame) -> pd.Series:
    """Return where each size is drawn: at its cost, or beside others of nearly one cost, as their lines end."""
    low, high = ax.get_xlim()
    decade = 72 * _parts.inches(ax) / np.log10(high / low)  # points
    last = adapters.groupby("method")["mean"].last()
    ordered = adapters[adapters["outcome"] != "failed"].sort_values("cost")
    places, cost = adapters["cost"].astype(float).copy(), ordered["cost"].astype(float)
    for _, own in ordered.groupby((cost > ALIKE * cost.shift()).cumsum()):
        costs = own["cost"].astype(float)
        if len(own) == 1 or decade * np.log10(costs.max() / costs.min()) > 14:
            continue
        step = min(4.5 if _parts.narrow(ax) else 8, 0.3 * decade / len(own))
        for i, at in enumerate(sorted(own.index, key=lambda at: last[own["method"][at]])):
            places[at] = np.exp(np.log(costs).mean()) * 10 ** (step * (i - (len(own) - 1) / 2) / decade)
    return places


def _line(ax: Axes, own: pd.DataFrame, look: Look, is_vivid: bool) -> None:
    """Draw a method: its line and its sizes, filled where shown to be in the zone; or as background their means alone.

    Failed sizes are on the lower edge.
    """
    colour, sound = look.colour if is_vivid else tone(0.7), own[own["outcome"] != "failed"]
    ax.plot(sound["at"], sound["y"], look.line, color=tone(0.5, colour), lw=1, zorder=2, gid="line")
    for _, row in own.iterrows():
        if is_vivid:
            _parts.point(ax, row["at"], row, look, row["outcome"] == "kept" or row["is_reference"])
        else:
            y = max(row["y"], ax.get_ylim()[0])
            ax.plot(row["at"], y, ".", ms=4, zorder=1.8, color=colour, gid=_parts.said(row))


def _ticks(ax: Axes, adapters: pd.DataFrame, cost: str) -> None:
    """Tick sizes that were run, with how many times fewer parameters they have; of too many those in the zone first."""
    reference, costs = adapters[adapters["is_reference"]], np.sort(adapters["cost"].astype(float).unique())
    if cost not in ("n_params", "n_trained") or len(reference) != 1:
        _parts.value_ticks(ax, costs[::-1], short_count, 0.45)
        return
    whole = float(reference["cost"].iloc[0])
    alike = np.split(costs, np.flatnonzero(costs[1:] > ALIKE * costs[:-1]) + 1)
    sizes = [whole if whole in own else own.mean() for own in alike]
    kept = adapters["cost"][adapters["outcome"] == "kept"]
    first = [size for size in sizes if any(ALIKE > n / size > 1 / ALIKE for n in (whole, *kept))]

    def text(n: float) -> str:
        name, below = named(reference.iloc[0]), fewer(whole / n)
        below = below if below != "as many" else name if len(name) < 15 else "the reference"
        return f"{short_count(float(f'{n:.3g}'))}\n{below}"

    _parts.value_ticks(ax, (*first[::-1], *sizes[::-1]), text, TICK)
    ax.tick_params(axis="x", length=0)
    for n in ax.get_xticks():
        ax.axvline(n, color=tone(_parts.FAINT), lw=0.7, zorder=-1)


def _names(ax: Axes, adapters: pd.DataFrame, styles: Mapping[str, Look], names: bool) -> None:
    """Write each method's name where its line ends, the reference's mean and other ranks, and failures in words."""
    low, narrow, labels = ax.get_ylim()[0], _parts.narrow(ax), list[tuple[bool, Any]]()
    last = set(adapters[adapters["outcome"] != "failed"].drop_duplicates("method", keep="last").index)
    for i, row in (*adapters.iterrows(),):
        look, y, first = styles[row["method"]], max(row["y"], low), i in last or row["is_reference"]
        rank = _parts.rank_text(row["rank"]) if row["method"] == row.get("reference") or row["is_reference"] else ""
        text = f"{look.name} {rank}".strip() if i in last and names else rank
        if row["outcome"] == "failed":
            said = row["verdict"].replace(" runs", "").replace(" run", "") if narrow else row["verdict"]
            text, y = f"{look.name}: {said}" if names else said, low
        elif row["is_reference"] and names and adapters["is_reference"].sum() == 1:
            text = f"{text} {_parts.number(row['mean'])}"
        if text:
            size = "small" if first and not narrow else "x-small"
            labels.append((not first, _parts.label(ax, fill(text, 26), row["at"], y, look.colour, size)))
    _parts.move_labels(ax, [label for _, label in sorted(labels, key=lambda one: one[0])])


def headline(rows: pd.DataFrame) -> str:
    """Return the answer: the fewest parameters that are shown to lose less than the margin, or that none is."""
    adapters = rows[rows["kind"] == "adapter"]
    judged = adapters[adapters["outcome"].notna()]
    if len(judged):
        return answer(judged)
    if adapters["lost"].map(all).all():
        return "All runs failed: none ended above chance"
    return f"{named(adapters.loc[adapters['mean'].idxmax()])} has the highest mean; nothing was compared"


def caption(runs: pd.DataFrame, rows: pd.DataFrame) -> str:
    """Say what the bars and marks are."""
    judged = rows[(rows["kind"] == "adapter") & rows["outcome"].notna()]
    if judged.empty:
        return "Means over seeds with 95 % t intervals."
    first, n = judged.iloc[0], len(judged)
    margin = amount(first["margin"], first["points"])
    over = " or ".join(dict.fromkeys(judged["over"]))
    few = rows["method"][rows["kind"] == "adapter"].nunique() <= MOST
    grey = "" if few else " Methods without one are grey."
    against = named({"method": first["reference"], "rank": first["reference_rank"]})
    return (
        f"Bars: 95 % intervals of the difference to {against}, paired over {over}. Filled: shown to lose less than "
        f"{margin}, after Holm's correction over {n} sizes.{grey}"
    )
