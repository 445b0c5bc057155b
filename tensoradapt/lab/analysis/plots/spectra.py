"""Singular values of the modes of an adapter's update, or cosines between its slices along a mode.

>>> import numpy as np
>>> import tensoradapt as ta
>>> ax = ta.plots.spectra(np.random.default_rng(0).normal(size=(4, 6, 8)), names=("layer", "out", "in"))
>>> ax.get_xlabel(), ax.get_ylabel()
('index / size of the mode', 'singular value / largest')
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator

from tensoradapt.errors import TensorAdaptError
from tensoradapt.lab.analysis.names import COLOURS, MARKERS, ink, tone
from tensoradapt.lab.analysis.plots._parts import GREY, bare, end_names, figure_of, inches, narrow
from tensoradapt.lab.analysis.statistics.spectra import Spectra, check_mode, similarity
from tensoradapt.lab.analysis.statistics.spectra import spectra as spectra_of
from tensoradapt.planning.build_plan import plan

LAYOUT = "layer proj : head dim : model"
LINES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
LEAST = 1e-3  # the least share of the largest singular value that is drawn: the squares of all below hardly count
ENERGIES = (0.9, 0.99)
COSINES = "YlGnBu_r"  # from dark blue to pale yellow; black is read on its middle, where most cosines are
NUMBERS, TICKS = 8, 16  # slices up to which cosines are written into their cells, and each is named
WIDTH, SMALLEST = 3.1, 4.0  # sizes of its type that a cell is wide, and the smallest type (points)


def rows(
    adapter: Any,
    *,
    names: Sequence[str] | None = None,
    layout: str = LAYOUT,
    cosines: str | None = None,
) -> pd.DataFrame:
    """Return a row for each singular value of each mode, or with ``cosines`` for each pair of slices of that mode.

    Columns: mode, size, index (from 1), singular_value, energy (share of the squared norm up to here), effective_rank,
    rank_90, rank_99 and noise_rank of the mode; of cosines: mode, first, second, cosine. A share is without unit, a
    singular value has that of the update.

    Args:
        adapter: an adapter, an array (n_1, ..., n_d) with ``names``, or ``Spectra``.
        names: of the modes of an array.
        layout: the modes in which an adapter's updates are stacked.
        cosines: a mode, for the cosines of its slices.

    Raises:
        TensorAdaptError: for an array without names, matrices of an adapter that make no one stack, and an
            unknown mode.
    """
    if isinstance(adapter, Spectra):
        if cosines is not None:
            raise TensorAdaptError("Spectra have no slices to compare; give the adapter or its array for cosines=")
        return _values(adapter)
    array, modes = _stack(adapter, names, layout)
    if cosines is None:
        return _values(spectra_of(array, modes))
    check_mode(cosines, modes)
    return _pairs(similarity(array, modes, cosines), cosines)


def _stack(adapter: Any, names: Sequence[str] | None, layout: str) -> tuple[Any, Sequence[str]]:
    """Return an update as one array with names of its modes."""
    if not hasattr(adapter, "plan"):
        if names is None:
            raise TensorAdaptError(
                f"a {type(adapter).__name__} has no names of modes; expected an adapter, or an array with names=, "
                'such as names=("layer", "out", "in")'
            )
        return adapter, names
    import torch

    from tensoradapt.layers.stored_matrix import stack

    groups = plan(adapter.plan.sites, layout=layout, method="dense").groups
    if len(groups) > 1:
        raise TensorAdaptError(
            f"the adapter's matrices make {len(groups)} stacks over {layout!r}, as their shapes differ; expected one: "
            "stack those of one shape yourself and give the array with names="
        )
    whole = stack(groups[0], adapter.delta)
    kind = torch.promote_types(adapter.delta(adapter.plan.sites[0]).dtype, torch.float32)  # whose rounding is no signal
    return whole.to(kind).numpy(), groups[0].network.layout.names


def _values(found: Spectra) -> pd.DataFrame:
    ninety, most = (found.rank_for(energy) for energy in ENERGIES)
    effective = found.effective_rank
    return pd.DataFrame(
        {"mode": mode, "size": size, "index": i, "singular_value": value, "energy": energy}
        | {"effective_rank": effective[mode], "rank_90": ninety[mode], "rank_99": most[mode]}
        | {"noise_rank": found.noise_rank[mode]}
        for mode, size in found.shape.items()
        for i, (value, energy) in enumerate(zip(found.values[mode], found.energy[mode], strict=True), 1)
    )


def _pairs(matrix: Any, mode: str) -> pd.DataFrame:
    pairs = np.ndenumerate(matrix)
    return pd.DataFrame({"mode": mode, "first": i, "second": j, "cosine": cosine} for (i, j), cosine in pairs)


def draw(rows: pd.DataFrame, ax: Axes) -> Axes:
    """Draw singular values over the largest of their mode, log, against index / size; or a square of cosines.

    The large hollow marker is the rank for 90 % of the energy, the small filled one that for 99 %; pale: values within
    the estimated noise. Values below 0.001 of the largest are off the axes. Cosines go from -1, dark, to 1, light, in
    print too; of up to 8 slices the numbers are written in.
    """
    return _draw_cosines(rows, ax) if "cosine" in rows else _draw_values(rows, ax)


def _draw_values(rows: pd.DataFrame, ax: Axes) -> Axes:
    modes = dict(list(rows.groupby("mode", sort=False)))
    some = {mode: own for mode, own in modes.items() if own["singular_value"].iloc[0] > 0}
    shares = [own["singular_value"] / own["singular_value"].iloc[0] for own in some.values()]
    lowest = min((share[share > 0].min() for share in shares), default=LEAST)
    ax.set(yscale="log", ylim=(max(lowest, LEAST) / 1.6, 1.6), xlim=(0, 1.03))
    ax.set(xlabel="index / size of the mode", ylabel="singular value / largest")
    ax.yaxis.set_major_locator(LogLocator(numticks=9))
    ax.yaxis.set_minor_locator(NullLocator())
    bare(ax)
    ends = {}
    for i, (mode, own) in enumerate(modes.items()):
        if mode in some:
            ends[f"{mode}: {_needed(own.iloc[0])}"] = _draw_mode(ax, own, i), _style(i)["color"]
    if not some:
        ax.text(0.5, 0.5, "every entry is zero", transform=ax.transAxes, color=tone(GREY), ha="center", va="bottom")
        return ax
    _marks(ax)
    end_names(ax, ends)
    return ax


def _needed(row: pd.Series) -> str:
    """Say how many of a mode's directions keep 90 % of the update.

    >>> _needed(pd.Series({"rank_90": 71, "size": 384})), _needed(pd.Series({"rank_90": 4, "size": 4}))
    ('71 of 384', 'all 4')
    """
    return f"all {row['size']:,}" if row["rank_90"] == row["size"] else f"{row['rank_90']:,} of {row['size']:,}"


def _draw_mode(ax: Axes, own: pd.DataFrame, i: int) -> float:
    """Draw the line of one mode, pale from where noise begins, and its two ranks; return where it ends."""
    value, above = own["singular_value"].to_numpy(), int(own["noise_rank"].iloc[0])
    x, y = own["index"].to_numpy() / own["size"].iloc[0], np.where(value > 0, value / value[0], np.nan)
    style = {**_style(i), "lw": 1.4}
    ax.plot(x[max(above - 1, 0) :], y[max(above - 1, 0) :], alpha=0.35, zorder=2, gid="noise", **style)
    ax.plot(x[:above], y[:above], zorder=2.2, gid="signal", **style)
    size = 3.5 if narrow(ax) else 4.5
    for energy, points, fill in zip(ENERGIES, (2 * size, size), ("none", style["color"]), strict=True):
        at = int(own[f"rank_{100 * energy:g}"].iloc[0]) - 1
        mark: dict[str, Any] = {"ms": points, "mfc": fill, "mew": 1.2, "color": style["color"], "zorder": 3}
        ax.plot(x[at], y[at], MARKERS[i % len(MARKERS)], gid=f"{energy:g}", **mark)
    return float(y[np.isfinite(y)][-1])


def _marks(ax: Axes) -> None:
    """Say what hollow and filled markers are, where lines leave room."""
    grey = tone(GREY)
    hollow = Line2D([], [], ls="", marker="s", ms=8, mfc="none", mec=grey, label="90 % of the update")
    filled = Line2D([], [], ls="", marker="s", ms=4, mfc=grey, mec=grey, label="99 %")
    noise = Line2D([], [], color=grey, lw=1.4, alpha=0.35, label="noise")
    is_seen = any(len(line.get_path()) > 1 for line in ax.lines if line.get_gid() == "noise")
    handles = [hollow, filled, *([noise] if is_seen else [])]
    look: dict[str, Any] = {"frameon": False, "labelcolor": grey, "handlelength": 1.2, "labelspacing": 0.3}
    ax.legend(handles=handles, loc="best", fontsize="x-small" if narrow(ax) else "small", **look)


def _style(i: int) -> dict[str, Any]:
    return {"color": ink(COLOURS[i % len(COLOURS)]), "ls": LINES[i % len(LINES)]}


def _draw_cosines(rows: pd.DataFrame, ax: Axes) -> Axes:
    matrix, mode = rows.pivot(index="first", columns="second", values="cosine").to_numpy(), rows["mode"].iloc[0]
    n = len(matrix)
    image = ax.imshow(matrix, cmap=COSINES, vmin=-1, vmax=1)
    ticks = range(0, n, -(-n // TICKS))
    ax.set_xticks(ticks, map(str, ticks), fontsize="small")
    ax.set_yticks(ticks, map(str, ticks), fontsize="small")
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.set(xlabel=mode, ylabel=mode)
    bar = ax.figure.colorbar(image, ax=ax, fraction=0.046, pad=0.04, ticks=[-1, 0, 1])
    bar.set_label("cosine of two slices", fontsize="small")
    bar.outline.set_visible(False)
    figure_of(ax).draw_without_rendering()  # a layout engine gives the cells their size only now
    size = min(7.0, 72 * inches(ax) / n / WIDTH)
    for (i, j), cosine in np.ndenumerate(matrix) if size >= SMALLEST and n <= NUMBERS else ():
        text = f"{round(cosine, 2) + 0.0:.2f}"  # no -0.00
        ax.text(j, i, text, color="black" if cosine > -0.2 else "white", ha="center", va="center", fontsize=size)
    return ax


def caption(adapter: Any, rows: pd.DataFrame) -> str:
    """Return what a reader needs to judge the figure."""
    if "cosine" in rows:
        return f"Cosines between the slices of the update along {rows['mode'].iloc[0]}, whatever their norms."
    return (
        "Singular values of each unfolding of the update, over the largest, against index / size of the mode. Markers "
        "and numbers: directions that keep 90 % (hollow) and 99 % (filled) of the squared norm. Pale: within the noise."
    )


def headline(rows: pd.DataFrame) -> str:
    """Return the answer in a sentence: which mode needs few directions and which all, or the most alike slices."""
    if "cosine" in rows:
        return _most_alike(rows)
    once = rows.drop_duplicates("mode")
    if not rows["singular_value"].max():
        return "Every entry of the update is zero"
    best = once.loc[(once["rank_90"] / once["size"]).idxmin()]
    if best["rank_90"] == best["size"]:
        return "Every mode uses all its directions: tying one would lose more than 10 % of the update"
    keep = "keeps" if best["rank_90"] == 1 else "keep"
    share = f"{_needed(best)} directions of {best['mode']} {keep} 90 % of the update"
    full = once["mode"][once["rank_90"] == once["size"]].tolist()
    if full:
        return f"{share}; {' and '.join(full)} {'needs' if len(full) == 1 else 'need'} all"
    return share if len(once) == 1 else f"{share}, the fewest of the {len(once)} modes"


def _most_alike(rows: pd.DataFrame) -> str:
    mode, others = rows["mode"].iloc[0], rows[rows["first"] != rows["second"]]
    if others.empty:
        return f"{mode} has one slice"
    most = others.loc[others["cosine"].abs().idxmax()]
    return f"Most related of {mode} are {most['first']} and {most['second']}, with a cosine of {most['cosine']:.2f}"


def size(rows: pd.DataFrame, *, width: float = 5.6) -> tuple[float, float]:
    """Return inches of a new figure."""
    return (min(width, 4.2), 0.8 * min(width, 4.2)) if "cosine" in rows else (width, max(2.5, 0.62 * width))
