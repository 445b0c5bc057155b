"""Forest of differences: every size of each method minus a reference, with intervals, a margin and Holm's p.

Thick bars are 95 % intervals, thin ones hold for all rows at once (Bonferroni). Filled: decided after Holm's
correction over all rows. Grey: the margin on both sides of no difference.

>>> import pandas as pd
>>> import tensoradapt as ta
>>> runs = pd.DataFrame({"method": ["lora", "cp"] * 3, "seed": [0, 0, 1, 1, 2, 2], "n_params": [9216, 1008] * 3})
>>> runs["score"] = [0.81, 0.84, 0.83, 0.86, 0.82, 0.85]
>>> ax = ta.plots.differences(runs, reference="lora")
>>> ax.get_xlabel(), ax.get_ylabel()
('test score minus LoRA', '')
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.markers import CARETLEFT, CARETRIGHT
from scipy.special import stdtrit

from tensoradapt.errors import TensorAdaptError
from tensoradapt.lab.analysis.names import Look, display, tone
from tensoradapt.lab.analysis.names import looks as look_up
from tensoradapt.lab.analysis.plots import _parts
from tensoradapt.lab.analysis.tables import compare

across = 2  # panels of small multiples beside each other
COLUMNS = (("difference, 95 %", 8), ("p, Holm", 112))  # texts right of wide axes, points from the edge


def size(rows: pd.DataFrame, *, width: float = 7) -> tuple[float, float]:
    """Return inches of a new figure."""
    lines = len(rows) + _tall(rows, width > 4.5) * rows["method"].nunique()
    return width, 0.95 + (0.19 if width > 4.5 else 0.165) * lines


def rows(
    runs: pd.DataFrame, *, reference: str | None = None, at: int | str = "auto", margin: float = 0.01
) -> pd.DataFrame:
    """Return a row for each comparison (``tables.compare``), methods together, the smallest size first.

    Args:
        runs: of one model, and of one task in each panel.
        reference: method that others are compared with; None: LoRA, else the method with the most sizes.
        at: the reference's size: a rank, "budget", "size", "n_params" or "auto" (``compare``).
        margin: loss of score that does not matter, drawn as a band.

    Raises:
        TensorAdaptError: where there is nothing to compare.
    """
    found = compare(runs, reference, at, margin)
    if found.empty:
        raise TensorAdaptError(
            "there is nothing to compare: no configuration shares a seed with another one that is the reference; "
            "expected two methods or sizes, and with at= a size that the reference has"
        )
    names = found["method"].map(lambda name: display(name).lower())
    found.attrs["compared"] = int(found["p"].notna().sum())  # whoever draws some rows alone
    return (
        found.assign(name=names, at=at)
        .sort_values(["name", "n_params", "steps"], ignore_index=True)
        .drop(columns="name")
    )


def draw(rows: pd.DataFrame, ax: Axes, *, looks: Mapping[str, Look] | None = None) -> Axes:
    """Draw the forest; numbers stand beside it where the figure has room for them, long names above their rows."""
    styles = dict(looks or look_up(rows["method"]))
    wide = not _parts.narrow(ax) and _parts.has_room(ax)
    tall, first = _tall(rows, wide), rows["method"].ne(rows["method"].shift())
    rows = rows.assign(y=-np.arange(len(rows)) - (first.cumsum() if tall else 0), first=first)
    margin, limits = float(rows["margin"].iloc[0]), _limits(rows)
    ax.set(xlim=limits, ylim=(rows["y"].min() - 0.6, 1.3))
    ax.axvspan(max(-margin, limits[0]), min(margin, limits[1]), color=tone(_parts.GREY), alpha=0.12, lw=0, zorder=0)
    ax.axvline(0, color=tone(_parts.GREY), lw=0.8, zorder=0.5)
    for _, row in rows.iterrows():
        _row(ax, row, styles[row["method"]], rows.attrs.get("compared", int(rows["p"].notna().sum())))
    _labels(ax, rows, styles, wide, tall)
    if wide:
        _numbers(ax, rows)
    _directions(ax)
    ax.set_xlabel(f"{_parts.score_name(rows)} minus")  # the rest has lines as wide as axes, which are laid out first
    ax.locator_params(axis="x", nbins=5 if wide else 3)
    _parts.bare(ax, "top", "right", "left")
    _parts.fit_text(ax)
    _parts.figure_of(ax).draw_without_rendering()
    text = f"{_parts.score_name(rows)} minus {_against(rows)}"
    size = ax.xaxis.label.get_fontsize()
    ax.set_xlabel(_parts.wrapped(_parts.figure_of(ax), text, _parts.inches(ax), size))
    return ax


def _tall(rows: pd.DataFrame, wide: bool) -> bool:
    """Say whether names are so long that they stand above the rows of their methods."""
    return max(len(display(method)) for method in rows["method"]) > (22 if wide else 13)


def _labels(ax: Axes, rows: pd.DataFrame, styles: Mapping[str, Look], wide: bool, tall: bool) -> None:
    """Name methods and sizes in their colours, and part methods by lines."""
    size = "small" if wide else "x-small"
    colours = [tone(0.72, styles[method].colour, ink=True) for method in rows["method"]]
    short = _parts.inches(ax) < 2
    labels = [_label(row, row["first"] and not tall, short) for _, row in rows.iterrows()]
    if rows["steps"].nunique() > 1:
        labels = [f"{label}, {steps:,} steps" for label, steps in zip(labels, rows["steps"], strict=True)]
    ax.set_yticks(rows["y"], labels, fontsize=size)
    for text, colour in zip(ax.get_yticklabels(), colours, strict=True):
        text.set_color(colour)
    for y, method, colour in zip(rows["y"], rows["method"], colours, strict=True):
        if method == rows["method"].iloc[0] and not tall:
            continue
        if rows["first"][rows["y"] == y].all():
            ax.axhline(y + 0.5 + tall, color=tone(0.87), lw=0.6, zorder=0)
            if tall:
                name = _parts.plain(display(method))
                ax.text(
                    0.005, y + 1, name, transform=ax.get_yaxis_transform(), va="center", color=colour, fontsize=size
                )
    ax.tick_params(axis="y", length=0)


def _limits(rows: pd.DataFrame) -> tuple[float, float]:
    """Return limits of x that hold all means, 0, and of intervals as much as the usual one needs."""
    middle, widths = rows["difference"], (rows["high"] - rows["low"]).dropna()
    usual = 1.5 * float(widths.median()) if len(widths) else 0.0
    reach = max(0.35 * np.ptp([0, *middle]), min(usual, 1.5 * np.ptp([0, *middle])), 1.2 * rows["margin"].iloc[0])
    return min(0, middle.min()) - reach, max(0, middle.max()) + reach


def _row(ax: Axes, row: pd.Series, look: Look, n: int) -> None:
    """Draw one difference; an interval that is cut at the edge has an arrow there."""
    (low, high), y = ax.get_xlim(), row["y"]
    if np.isfinite(row["low"]):
        for (start, end), width in ((_at_once(row, n), 0.7), ((row["low"], row["high"]), 2.2)):
            bar: dict[str, Any] = {"color": look.colour, "lw": width, "solid_capstyle": "butt", "zorder": 2}
            ax.plot(np.clip([start, end], low, high), [y, y], gid="bar", **bar)
        for out, at, marker in ((row["low"] < low, low, CARETLEFT), (row["high"] > high, high, CARETRIGHT)):
            if out:
                ax.plot(at, y, marker=marker, color=look.colour, ms=7, mew=0, zorder=2.5, gid="cut")
    mark: dict[str, Any] = {
        "color": look.colour,
        "mec": look.colour,
        "mfc": look.colour if row["decided"] else tone(1),
        "ms": 5,
        "mew": 1,
    }
    gid = f"mean: {display(row['method'])} {_size(row)}: {row['difference']:+.4f}, Holm's p {_p(row['p_holm'])}"
    ax.plot(row["difference"], y, look.marker, zorder=3, gid=gid, **mark)


def _at_once(row: pd.Series, n: int) -> tuple[float, float]:
    """Return the interval of a row that holds for all n at once, of the degrees of freedom that seeds have."""
    freedom = row["n_seeds"] - 1 if row["n_seeds"] > 1 else np.inf
    longer = stdtrit(freedom, 1 - 0.025 / n) / stdtrit(freedom, 0.975)
    low, high = (row["difference"] + longer * (row[end] - row["difference"]) for end in ("low", "high"))
    return float(low), float(high)


def _numbers(ax: Axes, rows: pd.DataFrame) -> None:
    """Write differences with intervals and Holm's p right of the axes, in bold where decided."""
    look: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "va": "center"}
    look |= {"fontsize": "x-small"}
    for y, (_, row) in zip(rows["y"], rows.iterrows(), strict=True):
        interval = f"{_parts.signed(row['low'])} to {_parts.signed(row['high'])}"
        text = f"{_parts.signed(row['difference'])}  {interval if np.isfinite(row['low']) else 'one seed'}"
        weight = "bold" if row["decided"] else "normal"
        ax.annotate(text, (1, y), (COLUMNS[0][1], 0), **look)
        ax.annotate(_p(row["p_holm"]) + " ≈" * bool(row["within"]), (1, y), (COLUMNS[1][1], 0), weight=weight, **look)
    for text, at in COLUMNS:
        ax.annotate(text, (1, 0.8), (at, 0), color=tone(_parts.GREY), **look)


def _directions(ax: Axes) -> None:
    """Write what the ends of the axis mean, above the rows."""
    look: dict[str, Any] = {"transform": ax.get_yaxis_transform(), "va": "center", "color": tone(_parts.GREY)}
    look |= {"fontsize": "x-small" if _parts.narrow(ax) else "small"}
    small = _parts.inches(ax) < 2
    ax.text(0.005, 0.8, "worse" if small else r"$\leftarrow$ worse", ha="left", **look)
    ax.text(0.995, 0.8, "better" if small else r"better $\rightarrow$", ha="right", **look)


def _label(row: pd.Series, first: bool, short: bool) -> str:
    size = _size(row).partition(",")[0] if short else _size(row)
    return _parts.plain(f"{display(row['method'])}  {size}".strip() if first else size)


def _size(row: pd.Series) -> str:
    """Return the size of a row, and how many times fewer parameters that is than the reference's."""
    if row["at"] == "budget" or (row["at"] == "auto" and pd.notna(row["budget"])):
        return f"≤ {_parts.short(row['budget'])}"
    size = _parts.rank_text(row["rank"]) or _parts.short(row["n_params"])
    n = row["times_fewer"]
    if row["at"] in ("n_params", "size") or not 0 < n < np.inf or row["kind"] != "adapter":
        return size
    if 0.95 < n < 1.05:
        return f"{size}, as many"
    times = n if n > 1 else 1 / n
    return f"{size}, {times:,.{0 if times >= 9.95 or times % 1 < 0.05 else 1}f}× {'fewer' if n > 1 else 'more'}"


def _p(value: float) -> str:
    return "–" if not np.isfinite(value) else "<0.001" if value < 0.001 else f"{value:.3f}"


def _against(rows: pd.DataFrame) -> str:
    """Return what all rows are compared with."""
    name, ranks = display(rows["reference"].iloc[0]), rows["reference_rank"]
    if rows["reference_n_params"].nunique(dropna=False) == 1:
        return f"{name} {_parts.rank_text(ranks.iloc[0])}".strip()
    alike = {"n_params": "of as many parameters", "size": "of the same size"}
    return f"{name} {alike.get(rows['at'].iloc[0], 'at equal budget' if rows['budget'].notna().all() else 'beside')}"


def headline(rows: pd.DataFrame) -> str:
    """Say what is decided after Holm's correction: how many are below and above the reference, and which is within.

    Of the configurations that are decided to lose less than the margin, the one with the fewest parameters is named.
    """
    n, against = len(rows), _against(rows)
    if n == 1:
        return _alone(rows.iloc[0], against)
    near = rows[rows["within"]].sort_values("n_params")
    if told := _parts.sides(rows, against):
        said = f"{told}, decided after Holm's correction"
    else:
        begin = "Nothing is decided: none" if near.empty else "None"
        said = f"{begin} of {n} differs from {against} after Holm's correction"
    if near.empty:
        return said
    first = near.iloc[0]
    return f"{said}; {display(first['method'])} {_size(first)}, loses less than {first['margin']:g}, which is decided"


def _alone(row: pd.Series, against: str) -> str:
    """Say what is decided of one configuration, whose p there is nothing to correct for."""
    side = ("above" if row["difference"] > 0 else "below") if row["decided"] else "not told apart from"
    said = f"{display(row['method'])} {_size(row)}, is {side} {against}{', which is decided' if row['decided'] else ''}"
    return f"{said}; that it loses less than {row['margin']:g} is decided" if row["within"] else said


def caption(runs: pd.DataFrame, rows: pd.DataFrame) -> str:
    """Say what the bars, marks and p values are of."""
    n, decided, within = len(rows), int(rows["decided"].sum()), int(rows["within"].sum())
    over = " or ".join(dict.fromkeys(rows["over"]))
    less = f"{f'{within} (≈)' if within else 'none'} {'is' if within < 2 else 'are'}"
    if n == 1:
        holds, told = "holds" if decided else "does not hold", "decided" if within else "not decided"
        return (
            f"The difference is paired over {over}, with its 95 % interval. Filled: p < 0.05, which {holds}. "
            f"Grey: {rows['margin'].iloc[0]:g} on both sides; that it loses less is {told}."
        )
    return (
        f"Differences paired over {over}. Thick: 95 % intervals; thin: 95 % for all {n} at once (Bonferroni). "
        f"Filled: p < 0.05 after Holm's correction over the {n}, which is so for {decided}. "
        f"Grey: {rows['margin'].iloc[0]:g} on both sides; {less} decided to lose less."
    )
