"""Interquartile mean of each method over several tasks, and the probability that its runs beat those of a reference.

After Agarwal et al., Deep Reinforcement Learning at the Edge of the Statistical Precipice, NeurIPS 2021.

>>> import itertools
>>> import pandas as pd
>>> import tensoradapt as ta
>>> rows = itertools.product(("rte", "sst2"), ("lora", "cp"), (0, 1, 2))
>>> runs = pd.DataFrame(rows, columns=["task", "method", "seed"]).assign(n_params=1008, chance=0.5)
>>> runs["score"] = 0.8 + 0.02 * (runs["method"] == "cp") + 0.01 * runs["seed"]
>>> ax = ta.plots.aggregates(runs)
>>> ax.get_xlabel()[:29]
'interquartile mean over tasks'
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from textwrap import fill
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from tensoradapt.errors import TensorAdaptError
from tensoradapt.lab.analysis.comparisons import methods_of, reference_of, shared_seeds
from tensoradapt.lab.analysis.descriptions import listed
from tensoradapt.lab.analysis.names import Look, display, displayed, tone
from tensoradapt.lab.analysis.names import looks as looks_of
from tensoradapt.lab.analysis.plots._parts import FAINT, GREY, PALE, bare, inches, narrow, plain
from tensoradapt.lab.analysis.statistics.bootstrap import improvement, iqm, stratified_bootstrap
from tensoradapt.lab.analysis.statistics.intervals import Floats
from tensoradapt.lab.analysis.tables import summarise
from tensoradapt.planning.size import Size

SEEDS = 3  # fewer give a bootstrap nothing to draw from
LEVEL = 0.05  # of the tests of all rows together
over_tasks = True  # the figure is of all tasks at once

Key = tuple[str, str]  # method and size


def rows(runs: pd.DataFrame, *, reference: str | None = None) -> pd.DataFrame:
    """Return each method at each size over all tasks, by size, of gains (score - chance) / (perfect - chance).

    ``iqm`` with ``low`` and ``high`` is the interquartile mean over tasks and seeds with its 95 % stratified bootstrap
    interval; ``better`` with ``better_low`` and ``better_high`` the probability that a run beats one of the reference's
    at the same size (missing for the reference); ``decided``, whether that differs from a half with Bonferroni's
    correction over the figure. A method at a size that lacks a task, or three seeds on one, has no row.

    Args:
        runs: of two tasks or more.
        reference: a method in any spelling; by default LoRA, else the method with the most sizes.

    Raises:
        TensorAdaptError: for one task, an unknown reference, and where no method has three seeds on every task.
    """
    gains, ids = gains_of(runs)
    against, compared = _references(runs, gains, reference)
    found = [_row(key, gains, compared.get(key), len(compared)) | {"runs": ids[key]} for key in gains]
    table = pd.DataFrame(found).assign(reference=against)
    order = {size: i for i, size in enumerate(dict.fromkeys(size for _, size in gains))}
    table = table.sort_values("iqm", ascending=False).sort_values("size", key=lambda s: s.map(order), kind="stable")
    return table.reset_index(drop=True)


def gains_of(runs: pd.DataFrame) -> tuple[dict[Key, Floats], dict[Key, tuple[str, ...]]]:
    """Return the gains of each method at each size, (tasks, seeds), and the ids of its runs, the smallest sizes first.

    Seeds are those that it has on every task, at least three.

    Raises:
        TensorAdaptError: for one task, a task without chance, and where nothing has three seeds on every task.
    """
    means = summarise(runs)
    means = means[means["kind"] == "adapter"].sort_values(["n_params", "method"], kind="stable")
    means["size"] = [Size.of(row).short or f"{row['n_params']:,.0f}" for _, row in means.iterrows()]
    tasks = sorted(means["task"].map(str).unique())
    if len(tasks) < 2:
        raise TensorAdaptError(f"the runs are of {' '.join(tasks) or 'no task'}; expected those of two tasks or more")
    if (unknown := means["chance"].isna()).any():
        raise TensorAdaptError(
            f"task {means.loc[unknown, 'task'].iloc[0]} has no chance, the score of a constant answer; expected it of "
            "every task, in the column 'chance', as gains of tasks are measured from it"
        )
    most, largest = means["metric_high"].astype(float), means["scores"].map(max).groupby(means["task"]).transform("max")
    most = most.where(np.isfinite(most), np.where(largest > 1.5, 100.0, 1.0))  # 1, of percentages 100
    chance = means["chance"].astype(float)
    means["whole"] = (most - chance).where(chance < most)
    gains, ids = dict[Key, Floats](), dict[Key, tuple[str, ...]]()
    for key, own in means.groupby(["method", "size"], sort=False):
        rows_ = own.sort_values("task").to_dict("records")
        seeds = sorted(shared_seeds(*rows_))
        if len(own) == len(tasks) and len(seeds) >= SEEDS:
            at = [[row["seeds"].index(seed) for seed in seeds] for row in rows_]
            scores = [[row["scores"][i] for i in places] for row, places in zip(rows_, at, strict=True)]
            least, whole = ([[row[name]] for row in rows_] for name in ("chance", "whole"))
            gains[key] = (np.array(scores) - np.array(least, float)) / np.array(whole, float)
            ids[key] = tuple(row["runs"][i] for row in rows_ for i, seed in enumerate(row["seeds"]) if seed in seeds)
    if not gains:
        raise TensorAdaptError(
            f"no method has runs of three seeds at one size on each of {len(tasks)} tasks; expected one that has"
        )
    return gains, ids


def _references(runs: pd.DataFrame, gains: Mapping[Key, Any], asked: str | None) -> tuple[str | None, dict[Key, Key]]:
    """Return the method that others are compared with, None where it has no row, and of each row that of its size.

    Of a parameterization over several layouts it is the one over the row's own.
    """
    of = runs.drop_duplicates("method").set_index("method")[["parameterization", "layout"]]
    sizes = pd.DataFrame(list(gains), columns=["method", "rank"]).assign(kind="adapter").join(of, "method")
    found = reference_of(sizes if asked is None else runs[runs["kind"] == "adapter"], asked)
    methods = sorted(methods_of(sizes, found))
    compared = {}
    for method, size in [key for key in gains if key[0] not in methods]:
        others = [(other, size) for other in methods if (other, size) in gains]
        of_layout = [key for key in others if of["layout"][key[0]] == of["layout"][method]]
        if others:
            compared[method, size] = (of_layout or others)[0]
    return (found if methods else None), compared


def _row(key: Key, gains: Mapping[Key, Floats], other: Key | None, n: int) -> dict[str, Any]:
    own = gains[key]
    middle, nan = stratified_bootstrap(iqm, own), math.nan
    row: dict[str, Any] = {"method": key[0], "size": key[1], "tasks": own.shape[0], "seeds": own.shape[1]}
    row |= {"iqm": middle.mean, "low": middle.low, "high": middle.high}
    if other is None:
        return row | {"better": nan, "better_low": nan, "better_high": nan, "decided": False}
    better, wide = (
        stratified_bootstrap(improvement, own, gains[other], confidence=share) for share in (0.95, 1 - LEVEL / n)
    )
    decided = not wide.low <= 0.5 <= wide.high
    return row | {"better": better.mean, "better_low": better.low, "better_high": better.high, "decided": decided}


def draw(rows: pd.DataFrame, ax: Axes, *, looks: Mapping[str, Look] | None = None) -> Axes:
    """Draw a row for each method and size: its interquartile mean with its interval, and right of it P(better).

    Bold, and a filled marker: differs measurably, with Bonferroni's correction over the figure.
    """
    styles, names = dict(looks or looks_of(rows["method"])), displayed(rows["method"])
    ax.set_ylim(len(rows) - 0.4, -0.6)
    texts = []
    for y, row in rows.iterrows():
        if y and row["size"] != rows["size"][y - 1]:
            ax.axhline(y - 0.5, color=tone(PALE), lw=0.6, zorder=0)
        look, text = styles[row["method"]], f"{names[row['method']]} {row['size']}"
        ax.plot([row["low"], row["high"]], [y, y], color=look.colour, lw=1.6, solid_capstyle="butt", gid="bar")
        face = look.colour if row["decided"] or pd.isna(row["better"]) else tone(1)
        gid = f"mean: {text}: {row['iqm']:.4f} ({row['low']:.4f} to {row['high']:.4f})"
        marker = "o" if look.marker in ("x", "+") else look.marker
        ax.plot(row["iqm"], y, marker, color=look.colour, mfc=face, ms=5.5, mew=1, zorder=3, gid=gid)
        texts.append(fill(plain(text), 18) if narrow(ax) else plain(text))
    ax.set_yticks(range(len(rows)), texts, fontsize="x-small" if narrow(ax) else "small", linespacing=0.9)
    ax.tick_params(axis="y", length=0)
    ax.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    ax.grid(axis="x", color=tone(FAINT), lw=0.6)
    ax.set_axisbelow(True)
    ax.set_xlabel(fill("interquartile mean over tasks of (score − chance) / (perfect − chance)", int(15 * inches(ax))))
    bare(ax, "top", "right", "left")
    _beside(ax, rows[rows["better"].notna()])
    return ax


def _beside(ax: Axes, rows: pd.DataFrame) -> None:
    """Write the probabilities right of the axes, with their intervals where there is room."""
    look: dict[str, Any] = {"textcoords": "offset points", "fontsize": "x-small", "annotation_clip": False}
    for y, row in rows.iterrows():
        interval = "" if narrow(ax) else f"  {row['better_low']:.2f} to {row['better_high']:.2f}"
        text, bold = f"{row['better']:.2f}{interval}", "bold" if row["decided"] else "normal"
        ax.annotate(text, (1, y), (6, 0), xycoords=ax.get_yaxis_transform(), weight=bold, va="center", **look)
    if len(rows):
        head = plain(f"chance to beat {display(rows['reference'].iloc[0])}")
        look |= {"va": "bottom", "color": tone(GREY), "xycoords": "axes fraction"}
        ax.annotate(fill(head, 12) if narrow(ax) else head, (1, 1), (6, 1), **look)


def caption(runs: pd.DataFrame, rows: pd.DataFrame) -> str:
    """Return what a reader needs to judge the figure."""
    text = f"Interquartile means over {rows['tasks'].iloc[0]} tasks and {rows['seeds'].min()} seeds or more"
    text = f"{text} with 95 % intervals of a stratified bootstrap over seeds (2,000 draws)."
    n = int(rows["better"].notna().sum())
    right = (
        (
            f" Right: the probability that a run beats one of {display(rows['reference'].iloc[0])} at the same size. "
            f"Filled and bold: it differs from a half, with Bonferroni's correction over {n} comparisons."
        )
        if n
        else ""
    )
    return f"{text}{right}"


def headline(rows: pd.DataFrame) -> str:
    """Return the answer in a sentence: which methods' runs are shown to beat the reference's, or to lose."""
    names = [f"{display(row['method'])} {row['size']}" for _, row in rows.iterrows()]
    if rows["better"].isna().all():
        best = names[int(np.argmax(rows["iqm"]))]
        return f"{best} has the highest mean over tasks; none is compared, as none has a size of its reference"
    named = rows.assign(name=[f"{n} ({100 * p:.0f} %)" for n, p in zip(names, rows["better"], strict=True)])
    against, tasks, parts = display(rows["reference"].iloc[0]), rows["tasks"].iloc[0], []
    for verb, up in (("beat", True), ("lose to", False)):
        if some := named["name"][rows["decided"] & ((rows["better"] > 0.5) == up)].tolist():
            parts.append(f"runs of {listed(some, most=3)} {verb} those of {against}")
    if not parts:
        return f"Over {tasks} tasks no method differs measurably from {against} of its size"
    text = ", and ".join(parts)
    return f"{text[0].upper()}{text[1:]} at the same size over {tasks} tasks"


def size(rows: pd.DataFrame, *, width: float = 7) -> tuple[float, float]:
    """Return inches of a new figure."""
    return width, 0.9 + (0.27 if width < 4.5 else 0.22) * len(rows)
