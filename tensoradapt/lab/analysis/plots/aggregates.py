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
from tensoradapt.lab.analysis.facts import listed
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
        task = means.loc[unknown, "task"].iloc[0]
        raise TensorAdaptError(
            f"task {task} has no chance, the score of a constant answer; expected it of every task, in the column "
            "'chance', as gains of tasks are measured from it"
        )
    perfect = _perfect(means)
    gains, ids = dict[Key, Floats](), dict[Key, tuple[str, ...]]()
    for key, own in means.groupby(["method", "size"], sort=False):
        own = own.sort_values("task")
        seeds = sorted(shared_seeds(*own.to_dict("records")))
        if len(own) == len(tasks) and len(seeds) >= SEEDS:
            ends = own["chance"].astype(float), own["task"].map(str).map(perfect)
            rows_ = zip(own["seeds"], own["scores"], *ends, strict=True)
            gains[key] = np.array([_gain(*row, seeds) for row in rows_])
            ids[key] = tuple(run for had, names in zip(own["seeds"], own["runs"], strict=True)
                             for seed, run in zip(had, names, strict=True) if seed in seeds)  # fmt: skip
    if not gains:
        raise TensorAdaptError(
            f"no method has runs of three seeds at one size on each of {len(tasks)} tasks; expected one that has"
        )
    return gains, ids


def _gain(had: tuple[int, ...], scores: tuple[float, ...], least: float, most: float, seeds: list[int]) -> Floats:
    by_seed = dict(zip(had, scores, strict=True))
    whole = most - least if least < most else math.nan
    return np.array([(by_seed[seed] - least) / whole for seed in seeds])


def _perfect(means: pd.DataFrame) -> dict[str, float]:
    """Return the largest value of each task's metric, or where that is not known 1, of percentages 100."""
    found = {}
    for task, own in means.groupby(means["task"].map(str)):
        high = float(own["metric_high"].astype(float).fillna(math.inf).iloc[0])
        most = max(max(scores) for scores in own["scores"])
        found[str(task)] = high if math.isfinite(high) else 100.0 if most > 1.5 else 1.0
    return found


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
    middle = stratified_bootstrap(iqm, own)
    row: dict[str, Any] = {"method": key[0], "size": key[1], "tasks": own.shape[0], "seeds": own.shape[1]}
    row |= {"iqm": middle.mean, "low": middle.low, "high": middle.high}
    if other is None:
        return row | {"better": math.nan, "better_low": math.nan, "better_high": math.nan, "decided": False}
    better = stratified_bootstrap(improvement, own, gains[other])
    wide = stratified_bootstrap(improvement, own, gains[other], confidence=1 - LEVEL / n)
    decided = not wide.low <= 0.5 <= wide.high
    return row | {"better": better.mean, "better_low": better.low, "better_high": better.high, "decided": decided}


def draw(rows: pd.DataFrame, ax: Axes, *, looks: Mapping[str, Look] | None = None) -> Axes:
    """Draw a row for each method and size: its interquartile mean with its interval, and right of it P(better).

    Bold, and a filled marker: differs measurably, with Bonferroni's correction over the figure.
    """
    styles = dict(looks or looks_of(rows["method"]))
    ax.set_ylim(len(rows) - 0.4, -0.6)
    decided = rows["decided"] | rows["better"].isna()
    for y, row in rows.iterrows():
        if y and row["size"] != rows["size"][y - 1]:
            ax.axhline(y - 0.5, color=tone(PALE), lw=0.6, zorder=0)
        look, face = styles[row["method"]], tone(1)
        ax.plot([row["low"], row["high"]], [y, y], color=look.colour, lw=1.6, solid_capstyle="butt", gid="bar")
        marker = "o" if look.marker in ("x", "+") else look.marker
        mark: dict[str, Any] = {"color": look.colour, "mfc": look.colour if decided[y] else face, "ms": 5.5, "mew": 1}
        ax.plot(row["iqm"], y, marker, zorder=3, gid=_said(row), **mark)
    names = displayed(rows["method"])
    texts = [f"{names[row['method']]} {row['size']}" for _, row in rows.iterrows()]
    texts = [fill(plain(text), 18) if narrow(ax) else plain(text) for text in texts]
    ax.set_yticks(range(len(rows)), texts, fontsize="x-small" if narrow(ax) else "small", linespacing=0.9)
    ax.tick_params(axis="y", length=0)
    ax.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    ax.grid(axis="x", color=tone(FAINT), lw=0.6)
    ax.set_axisbelow(True)
    label = "interquartile mean over tasks of (score − chance) / (perfect − chance)"
    ax.set_xlabel(fill(label, int(15 * inches(ax))))
    bare(ax, "top", "right", "left")
    _beside(ax, rows)
    return ax


def _said(row: pd.Series) -> str:
    return f"mean: {display(row['method'])} {row['size']}: {row['iqm']:.4f} ({row['low']:.4f} to {row['high']:.4f})"


def _beside(ax: Axes, rows: pd.DataFrame) -> None:
    """Write the probabilities right of the axes, with their intervals where there is room."""
    if rows["better"].isna().all():
        return
    where: dict[str, Any] = {"textcoords": "offset points", "va": "center", "fontsize": "x-small"}
    where |= {"annotation_clip": False}
    for y, row in rows[rows["better"].notna()].iterrows():
        text = f"{row['better']:.2f}"
        if not narrow(ax):
            text += f"  {row['better_low']:.2f} to {row['better_high']:.2f}"
        bold = "bold" if row["decided"] else "normal"
        ax.annotate(text, (1, y), (6, 0), xycoords=ax.get_yaxis_transform(), weight=bold, **where)
    head = plain(f"chance to beat {display(rows['reference'].iloc[0])}")
    where |= {"va": "bottom", "color": tone(GREY)}
    ax.annotate(fill(head, 12) if narrow(ax) else head, (1, 1), (6, 1), xycoords="axes fraction", **where)


def caption(runs: pd.DataFrame, rows: pd.DataFrame) -> str:
    """Return what a reader needs to judge the figure."""
    text = f"Interquartile means over {rows['tasks'].iloc[0]} tasks and {rows['seeds'].min()} seeds or more"
    text = f"{text} with 95 % intervals of a stratified bootstrap over seeds (2,000 draws)."
    n = int(rows["better"].notna().sum())
    if not n:
        return text
    return (
        f"{text} Right: the probability that a run beats one of {display(rows['reference'].iloc[0])} at the same size. "
        f"Filled and bold: it differs from a half, with Bonferroni's correction over {n} comparisons."
    )


def headline(rows: pd.DataFrame) -> str:
    """Return the answer in a sentence: which methods' runs are shown to beat the reference's, or to lose."""
    if rows["better"].isna().all():
        first = rows.loc[rows["iqm"].idxmax()]
        best = f"{display(first['method'])} {first['size']}"
        return f"{best} has the highest mean over tasks; none is compared, as none has a size of its reference"
    decided, against = rows[rows["decided"]], display(rows["reference"].iloc[0])
    if decided.empty:
        return f"Over {rows['tasks'].iloc[0]} tasks no method differs measurably from {against} of its size"
    parts = []
    for verb, some in (("beat", decided[decided["better"] > 0.5]), ("lose to", decided[decided["better"] < 0.5])):
        if len(some):
            named = [
                f"{display(row['method'])} {row['size']} ({100 * row['better']:.0f} %)" for _, row in some.iterrows()
            ]
            parts.append(f"runs of {listed(named, most=3)} {verb} those of {against}")
    text = ", and ".join(parts)
    return f"{text[0].upper()}{text[1:]} at the same size over {rows['tasks'].iloc[0]} tasks"


def size(rows: pd.DataFrame, *, width: float = 7) -> tuple[float, float]:
    """Return inches of a new figure."""
    return width, 0.9 + (0.27 if width < 4.5 else 0.22) * len(rows)
