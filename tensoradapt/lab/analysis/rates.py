"""Learning rates that were kept at an end of those that were tried, so that a better one may lie beyond."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tensoradapt.lab.analysis.names import display
from tensoradapt.planning.size import Size

if TYPE_CHECKING:
    from pandas import DataFrame

CELL = ["task", "method", "rank", "budget"]  # what a grid of rates is of


def at_edges(runs: DataFrame) -> list[str]:
    """Return the cells whose best rate is the lowest or highest that was tried, from runs with those that tuned.

    A cell counts once a run with its best rate is reported, and where its rates differ in their validation scores.
    """
    tried, found = runs[runs["tuning"].astype(bool) & runs["lr"].notna()], []
    reported = runs[~runs["tuning"].astype(bool)]
    kept = set(zip(reported["task"], reported["method"], reported["lr"], strict=True))
    for (task, method, *_), own in tried.groupby(CELL, dropna=False, sort=False):
        rates = own.assign(bad=own["lost"] | (own["status"] == "failed")).groupby("lr")
        means = rates.agg(bad=("bad", "sum"), mean=("validation", "mean")).reset_index().dropna(subset=["mean"])
        if means["mean"].nunique() < 2:
            continue
        best = means.sort_values(["bad", "mean", "lr"], ascending=[True, False, True])["lr"].iloc[0]
        if best in (own["lr"].min(), own["lr"].max()) and (task, method, best) in kept:
            found.append(edge_cell(method, Size.of(own.iloc[0]).text, task, best, is_low=best == own["lr"].min()))
    return found


def edge_cell(method: str, size: str, task: str, lr: float, is_low: bool) -> str:
    """Return the name of a cell with its best rate and the end that this is."""
    return f"{f'{display(method)} {size}'.strip()} on {task} (lr {lr:g}, the {'lowest' if is_low else 'highest'} tried)"


def edge_text(cells: Sequence[str]) -> str:
    """Return the line about cells whose best rate is at an end."""
    return f"best rate at the edge: {'; '.join(cells)}: a better one may lie beyond, so try further rates there"
