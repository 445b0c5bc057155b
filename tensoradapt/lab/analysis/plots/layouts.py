"""Heat map of layouts: parameterizations over layouts at each size, as differences to one of them.

Colour is the difference; the reference has a frame; bold differs measurably after Holm's correction over the map.

>>> import tensoradapt as ta
>>> import itertools
>>> import pandas as pd
>>> layouts = ("layer proj : out : in", "layer : proj out : in")
>>> rows = itertools.product(("cp", "tucker"), layouts, (0, 1, 2))
>>> runs = pd.DataFrame(rows, columns=["method", "layout", "seed"]).assign(rank=4, n_params=1008)
>>> runs["parameterization"] = runs["method"]
>>> runs["score"] = 0.8 + 0.02 * (runs["method"] == "cp") + 0.01 * runs["seed"]
>>> ax = ta.plots.layouts(runs)
>>> len(ax.images) + len(ax.collections)
1
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm, to_rgba
from matplotlib.patches import Rectangle

from tensoradapt.errors import TensorAdaptError
from tensoradapt.lab.analysis.comparisons import compare, methods_of, reference_of
from tensoradapt.lab.analysis.names import display, tone
from tensoradapt.lab.analysis.plots import _parts
from tensoradapt.lab.analysis.tables import summarise
from tensoradapt.planning.size import Size

GAPS = {"difference": "difference", "low": "difference_low", "high": "difference_high", "p_holm": "p_holm"}
KEYS = ["method", "layout", "size", "n_params"]
across = 1  # panels of small multiples beside each other
Column = tuple[float, bool, str, str]  # size as a number, whether not LoRA, parameterization, size as text


def size(rows: pd.DataFrame, *, width: float | None = None) -> tuple[float, float]:
    """Return inches of a new figure."""
    return width or 2 + 0.5 * len(_columns(rows)), 1.35 + 0.32 * rows["layout"].nunique()


def rows(runs: pd.DataFrame, *, reference: str | None = None) -> pd.DataFrame:
    """Return a row for each parameterization over each layout at each size, with its difference to a reference there.

    Differences are those of ``tables.compare`` to the reference (None: as there) of the same size; the columns are
    those of means, ``difference``, ``difference_low``, ``difference_high``, ``p_holm``, ``decided``, ``size`` and
    ``reference``, whether a row is the reference.

    Args:
        runs: of one task and model.
        reference: method that others of its size are compared with, or a parameterization, of which each layout has its
            own; None: LoRA, else the method with the most sizes.

    Raises:
        TensorAdaptError: unless a parameterization ran over two layouts at one size.
    """
    means = _sized(summarise(runs)).dropna(subset=["parameterization", "layout"])
    if means.empty or means.groupby(["parameterization", "size"])["layout"].nunique().max() < 2:
        raise TensorAdaptError(
            "no parameterization ran over two layouts at one size; expected that of one at least, as of a sweep with "
            "several layouts"
        )
    chosen = reference_of(means, reference)
    gaps = _sized(compare(runs, chosen, "size"))[[*KEYS, *GAPS, "decided"]]
    found = means.merge(gaps.rename(columns=GAPS), "left", KEYS)
    is_reference = means["method"].isin(methods_of(means, chosen)).to_numpy()
    return found.assign(decided=found["decided"].eq(True).fillna(False).astype(bool), reference=is_reference)


def _sized(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(size=[Size.of(row).short for _, row in rows.iterrows()])


def _columns(rows: pd.DataFrame) -> list[Column]:
    """Return what stands beside each other: parameterizations of each size, LoRA first."""
    return sorted({_column(row) for _, row in rows.iterrows()})


def _column(row: pd.Series) -> Column:
    number = row["budget"] if pd.notna(row["budget"]) else row["rank"]
    number = float(number) if isinstance(number, int | float | np.integer) else 0.0
    return number, row["parameterization"] != "lora", row["parameterization"], row["size"]


def draw(rows: pd.DataFrame, ax: Axes) -> Axes:
    """Draw the map; narrow cells have no numbers, and a dot where a difference is measurable."""
    layouts = sorted(rows["layout"].unique(), key=lambda text: (len(text.split(":")[0].split()), text))
    columns = _columns(rows)
    at = [(layouts.index(row["layout"]), columns.index(_column(row))) for _, row in rows.iterrows()]
    grid = np.full((len(layouts), len(columns)), np.nan)
    grid[tuple(zip(*at, strict=True))] = rows["difference"].where(~rows["reference"], 0.0)
    most = max(float(np.nanmax(np.abs(grid), initial=0)), 1e-9)
    norm = TwoSlopeNorm(0, -1.7 * most, 1.7 * most)
    mesh = ax.pcolormesh(grid, cmap="PuOr", norm=norm, edgecolors=tone(1), linewidth=2)
    ax.invert_yaxis()
    _axes(ax, layouts, columns)
    _parts.figure_of(ax).draw_without_rendering()
    cell = _parts.inches(ax) / len(columns)
    if cell < 0.28:
        ax.tick_params(axis="x", rotation=90)
        for text in ax.get_xticklabels():
            text.set(ha="right", va="center")
    for (_, row), (y, x) in zip(rows.iterrows(), at, strict=True):
        face = to_rgba(tone(0.93)) if np.isnan(grid[y, x]) else mesh.get_cmap()(norm(grid[y, x]))
        light = np.dot(face[:3], (0.3, 0.59, 0.11)) > 0.5
        _cell(ax, row, x, y, cell, "black" if light else "white")
    return ax


def _cell(ax: Axes, row: pd.Series, x: int, y: int, inches: float, colour: str) -> None:
    """Write a mean and its difference into a cell, as far as there is room, and frame the reference."""
    below = f"\n{_parts.signed(row['difference'])}" if np.isfinite(row["difference"]) and not row["reference"] else ""
    text = f"{_parts.number(row['mean'])}{below}" if inches > 0.4 else "•" * bool(row["decided"])
    weight = "bold" if row["decided"] else "normal"
    small = "x-small" if inches > 0.48 else "xx-small"
    look: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": small, "color": colour}
    ax.text(x + 0.5, y + 0.5, text, weight=weight, linespacing=1.1, gid=_parts.said(row), **look)
    if row["reference"]:
        frame = Rectangle((x + 0.03, y + 0.04), 0.94, 0.92, fill=False, lw=1.2, ec=tone(0), zorder=3)
        ax.add_patch(frame)


def _axes(ax: Axes, layouts: list[str], columns: list[Column]) -> None:
    """Name rows, columns, and above them the sizes."""
    tiny = _parts.inches(ax) < 2
    small = "xx-small" if tiny else "x-small" if _parts.narrow(ax) else "small"
    family: dict[str, Any] = {} if tiny else {"family": "monospace"}
    ax.set_yticks(np.arange(len(layouts)) + 0.5, [_parts.plain(text) for text in layouts], fontsize=small, **family)
    names = [_parts.plain(display(name)) for *_, name, _ in columns]
    turned: dict[str, Any] = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"}
    ax.set_xticks(np.arange(len(columns)) + 0.5, names, fontsize=small, **turned)
    sizes = dict.fromkeys((number, text) for number, _, _, text in columns)
    for number, text in sizes:
        own = [i for i, column in enumerate(columns) if (column[0], column[3]) == (number, text)]
        look: dict[str, Any] = {"ha": "center", "va": "bottom", "fontsize": small, "color": tone(_parts.GREY)}
        ax.text(float(np.mean(own)) + 0.5, -0.1, text.removeprefix("≤ ") if tiny else text, **look)
        if own[0]:
            ax.axvline(own[0], color=tone(1), lw=6)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)


def headline(rows: pd.DataFrame) -> str:
    """Say how many layouts are shown to be above or below the reference, and name the best of those above."""
    against = _against(rows)
    sure, n = rows[rows["decided"]], int(rows["difference"].notna().sum())
    if sure.empty:
        return f"None of {n} layouts and sizes differs measurably from {against}"
    above = sure[sure["difference"] > 0]
    said = f"{len(above)} of {n} are shown to be above {against} and {len(sure) - len(above)} below"
    if above.empty:
        return said
    best = above.loc[above["difference"].idxmax()]
    return f"{said}; the most is {display(best['parameterization'])} over {best['layout']}"


def _against(rows: pd.DataFrame) -> str:
    """Return the name of the reference: a method, or the parameterization of several."""
    own = rows[rows["reference"]]
    names = own["method" if own["method"].nunique() == 1 else "parameterization"]
    return display(names.iloc[0]) if len(own) else "the reference"


def caption(runs: pd.DataFrame, rows: pd.DataFrame) -> str:
    """Say what cells, colours and bold numbers are."""
    n, decided = int(rows["difference"].notna().sum()), int(rows["decided"].sum())
    whole = "size" if rows["layout"][rows["reference"]].nunique() < 2 else "size and layout"
    return (
        f"Means over {rows['n_seeds'].max()} seeds, and differences to {_against(rows)} (framed) of the same {whole}, "
        f"paired over seeds. Bold: p < 0.05 after Holm's correction over the {n}, which is so for {decided}."
    )
