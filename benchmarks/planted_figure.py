"""The figure of `planted.py`: errors as numbers on a heat map, one panel for each way of fitting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import figure_style
import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from tensoradapt.analysis.names import COLOURS

PNG = Path(__file__).parent.parent / "docs" / "results" / "figures" / "planted.png"
TITLES = {"adam": "trained with Adam from the zero start", "als": "decomposed (alternating least squares, SVD)"}


def draw(rows: Sequence[Mapping[str, str]]) -> None:
    """Write the PNG; white is recovered, black is missed."""
    with mpl.rc_context(figure_style.RC):
        figure = Figure(figsize=(10.4, 4.9), layout="constrained")
        axes = figure.subplots(1, 2, sharey=True)
        for ax, how in zip(axes, TITLES, strict=True):
            panel(ax, [row for row in rows if row["how"] == how], TITLES[how])
        axes[0].set_ylabel("structure of the tensor")
        figure.supxlabel(
            "fitted, with at most as many numbers (1,750 to 3,072 of 18,432 entries; Kronecker 2,096 at least)",
            fontsize="medium",
        )
        figure_style.write(figure, PNG)


def panel(ax: Axes, rows: Sequence[Mapping[str, str]], title: str) -> None:
    """One matrix of errors; the method that drew the tensor is framed."""
    names = list(dict.fromkeys(row["planted"] for row in rows))
    errors = {(row["planted"], row["fitted"]): float(row["error"]) for row in rows}
    table = np.array([[errors.get((planted, fitted), np.nan) for fitted in names] for planted in names])
    ax.imshow(table, cmap="Greys", vmin=0, vmax=1.3, aspect="auto")
    for (i, j), error in np.ndenumerate(table):
        text = "0" if error < 0.0005 else f"{error:.3f}" if error < 0.01 else f"{error:.2f}"
        ax.text(j, i, text, ha="center", va="center", fontsize=8, color="white" if error > 0.65 else "black")
        if i == j:
            ax.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, fill=False, edgecolor=COLOURS[1], linewidth=1.8, zorder=3))
    ax.set_title(f"relative error, {title}")
    ax.set_xticks(range(len(names)), names, rotation=40, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(len(names)), names)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
