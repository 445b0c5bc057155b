"""Figures of comparisons: a forest of paired differences, and mean ranks with the methods that are not told apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes

from tensoradapt.analysis.canvas import DARK, GREY, frame, new_axes
from tensoradapt.analysis.significance import Comparison, Ranking
from tensoradapt.errors import TensorAdaptError

ROW, DENSE = 0.32, 0.19  # inches


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
    ax = new_axes(5.6, 1.0 + (ROW if len(comparisons) < 9 else DENSE) * len(comparisons)) if ax is None else ax
    ax.axvline(0, color=GREY, linewidth=0.8, zorder=0)
    for row, one in enumerate(comparisons):
        found = one.difference
        ax.plot([found.low, found.high], [row, row], color=DARK, linewidth=1.4, solid_capstyle="butt")
        face = DARK if one.adjusted < alpha else "white"
        ax.plot(found.mean, row, "o", color=DARK, markerfacecolor=face, markersize=6, zorder=3)
        where: dict[str, Any] = {"xycoords": ax.get_yaxis_transform(), "va": "center", "fontsize": 7, "color": DARK}
        ax.annotate(f"p {_p(one.adjusted)}", (1.02, row), annotation_clip=False, **where)
    ax.set_yticks(range(len(comparisons)), [_named(one) for one in comparisons])
    ax.set_ylim(len(comparisons) - 0.4, -0.6)
    ax.set_xlabel(f"difference in {metric}\n(paired over {_paired(comparisons)}; 95 % t interval)")
    frame(ax)
    return ax


def aggregates(rows: Sequence[dict[str, Any]], ax: Axes | None = None) -> Axes:
    """A row for each method and size, by size: the interquartile mean over tasks with its bootstrap interval; right of
    it the probability that a run beats one of the reference's.

    ``rows``: of ``summary.summary_rows``. Returns ``ax``, a new one if None. Raises TensorAdaptError without rows.
    """
    if not rows:
        raise TensorAdaptError("there are no rows to draw; expected those of summary.summary_rows")
    ax = new_axes(6.4, 1.0 + DENSE * len(rows)) if ax is None else ax
    sizes = list(dict.fromkeys(row["size"] for row in rows))
    ordered = sorted(rows, key=lambda row: (sizes.index(row["size"]), -row["iqm"]))
    where: dict[str, Any] = {"xycoords": ax.get_yaxis_transform(), "va": "center", "fontsize": 7, "color": DARK}
    for y, row in enumerate(ordered):
        if y and row["size"] != ordered[y - 1]["size"]:
            ax.axhline(y - 0.5, color=GREY, linewidth=0.5)
        ax.plot([row["low"], row["high"]], [y, y], color=DARK, linewidth=1.4, solid_capstyle="butt")
        ax.plot(row["iqm"], y, "o", color=DARK, markersize=5, zorder=3)
        if row["better"] is not None:
            text = f"P(> {row['reference']}) {row['better']:.2f}  [{row['better_low']:.2f}, {row['better_high']:.2f}]"
            ax.annotate(text, (1.02, y), annotation_clip=False, **where)
    ax.set_yticks(range(len(ordered)), [f"{row['label']}  {row['size']}" for row in ordered], fontsize=8)
    ax.set_ylim(len(ordered) - 0.4, -0.6)
    ax.set_xlabel("interquartile mean over tasks of (score - chance) / (1 - chance)")
    frame(ax, "x")
    return ax


def critical_differences(found: Ranking, ax: Axes | None = None) -> Axes:
    """Mean ranks on an axis, the best on the left, each method on a row of its own; a bar joins the methods of a
    clique, which are not told apart (Demsar, JMLR 2006, with Wilcoxon-Holm cliques).

    Returns ``ax``, a new one if None.
    """
    ranks = list(found.ranks.items())
    ax = new_axes(5.2, 0.9 + ROW * (len(ranks) + len(found.cliques))) if ax is None else ax
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
    frame(ax)
    ax.spines["top"].set_visible(True)
    for side in ("left", "bottom"):
        ax.spines[side].set_visible(False)
    return ax


def _named(one: Comparison) -> str:
    return f"{one.first} - {one.second}" + (f", {one.budget:,.0f}" if one.budget is not None else "")


def _paired(comparisons: Sequence[Comparison]) -> str:
    n = " or ".join(map(str, sorted({one.difference.n for one in comparisons})))
    over = " or ".join(sorted({one.over for one in comparisons}))
    return f"{n} {over}" if "one seed" not in over else over


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
