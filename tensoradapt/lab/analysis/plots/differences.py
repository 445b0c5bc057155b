"""Forest of verdicts: every size minus one reference, the largest sizes first, with what is shown of each in words.

The green zone is what hardly matters, a loss of less than a point. Bars are 95 % intervals. Filled: shown to lose less.

>>> import pandas as pd
>>> import tensoradapt as ta
>>> runs = pd.DataFrame({"method": ["lora", "cp"] * 3, "seed": [0, 0, 1, 1, 2, 2], "n_params": [9216, 1008] * 3})
>>> runs = runs.assign(score=[0.81, 0.84, 0.83, 0.86, 0.82, 0.85], metric="accuracy")
>>> ax = ta.plots.differences(runs, reference="lora")
>>> ax.get_xlabel(), ax.get_ylabel()
('test accuracy minus LoRA, in points', '')
"""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import fill
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.markers import CARETLEFT, CARETRIGHT
from matplotlib.ticker import FuncFormatter, MaxNLocator

from tensoradapt.errors import TensorAdaptError
from tensoradapt.lab.analysis.descriptions import named
from tensoradapt.lab.analysis.names import Look, display, tone
from tensoradapt.lab.analysis.names import looks as look_up
from tensoradapt.lab.analysis.plots import _parts
from tensoradapt.lab.analysis.verdict import ALIKE, answer, fewer, verdict
from tensoradapt.text import short_count

across = 2  # panels of small multiples beside each other
NUMBER, WORDS = 8, 40  # points from the axes to the texts beside them
LETTERS = ((_parts.NARROW, 24), (2, 16), (0, 11))  # inches of axes from which a line of a name has so many letters


def size(rows: pd.DataFrame, *, width: float = 7) -> tuple[float, float]:
    """Return inches of a new figure."""
    return width, 0.8 + 0.215 * (len(rows) + 1.3 * rows["group"].nunique())


def rows(
    runs: pd.DataFrame,
    *,
    reference: str | None = None,
    at: int | str | None = None,
    margin: float | None = None,
    verdicts: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Return a row for each size (``verdict``) and its ``group`` of nearly as many parameters; the best first.

    Args:
        runs: of one model, and of one task in each panel.
        reference: method that others are compared with; None: LoRA, else the method with the most sizes.
        at: the reference's size: a rank, "budget", "size", "n_params", "auto" (``compare``); None: 8, or its largest.
        margin: loss of score that hardly matters, drawn as a zone; None: one point, or 0.01 of what is no share.
        verdicts: rows of ``verdict`` for these runs, where they are known.

    Raises:
        TensorAdaptError: where there is nothing to compare.
    """
    found = verdict(runs, reference, at, margin) if verdicts is None else verdicts.copy()
    if found.empty:
        raise TensorAdaptError(
            "there is nothing to compare: no configuration shares a seed with another one that is the reference; "
            "expected two methods or sizes, and with at= a size that the reference has"
        )
    counts = np.sort(found["n_params"].unique().astype(float))
    group = np.cumsum([0, *(counts[1:] > ALIKE * counts[:-1])])
    found["group"] = found["n_params"].astype(float).map(dict(zip(counts, -group, strict=True)))
    return found.sort_values(["group", "difference"], ascending=[True, False], ignore_index=True)


def draw(rows: pd.DataFrame, ax: Axes, *, looks: Mapping[str, Look] | None = None) -> Axes:
    """Draw the forest; the words stand beside it where the figure has room for them."""
    styles = dict(looks or look_up(rows["method"]))
    wide = not _parts.narrow(ax) and _parts.has_room(ax)
    first = rows["group"].ne(rows["group"].shift())
    rows = rows.assign(y=-np.arange(len(rows)) - 1.3 * first.cumsum())
    margin, limits = float(rows["margin"].iloc[0]), _limits(rows)
    ax.set(xlim=limits, ylim=(rows["y"].min() - 0.6, 0.1))
    ax.axvspan(max(-margin, limits[0]), 0, color=_parts.zone_colour(), lw=0, zorder=0)
    ax.axvline(0, color=tone(0), lw=0.9, zorder=0.5)
    for (_, row), header in zip(rows.iterrows(), first, strict=True):
        if header:
            _header(ax, row, rows)
        _row(ax, row, styles[row["method"]])
        _words(ax, row, wide)
    _names(ax, rows, styles, wide)
    _axis(ax, rows, wide)
    return ax


def _limits(rows: pd.DataFrame) -> tuple[float, float]:
    """Return limits of x that hold 0, the zone, all means without failed runs, and intervals as far as usual ones."""
    sound = rows[rows["outcome"] != "failed"] if (rows["outcome"] != "failed").any() else rows
    middle, margin = sound["difference"], float(rows["margin"].iloc[0])
    usual = (sound["high"] - sound["low"]).dropna().median() / 2
    reach = margin / 4 if np.isnan(usual) else min(1.3 * usual, max(2 * margin, np.ptp([0, *middle])))
    return min(-1.3 * margin, middle.min() - reach), max(0.6 * margin, middle.max() + reach)


def _header(ax: Axes, row: pd.Series, rows: pd.DataFrame) -> None:
    """Name a group: how many times fewer parameters than the reference, and about how many."""
    own, one_size = rows[rows["group"] == row["group"]], rows["reference_n_params"].nunique() == 1
    count, times = short_count(float(f"{own['n_params'].astype(float).mean():.2g}")), own["times_fewer"].mean()
    said = f"{count} parameters" if _parts.inches(ax) > 3 or not one_size else count
    said = f"{fewer(times)}: {said}" if one_size and fewer(times) != "as many" else said
    look: dict[str, Any] = {"transform": ax.get_yaxis_transform(), "va": "center", "fontsize": "small"}
    ax.text(0.01, row["y"] + 1.05, said, fontweight="bold", zorder=4, path_effects=_parts.halo(), **look)


def _row(ax: Axes, row: pd.Series, look: Look) -> None:
    """Draw one difference; a bar that is cut at the edge has an arrow there, as has a size whose runs failed."""
    (low, high), y = ax.get_xlim(), row["y"]
    mark: dict[str, Any] = {"color": look.colour, "ms": 5.5, "mew": 1.1, "zorder": 3}
    if row["outcome"] == "failed":
        ax.plot(max(row["difference"], low), y, marker=CARETLEFT, gid=f"mean: {row['sentence']}", **mark)
        return
    if np.isfinite(row["low"]):
        bar: dict[str, Any] = {"color": tone(0.7, look.colour), "lw": 2.2, "solid_capstyle": "butt", "zorder": 2}
        ax.plot(np.clip([row["low"], row["high"]], low, high), [y, y], gid="bar", **bar)
        for out, at, marker in ((row["low"] < low, low, CARETLEFT), (row["high"] > high, high, CARETRIGHT)):
            if out:
                ax.plot(at, y, marker=marker, color=look.colour, ms=7, mew=0, zorder=2.5, gid="cut")
    face = look.colour if row["outcome"] == "kept" else tone(1)
    ax.plot(row["difference"], y, look.marker, mfc=face, gid=f"mean: {row['sentence']}", **mark)


def _words(ax: Axes, row: pd.Series, wide: bool) -> None:
    """Write the difference beside the axes, and where there is room the verdict; a failure in the row itself."""
    look: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "va": "center"}
    look |= {"fontsize": "small" if wide else "x-small", "color": _parts.tone_of(row["outcome"])}
    look |= {"fontweight": "bold" if row["outcome"] == "kept" else "normal"}
    if wide or (row["outcome"] != "failed" and _parts.inches(ax) > 2):
        ax.annotate(_difference(row), (1, row["y"]), (NUMBER - 4 * (not wide), 0), **look)
    if wide:
        ax.annotate(row["verdict"], (1, row["y"]), (WORDS + 12 * np.isnan(row["points"]), 0), **look)
    elif row["outcome"] == "failed":
        ax.annotate(row["verdict"], (0, row["y"]), (8, 0), path_effects=_parts.halo(), **look)


def _difference(row: pd.Series) -> str:
    scale = 1.0 if np.isnan(row["points"]) else row["points"]
    return _parts.signed(scale * row["difference"], 3 if np.isnan(row["points"]) else 1)


def _names(ax: Axes, rows: pd.DataFrame, styles: Mapping[str, Look], wide: bool) -> None:
    """Name methods in their colours, in at most two lines, and sizes where a method has two of a group."""
    most, labels = next(letters for inches, letters in LETTERS if _parts.inches(ax) >= inches), []
    for _, row in rows.iterrows():
        twice = ((rows["method"] == row["method"]) & (rows["group"] == row["group"])).sum() > 1
        sized = twice or row["method"] == row["reference"]
        name = named(row) if sized else display(row["method"])
        name += f", {row['steps']:,} steps" if rows["steps"].nunique() > 1 else ""
        words = [word if len(word) <= most else f"{word[: most - 1]}…" for word in name.split()]
        lines = fill(" ".join(words), most, break_long_words=False, break_on_hyphens=False).split("\n")
        labels.append(_parts.plain("\n".join(lines if len(lines) < 3 else [f"{lines[0]} …", lines[-1]])))
    ax.set_yticks(rows["y"], labels, fontsize="small" if wide else "x-small", linespacing=0.9)
    for text, method in zip(ax.get_yticklabels(), rows["method"], strict=True):
        text.set_color(tone(0.72, styles[method].colour, ink=True))
        if "\n" in text.get_text():
            text.set_fontsize("xx-small")
    ax.tick_params(axis="y", length=0)


def _axis(ax: Axes, rows: pd.DataFrame, wide: bool) -> None:
    """Count x in points of a share, and name it in lines that fit the axes."""
    points = rows["points"].iloc[0]
    scale = 1.0 if np.isnan(points) else points
    ax.xaxis.set_major_locator(MaxNLocator(5 if wide else 3, steps=[1, 2, 5, 10]))
    ax.xaxis.set_major_formatter(
        FuncFormatter(lambda value, _: f"{scale * value:+.3g}".replace("+0", "0", 1).replace("-", "−"))
    )
    text = f"{_parts.score_name(rows)} minus {_against(rows)}{'' if np.isnan(points) else ', in points'}"
    ax.set_xlabel(_parts.score_name(rows))  # the rest has lines as wide as axes, which are laid out first
    _parts.bare(ax, "top", "right", "left")
    _parts.fit_text(ax)
    _parts.figure_of(ax).draw_without_rendering()
    ax.set_xlabel(_parts.wrapped(_parts.figure_of(ax), text, _parts.inches(ax), ax.xaxis.label.get_fontsize()))


def _against(rows: pd.DataFrame) -> str:
    """Return what all rows are compared with."""
    if rows["reference_n_params"].nunique(dropna=False) == 1:
        return named({"method": rows["reference"].iloc[0], "rank": rows["reference_rank"].iloc[0]})
    return f"{display(rows['reference'].iloc[0])} of the same size"


headline = answer  # the fewest parameters that are shown to lose less than the margin, or that none is


def caption(runs: pd.DataFrame, rows: pd.DataFrame) -> str:
    """Say what the bars, marks and words are of."""
    over = " or ".join(dict.fromkeys(rows["over"]))
    margin = next(iter(rows["verdict"][rows["outcome"] == "kept"]), "").removesuffix(" lost") or "less than the margin"
    n = len(rows)
    corrected = f" after Holm's correction over the {n} sizes" if n > 1 else ""
    return f"Bars: 95 % intervals, paired over {over}. Filled: shown to lose {margin}. Words: p < 0.05{corrected}."
