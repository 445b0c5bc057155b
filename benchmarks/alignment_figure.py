"""Draw docs/concepts/figures/alignment.png from benchmarks/records/alignment.csv."""

from __future__ import annotations

import math
from pathlib import Path

import alignment
import figure_style
import matplotlib as mpl
import pandas as pd
from kept import read
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tensoradapt.lab.analysis.names import COLOURS

PNG = Path(__file__).parent.parent / "docs" / "concepts" / "figures" / "alignment.png"
TIED = "CP r=64"  # whose factors' parts of a step are shown


def main() -> None:
    table = pd.DataFrame(read(alignment.CSV)).astype({"step": int, "share": float, "moved": float, "cosine": float})
    with mpl.rc_context(figure_style.RC):
        figure = Figure(figsize=(10.4, 3.4), layout="constrained")
        share, cosine, moved = figure.subplots(1, 3, sharex=True)
        whole = table[table["tensor"] == "all"]
        methods(share, whole, "share", "share of the gradient in the tangent space")
        methods(cosine, whole, "cosine", "cosine of the step with minus the gradient")
        factors(moved, table[(table["method"] == TIED) & (table["tensor"] == "0") & (table["factor"] != "all")])
        cosine.axhline(0, color="#b0b0b0", linewidth=0.7)
        figure.legend(*share.get_legend_handles_labels(), loc="outside lower center", ncols=5)
        figure_style.write(figure, PNG)
    print(PNG)


def methods(ax: Axes, table: pd.DataFrame, column: str, title: str) -> None:
    """One line for each method."""
    for colour, (name, rows) in zip(COLOURS, table.groupby("method", sort=False), strict=False):
        ax.plot(rows["step"], rows[column], color=colour, label=name, linewidth=1.5)
    ax.set_title(title)
    ax.set_xlabel("step")
    ax.grid(axis="y")


def factors(ax: Axes, table: pd.DataFrame) -> None:
    """One line for each factor; lines that end together have one name."""
    ends: dict[int, list[str]] = {}
    for colour, (name, rows) in zip(COLOURS, table[table["moved"] > 0].groupby("factor", sort=False), strict=False):
        ax.plot(rows["step"], rows["moved"], color=colour, linewidth=1.5)
        ends.setdefault(round(4 * math.log10(rows["moved"].iloc[-1])), []).append(str(name))
    for level, names in ends.items():
        ax.annotate("\n".join(names), (alignment.STEPS, 10 ** (level / 4)), xytext=(3, 0), textcoords="offset points",
                    va="center")  # fmt: skip
    ax.set_yscale("log")
    ax.set_title(f"{TIED}: each factor's part of a step")
    ax.set_xlabel("step")
    ax.grid(axis="y")


if __name__ == "__main__":
    main()
