"""Figures of comparisons: a forest of paired differences, and mean ranks with the methods that are not told apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tensoradapt.analysis.annotations import DARK, GREY
from tensoradapt.analysis.plots import DPI, RC
from tensoradapt.analysis.significance import Comparison, Ranking
from tensoradapt.errors import TensorAdaptError

ROW = 0.32  # inches


def forest(
    comparisons: Sequence[Comparison],
    ax: Axes | None = None,
    *,
    metric: str = "score",
    alpha: float = 0.05,
) -> Axes:
    """A row for each comparison, the first on top: its difference with its interval, filled where it holds at ``alpha``
    after correction, hollow elsewhere; right of it the corrected p value.

    Returns ``ax``, a new one if None. Raises TensorAdaptError without comparisons.
    """
    if not comparisons:
        raise TensorAdaptError("there are no comparisons to draw; expected those of significance.compare")
    ax = _axes(len(comparisons)) if ax is None else ax
    ax.axvline(0, color=GREY, linewidth=0.8, zorder=0)
    for row, one in enumerate(comparisons):
        found = one.difference
        ax.plot([found.low, found.high], [row, row], color=DARK, linewidth=1.4, solid_capstyle="butt")
        face = DARK if one.adjusted < alpha else "white"
        ax.plot(found.mean, row, "o", color=DARK, markerfacecolor=face, markersize=6, zorder=3)
        where: dict[str, Any] = {"xycoords": ax.get_yaxis_transform(), "va": "center", "fontsize": 7, "color": DARK}
        ax.annotate(f"p {_p(one.adjusted)}", (1.02, row), annotation_clip=False, **where)
    ax.set_yticks(range(len(comparisons)), [f"{one.first} - {one.second}" for one in comparisons])
    ax.set_ylim(len(comparisons) - 0.4, -0.6)
    n = {one.difference.n for one in comparisons}
    ax.set_xlabel(f"difference in {metric}, paired over {' or '.join(map(str, sorted(n)))} seeds, 95 % t interval")
    _frame(ax)
    return ax


def critical_differences(found: Ranking, ax: Axes | None = None) -> Axes:
    """Mean ranks on an axis, the best on the left, each method on a row of its own; a bar joins the methods of a
    clique, which are not told apart (Demsar, JMLR 2006, with Wilcoxon-Holm cliques).

    Returns ``ax``, a new one if None.
    """
    ranks = list(found.ranks.items())
    ax = _axes(len(ranks) + len(found.cliques)) if ax is None else ax
    top = len(found.cliques)
    for i, (name, rank) in enumerate(ranks):
        row = top + i + 0.5
        ax.plot([rank, rank], [0, row], color=GREY, linewidth=0.8, zorder=0)
        ax.plot(rank, 0, "|", color=DARK, markersize=9)
        box = {"boxstyle": "square,pad=0.15", "facecolor": "white", "edgecolor": "none"}
        text = f"{name}  {rank:.2f}"
        ax.annotate(text, (rank, row), ha="center", va="center", fontsize=8, color=DARK, bbox=box)
    for i, clique in enumerate(found.cliques):
        ends = [found.ranks[clique[0]], found.ranks[clique[-1]]]
        ax.plot(ends, [i + 0.6] * 2, color=DARK, linewidth=3.5, solid_capstyle="butt")
    ax.set_ylim(top + len(ranks) + 0.2, 0)
    ax.set_xlim(0.6, len(ranks) + 0.4)
    ax.set_xticks(range(1, len(ranks) + 1))
    ax.xaxis.set_ticks_position("top")
    ax.xaxis.set_label_position("top")
    ax.set_xlabel(f"mean rank, 1 is best (Friedman p {_p(found.friedman_p)})")
    ax.set_yticks([])
    _frame(ax)
    ax.spines["top"].set_visible(True)
    for side in ("left", "bottom"):
        ax.spines[side].set_visible(False)
    return ax


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _frame(ax: Axes) -> None:
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    for spine in ax.spines.values():
        spine.set_color(GREY)
    ax.tick_params(color=GREY, labelcolor=DARK)


def _axes(rows: int) -> Axes:
    with mpl.rc_context(RC):
        figure = Figure(figsize=(5.2, 0.9 + ROW * rows), dpi=DPI, layout="constrained")
        FigureCanvasAgg(figure)
        return figure.add_subplot()
