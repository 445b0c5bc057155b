"""Mean ranks of methods over five tasks or more, and the cliques of those that are not told apart.

After Demsar, Statistical Comparisons of Classifiers over Multiple Data Sets, JMLR 2006, with Wilcoxon's signed ranks.

>>> import itertools
>>> import pandas as pd
>>> import tensoradapt as ta
>>> rows = itertools.product(("cola", "mrpc", "qnli", "rte", "sst2"), ("lora", "cp", "tucker"), (0, 1, 2))
>>> runs = pd.DataFrame(rows, columns=["task", "method", "seed"]).assign(n_params=1008, chance=0.5)
>>> runs["score"] = 0.8 + 0.02 * (runs["method"] == "cp") + 0.01 * runs["seed"]
>>> ax = ta.plots.ranking(runs)
>>> ax.get_xlabel(), ax.get_ylabel()
('mean rank over 5 tasks (1 is best)', '')
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from textwrap import fill
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from tensoradapt.errors import TensorAdaptError
from tensoradapt.lab.analysis.cells import p_text
from tensoradapt.lab.analysis.facts import listed
from tensoradapt.lab.analysis.names import Look, display, tone
from tensoradapt.lab.analysis.names import looks as looks_of
from tensoradapt.lab.analysis.plots._parts import GREY, PALE, bare, inches, narrow, plain
from tensoradapt.lab.analysis.plots.aggregates import gains_of
from tensoradapt.lab.analysis.statistics.significance import least_p
from tensoradapt.lab.analysis.statistics.significance import ranking as ranks_of

METHODS, TASKS = 3, 5  # the fewest that can be ranked
over_tasks = True  # the figure is of all tasks at once


def rows(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the mean rank of each method over tasks, 1 is best, by its means over sizes and seeds, the best first.

    Columns: method, rank, ``cliques`` (numbers of those that it is in, as text), ``friedman_p`` (of the hypothesis that
    all are equal), tasks and ``least_p`` (the smallest corrected p that so many methods and tasks can have).

    Raises:
        TensorAdaptError: for fewer than three methods or five tasks, each with three seeds of a method at one size.
    """
    gains, _ = gains_of(runs)
    tables: dict[str, list[Any]] = {}
    for (method, _), own in gains.items():
        tables.setdefault(method, []).append(own.mean(1))
    n = len(next(iter(gains.values())))
    if len(tables) < METHODS or n < TASKS:
        raise TensorAdaptError(
            f"{len(tables)} methods have three seeds on each of {n} tasks; expected {METHODS} methods on {TASKS} tasks "
            "or more"
        )
    found = ranks_of({method: sum(own) / len(own) for method, own in tables.items()})
    return pd.DataFrame(
        {
            "method": method,
            "rank": rank,
            "cliques": " ".join(str(i) for i, c in enumerate(found.cliques) if method in c),
        }
        | {"friedman_p": found.friedman_p, "tasks": n, "least_p": least_p(len(tables), n)}
        for method, rank in found.ranks.items()
    )


def cliques(rows: pd.DataFrame) -> list[list[int]]:
    """Return the places of the methods of each clique, the best first."""
    members = [[int(i) for i in str(text).split()] for text in rows["cliques"].fillna("")]
    return [
        [at for at, own in enumerate(members) if clique in own]
        for clique in sorted({clique for own in members for clique in own})
    ]


def draw(rows: pd.DataFrame, ax: Axes, *, looks: Mapping[str, Look] | None = None) -> Axes:
    """Draw a row for each method with its mean rank as a point; a bar beside joins the methods of a clique."""
    styles = dict(looks or looks_of(rows["method"]))
    n, groups = len(rows), cliques(rows)
    for y, row in rows.iterrows():
        look = styles[row["method"]]
        marker = "o" if look.marker in ("x", "+") else look.marker
        ax.plot([1, row["rank"]], [y, y], color=tone(PALE), lw=0.8, zorder=1, gid="stem")
        ax.plot(
            row["rank"], y, marker, color=look.colour, ms=6, zorder=3, gid=f"mean: {look.name}: rank {row['rank']:.2f}"
        )
        ax.annotate(
            f"{row['rank']:.2f}", (row["rank"], y), (7, 0), textcoords="offset points", va="center", fontsize="small"
        )
    for i, clique in enumerate(groups):
        x = 1.05 + 0.05 * i
        bar: dict[str, Any] = {"color": tone(0.25), "lw": 3, "solid_capstyle": "butt", "clip_on": False}
        ax.plot([x, x], [clique[0] - 0.3, clique[-1] + 0.3], transform=ax.get_yaxis_transform(), gid="clique", **bar)
    if groups:
        where: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points", "annotation_clip": False}
        where |= {"fontsize": "x-small", "color": tone(GREY), "va": "bottom"}
        ax.annotate("not told\napart", (1.03, 1), (0, 2), **where)
    room = 0.5 * n / max(inches(ax) - 0.5, 0.5)  # for the number of the last rank
    ax.set(xlim=(0.8, n + max(room, 0.3)), ylim=(n - 0.4, -0.6))
    ax.set_xticks(range(1, n + 1))
    texts = [plain(styles[method].name) for method in rows["method"]]
    ax.set_yticks(range(n), texts, fontsize="x-small" if narrow(ax) else "small")
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel(fill(f"mean rank over {rows['tasks'].iloc[0]} tasks (1 is best)", int(15 * inches(ax))))
    bare(ax, "top", "right", "left")
    return ax


def caption(runs: pd.DataFrame, rows: pd.DataFrame) -> str:
    """Return what a reader needs to judge the figure."""
    n, tasks, least = len(rows), rows["tasks"].iloc[0], rows["least_p"].iloc[0]
    text = (
        f"Mean ranks over {tasks} tasks of each method's mean over its sizes and seeds (Friedman's test that all are "
        f"equal: p {p_text(rows['friedman_p'].iloc[0])}). A bar joins methods that Wilcoxon's signed ranks with Holm's "
        "correction do not tell apart (5 %)."
    )
    if least < 0.05:
        return text
    return (
        f"{text} With {tasks} tasks the smallest corrected p of {math.comb(n, 2)} comparisons is {least:.2g}, so this "
        "test cannot tell any two methods apart; read the ranks only."
    )


def headline(rows: pd.DataFrame) -> str:
    """Return the answer in a sentence: which methods the best one is decided to be before."""
    first, tasks = display(rows["method"].iloc[0]), rows["tasks"].iloc[0]
    if rows["least_p"].iloc[0] >= 0.05:
        return f"Nothing is decided: {tasks} tasks cannot tell {len(rows)} methods apart"
    near = {at for clique in cliques(rows) if 0 in clique for at in clique} - {0}
    behind = [display(method) for at, method in enumerate(rows["method"]) if at and at not in near]
    if not behind:
        return f"Nothing is decided: {first} has the best mean rank, and no method is told apart from it"
    text = f"{first} ranks before {listed(behind)} over {tasks} tasks"
    alike = [display(rows["method"].iloc[at]) for at in sorted(near)]
    return f"{text}; {listed(alike)} {'is' if len(alike) == 1 else 'are'} not told apart from it" if alike else text


def size(rows: pd.DataFrame, *, width: float = 5) -> tuple[float, float]:
    """Return inches of a new figure."""
    return width, 0.9 + 0.27 * len(rows)
