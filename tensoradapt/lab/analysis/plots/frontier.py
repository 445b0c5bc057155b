"""Score against parameters or another cost: a line for each method, and the frontier that no configuration beats.

Points stand at their true cost: means, with 95 % t intervals over seeds as bars and seeds as ticks. Filled, and joined
by the pale staircase: no other mean is as high at as little cost. A run at chance is a cross on the lower edge.

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

from tensoradapt.checks import is_number
from tensoradapt.errors import TensorAdaptError, did_you_mean
from tensoradapt.lab.analysis.beside import shared_seeds
from tensoradapt.lab.analysis.names import Look, display, tone
from tensoradapt.lab.analysis.names import looks as look_up
from tensoradapt.lab.analysis.plots import _parts
from tensoradapt.lab.analysis.results import COSTS
from tensoradapt.lab.analysis.tables import compare_means, summarise
from tensoradapt.text import count_text

UNITS = {  # what a number of a cost is followed by
    "n_params": "parameters",
    "n_trained": "parameters, head included",
    "adapter_bytes": "bytes",
    "peak_memory_bytes": "bytes of memory",
    "peak_device_bytes": "bytes of GPU memory",
    "step_seconds_median": "s a step",
    "seconds": "s",
}
KEPT = 0.9  # the share of a gain that a headline asks for
MOST = 8  # methods that have a colour each; of more, those that are nowhere on the frontier are grey
FEW = 6  # points whose ranks narrow axes have room for


def size(rows: pd.DataFrame, *, width: float = 7) -> tuple[float, float]:
    """Return inches of a new figure."""
    return width, 1.75 + 0.35 * width


def rows(runs: pd.DataFrame, *, x: str = "n_params") -> pd.DataFrame:
    """Return a row for each configuration, the least cost first (``summarise``), and ``cost_name``, which is x.

    Args:
        runs: of one model, and of one task in each panel.
        x: the cost, a column of numbers such as "n_params" or "seconds".

    Raises:
        TensorAdaptError: for an x that is no column of numbers above 0, and for runs without an adapter.
    """
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
    return found


def draw(
    rows: pd.DataFrame,
    ax: Axes,
    *,
    focus: str | None = None,
    baseline: tuple[str, int] | None = ("lora", 8),
    looks: Mapping[str, Look] | None = None,
    names: bool = True,
) -> Axes:
    """Draw the frontier; without ``focus`` of more than eight methods those on it and the baseline's have a colour.

    Args:
        rows: of ``rows``.
        ax: axes.
        focus: the method that is in colour, with the others in grey.
        baseline: method and rank of the axis that counts how many times fewer parameters there are; None: no such axis.
        looks: name, colour and marker of each method.
        names: whether methods are named within the axes.
    """
    adapters = rows[rows["kind"] == "adapter"]
    vivid, styles = _vivid(adapters, focus, baseline), dict(looks or look_up(rows["method"]))
    low, high = adapters["cost"].min(), adapters["cost"].max()
    room = max((high / low) ** 0.06, 1.25)
    ax.set(xlim=(low / room, high * room), ylim=_parts.score_limits(rows[rows["kind"] != "head"]))
    _parts.count_axis(ax)
    _parts.references(ax, rows[rows["kind"] != "adapter"])
    _staircase(ax, adapters[adapters["on_frontier"]])
    for method, own in adapters.groupby("method", sort=False):
        look = styles[method]
        if method not in vivid:
            _grey(ax, own)
            continue
        line: dict[str, Any] = {"color": look.colour, "lw": 1.1, "alpha": 0.7, "zorder": 2.1, "gid": "line"}
        ax.plot(own["cost"], own["mean"], look.line, label=_parts.plain(look.name), **line)
        for _, row in own.iterrows():
            _parts.point(ax, row["cost"], row, look, bool(row["on_frontier"]))
    cost = rows["cost_name"].iloc[0]
    names_of = COSTS if _parts.inches(ax) > 2.3 else UNITS
    ax.set(xlabel=names_of.get(cost, cost.replace("_", " ")), ylabel=_parts.score_name(rows))
    _parts.bare(ax)
    _parts.fit_text(ax)
    if baseline is not None and (names or _parts.inches(ax) > 2.3):
        _times_fewer(ax, adapters, *baseline)
    if names or focus is not None:
        _names(ax, adapters[adapters["method"].isin(vivid)], styles, names)
    return ax


def _is(method: str, other: str) -> bool:
    return method == other or display(method).lower() == display(other).lower()


def _vivid(adapters: pd.DataFrame, focus: str | None, baseline: tuple[str, int] | None) -> set[str]:
    """Return the methods that have a colour."""
    methods = set(adapters["method"])
    if focus is None:
        if len(methods) <= MOST:
            return methods
        return {*adapters["method"][adapters["on_frontier"]], *(m for m in methods if baseline and _is(m, baseline[0]))}
    if not (found := {method for method in methods if _is(method, focus)}):
        raise TensorAdaptError(f"focus is {focus!r}{did_you_mean(focus, sorted(methods))}")
    return found


def _grey(ax: Axes, own: pd.DataFrame) -> None:
    """Draw a method that is background: its line and means."""
    grey, low = tone(0.7), ax.get_ylim()[0]
    ax.plot(own["cost"], own["mean"], color=grey, lw=0.7, zorder=1.7, gid="line")
    for _, row in own.iterrows():
        ax.plot(row["cost"], max(row["mean"], low), ".", color=grey, ms=4, zorder=1.8, gid=_parts.said(row))


def _staircase(ax: Axes, best: pd.DataFrame) -> None:
    """Draw the frontier as a wide pale staircase under everything else, to the right end of the axes."""
    level = [*best["mean"], *best["mean"][-1:]]
    ends = [*best["cost"], ax.get_xlim()[1]][: len(level)]
    width = 3 if _parts.narrow(ax) else 4.5
    look: dict[str, Any] = {"color": tone(_parts.PALE), "lw": width, "solid_capstyle": "butt", "zorder": 1.5}
    ax.step(ends, level, where="post", gid="frontier", **look)


def _times_fewer(ax: Axes, adapters: pd.DataFrame, method: str, rank: int) -> None:
    """Add a second axis: how many times fewer than a rank of a method, or without that rank its largest size."""
    own = adapters[[_is(m, method) for m in adapters["method"]]]
    if own.empty:
        return
    at = own[own["rank"] == rank] if (own["rank"] == rank).any() else own[-1:]
    n, (low, high) = float(at["cost"].iloc[0]), ax.get_xlim()
    top = ax.secondary_xaxis("top", functions=(lambda v: n / np.maximum(v, 1e-9),) * 2)
    ticks = [t for t in (3000, 1000, 300, 100, 30, 10, 3, 1, 1 / 3, 0.1) if low <= n / t <= high]
    if len(ticks) > 2.2 * _parts.inches(ax):
        ticks = [t for t in ticks if np.log10(t) % 1 < 1e-9]
    top.set_xticks(ticks, [f"{t:,g}×" if t >= 1 else f"1/{1 / t:.0f}×" for t in ticks])
    top.tick_params(labelsize="x-small" if _parts.narrow(ax) else "small")
    top.minorticks_off()
    top.tick_params(color=tone(_parts.GREY), labelcolor=tone(_parts.GREY), pad=1)
    top.spines[:].set_color(tone(_parts.PALE))
    size = _parts.rank_text(at["rank"].iloc[0]) or f"with {_parts.short(n)}"
    words = "fewer" if UNITS.get(adapters["cost_name"].iloc[0], "").startswith("param") else "less"
    text = f"times {words} than {display(at['method'].iloc[0])} {size}"
    top.set_xlabel(_parts.plain(text), color=tone(_parts.GREY), fontsize="x-small" if _parts.narrow(ax) else "small")


def _names(ax: Axes, adapters: pd.DataFrame, styles: Mapping[str, Look], names: bool) -> None:
    """Write each method's name where its line ends, and the other ranks at their points."""
    last = adapters[adapters.groupby("method")["cost"].transform("max") == adapters["cost"]]
    last = last.drop_duplicates("method", keep="last")
    ends = len(last) > 1 and last["cost"].max() < 1.7 * last["cost"].min() and _parts.has_room(ax)
    low, narrow, labels = ax.get_ylim()[0], _parts.narrow(ax), []
    if ends and names:
        _parts.end_names(
            ax, {styles[r["method"]].name: (r["mean"], styles[r["method"]].colour) for _, r in last.iterrows()}
        )
    for i, row in (*last.iterrows(), *adapters.drop(last.index).iterrows()):
        look, named = styles[row["method"]], i in last.index and names and not ends
        rank = "" if ends or (narrow and len(adapters) > FEW) else _parts.rank_text(row["rank"])
        if text := f"{look.name} {rank}".strip() if named else rank:
            at = row["cost"], max(row["mean"], low), look.colour, "small" if named and not narrow else "x-small"
            labels.append(_parts.label(ax, fill(text, 26), *at))
    _parts.move_labels(ax, labels)


def headline(rows: pd.DataFrame) -> str:
    """Name the smallest configuration that keeps 90 % of a gain, and the smallest LoRA that does.

    The gain is that of full fine-tuning, or without it of LoRA r=8 (its largest size), over the frozen base. The
    configuration is one on the frontier that ``compare`` decides to be above the frozen base. Shares are of means:
    whether two configurations differ, ``differences`` says.
    """
    adapters, best = rows[rows["kind"] == "adapter"], rows[rows["on_frontier"]]
    if best.empty:
        return "All runs are lost: none ended above chance"
    base, goal = rows[rows["kind"] == "head"], rows[rows["kind"] == "full"]
    whose = "full fine-tuning's gain"
    if goal.empty:
        own = adapters[[_is(m, "lora") for m in adapters["method"]]]
        goal = own[own["rank"] == 8] if (own["rank"] == 8).any() else own[-1:]
        whose = f"the gain of {_name(goal.iloc[0])}" if len(goal) else ""
        whose += f" ({_cost(goal.iloc[0])})" if len(goal) and pd.isna(goal["rank"].iloc[0]) else ""
    gain = 0.0 if base.empty or goal.empty else goal["mean"].iloc[0] - base["mean"].iloc[0]
    if not gain > 0:
        ends = [
            f"{_name(row)} ({_cost(row)}, {_parts.number(row['mean'])})" for _, row in best.iloc[[0, -1]].iterrows()
        ]
        return f"The frontier of means goes from {' to '.join(dict.fromkeys(ends))}{_beside_lora(adapters)}"
    above = _above(rows, base.iloc[0])
    if not (sure := best[above[best.index]]).size:
        return "Nothing is decided: after correction no configuration on the frontier is above the frozen base"
    share = (adapters["mean"] - base["mean"].iloc[0]) / gain
    share = share.drop(goal.index, errors="ignore")  # whose gain it is keeps all of it
    sure = sure[sure.index.isin(share.index)]
    if not (share[sure.index] >= KEPT).any():
        most = f": {_kept(sure.loc[share[sure.index].idxmax()], share)}" if len(sure) else ""
        return f"No smaller size keeps 90 % of {whose}{most}"
    kept = sure[share[sure.index] >= KEPT]
    said = f"{_name(kept.iloc[0])} keeps {100 * share[kept.index[0]]:.0f} % of {whose} with {_cost(kept.iloc[0])}"
    lora = adapters.loc[share.index[share >= KEPT]]
    lora = lora[[_is(method, "lora") for method in lora["method"]]].sort_values("cost")
    beside = len(lora) and not _is(kept["method"].iloc[0], "lora")
    return f"{said}, {_kept(lora.iloc[0], share)}" if beside else said


def _kept(row: pd.Series, share: pd.Series) -> str:
    return f"{_name(row)} {100 * share[row.name]:.0f} % with {row['cost']:,.6g}"


def _beside_lora(adapters: pd.DataFrame) -> str:
    """Say how many others are decided to differ from a LoRA, as ``compare`` decides; "" without a LoRA beside others.

    It is LoRA r=8, or else its largest size.
    """
    lora = adapters[[_is(method, "lora") for method in adapters["method"]]]
    if lora.empty or len(adapters) == 1:
        return ""
    chosen = (lora[lora["rank"] == 8] if (lora["rank"] == 8).any() else lora[-1:]).iloc[0]
    has_rank = is_number(chosen["rank"])
    name = _name(chosen) if has_rank else f"{_name(chosen)} ({_cost(chosen)})"
    told = _parts.sides(compare_means(adapters, None, at=int(chosen["rank"]) if has_rank else "auto"), name)
    if told:
        return f"; {told}, decided after Holm's correction"
    return "; nothing is decided by it" if chosen["rank"] == 8 else f"; no difference from {name} is decided"


def _above(rows: pd.DataFrame, base: pd.Series) -> pd.Series:
    """Return which adapters are decided to be above the frozen base, as ``compare`` decides."""
    adapters = rows[rows["kind"] == "adapter"]
    paired = [bool(shared_seeds(row, base)) for _, row in adapters.iterrows()]
    gaps = compare_means(rows, "head").set_axis(adapters.index[paired])
    return (gaps["decided"] & (gaps["difference"] > 0)).reindex(adapters.index, fill_value=False)


def _name(row: pd.Series) -> str:
    return f"{display(row['method'])} {_parts.rank_text(row['rank'])}".strip()


def _cost(row: pd.Series) -> str:
    cost = row["cost_name"]
    return f"{row['cost']:,.6g} {UNITS.get(cost, cost.replace('_', ' '))}"


def caption(runs: pd.DataFrame, rows: pd.DataFrame) -> str:
    """Say what is drawn, and over how many seeds."""
    n = sorted(set(map(int, rows["n_seeds"])))
    seeds = count_text(n[0], "seed") if len(n) == 1 else f"{n[0]} to {n[-1]} seeds"
    means = f"Means over {seeds}" + (" with 95 % t intervals; ticks are seeds. " if n[-1] > 1 else ". ")
    lost = "Crosses are runs at chance or below the axes; means count them. " if rows["n_lost"].any() else ""
    few = rows["method"][rows["kind"] == "adapter"].nunique() <= MOST
    grey = "" if few else " Of many methods those on no part of it are grey."
    return f"{means}{lost}Filled, and joined by the grey staircase: no other mean is as high at as little cost.{grey}"
