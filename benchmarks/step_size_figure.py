"""The figure of `step_size.py`: every row's step over LoRA's along four axes, the rows of interest named."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, NullFormatter

from tensoradapt.analysis.figures import ink
from tensoradapt.analysis.figures.canvas import DPI, RC
from tensoradapt.analysis.figures.styles import line_look, marker_look, styles_of
from tensoradapt.analysis.names import display

PNG = Path(__file__).parent.parent / "docs" / "figures" / "step_size.png"
Row = Mapping[str, str]
NAMED = (
    *("lora", "lorta", "lotr", "metatt-5d", "vera", "loha", "tenslora-qkv", "tenslora-att_qkv_depth", "tt-lora"),
    *("loretta-rep", "tinylora", "block_term"),
)
AXES = {"rank": "rank", "depth": "layers", "width": "width", "lr": "learning rate"}
# each row of panels: scale, steps, column, y range, band, label
PANELS: tuple[tuple[str, int, str, tuple[float, float], tuple[float, float], str], ...] = (
    ("matched", 1, "rms_ratio_to_lora", (0.5, 9), (0.9, 1.1), "matched,\nfirst step"),
    ("matched", 100, "rms_ratio_to_lora", (0.25, 9), (0.5, 2), "matched,\nafter 100 steps"),
    ("paper", 1, "rms_ratio_to_lora", (2e-5, 5e4), (0.9, 1.1), "papers' scales,\nfirst step"),
    ("matched", 1, "worst_site_ratio", (0.9, 300), (1, 2), "matched, first step:\nworst site"),
)


def draw(rows: Sequence[Row]) -> None:
    """Write the PNG."""
    with mpl.rc_context(RC):
        figure = Figure(figsize=(11, 9.6), dpi=DPI)
        grid = figure.subplots(len(PANELS), len(AXES), sharex="col")
        for i, (scale, step, column, limits, band, label) in enumerate(PANELS):
            for ax, axis in zip(grid[i], AXES, strict=True):
                own = [r for r in rows if (r["axis"], r["scale"], int(r["step"])) == (axis, scale, step)]
                if axis == "lr" and step == 1:
                    ax.set_visible(False)
                    continue
                panel(ax, own, column, band)
                wide = axis == "lr"  # rates that run away: a range of its own
                ax.set_ylim((0.012, 400) if wide else limits)
                if limits[1] < 10 and not wide:
                    ax.set_yticks([0.25, 0.5, 1, 2, 4, 8])
                    ax.set_ylim(limits)
                ax.tick_params(labelleft=axis in ("rank", "lr"))
                if axis == "rank" and column == "rms_ratio_to_lora":
                    ax.axvline(96, color=ink.grey(), linewidth=0.9, linestyle=":")
            grid[i, 0].set_ylabel(label)
        for ax, text in zip((*grid[-1, :3], grid[1, 3]), AXES.values(), strict=True):
            ax.set_xlabel(text)
            ax.tick_params(labelbottom=True)
        _legend(figure)
        figure.suptitle(
            "RMS of the change of all adapted matrices, over LoRA's (r=8, alpha=16)", x=0.075, ha="left", fontsize=11
        )
        figure.subplots_adjust(0.085, 0.055, 0.99, 0.95, wspace=0.06, hspace=0.09)
        box = grid[1, 3].get_position()
        grid[1, 3].set_position((box.x0 + 0.022, box.y0, box.width - 0.022, box.height))
        figure.savefig(PNG, metadata={"Software": None})


def panel(ax: Axes, rows: Sequence[Row], column: str, band: tuple[float, float]) -> None:
    """A line for each row of the comparison, the mean over seeds; hollow where ranks are clipped."""
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.axhspan(*band, color="#009E73", alpha=0.15, linewidth=0)
    ax.axhline(1, color=ink.dark(), linewidth=0.7)
    for name in dict.fromkeys(row["row"] for row in rows):
        own = [row for row in rows if row["row"] == name]
        values = list(dict.fromkeys(float(row["value"]) for row in own))
        means = [statistics.fmean(float(r[column]) for r in own if float(r["value"]) == v) for v in values]
        clipped = [any(r["clipped"] == "True" for r in own if float(r["value"]) == v) for v in values]
        _line(ax, name, values, means, clipped)
    ticks = sorted({float(row["value"]) for row in rows} - {96.0})  # too near 64 for its label
    ax.set_xticks(ticks)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.minorticks_off()
    ax.yaxis.set_major_formatter(FuncFormatter(_ratio))
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(ink.grey())
    ax.tick_params(which="both", color=ink.grey(), labelcolor=ink.dark(), labelsize=8)
    ax.grid(True, axis="y", color="#ebebeb", linewidth=0.7)
    ax.set_axisbelow(True)


def _line(ax: Axes, name: str, values: Sequence[float], means: Sequence[float], clipped: Sequence[bool]) -> None:
    if name not in NAMED:
        ax.plot(values, means, color="#9a9a9a", linewidth=0.7, alpha=0.7, zorder=2)
        return
    style = styles_of(NAMED)[name]
    ax.plot(values, means, color=style.colour, linestyle=style.line, linewidth=1.1, zorder=3)
    for x, y, hollow in zip(values, means, clipped, strict=True):
        look = marker_look(style) | {"markeredgecolor": style.colour}
        look |= {"markerfacecolor": "white"} if hollow else {}
        ax.plot(x, y, markersize=4.2, markeredgewidth=0.9, zorder=3.5, **look)


def _ratio(value: float, _: int) -> str:
    return f"{value:g}" if 1e-3 <= value < 1e4 else f"{value:.0e}"


def _legend(figure: Figure) -> None:
    """Draw the legend into the cells that have no panel."""
    named = [
        Line2D([], [], markersize=4.5, linewidth=1.1, label=display(name), **line_look(styles_of(NAMED)[name]))
        for name in NAMED
    ]
    hollow = {"color": ink.dark(), "marker": "o", "markerfacecolor": "white", "linewidth": 0, "markersize": 4.5}
    rest = [
        Line2D([], [], color="#9a9a9a", linewidth=0.7, label="all other rows"),
        Line2D([], [], **hollow, label="ranks clipped"),
        Patch(color="#009E73", alpha=0.15, label="within 10 % (first step),\na factor of 2 (others)"),
        Line2D([], [], color=ink.grey(), linewidth=0.9, linestyle=":", label="rank = width / 8"),
    ]
    for handles, top in ((named, 0.955), (rest, 0.47)):
        figure.legend(handles=handles, loc="upper left", bbox_to_anchor=(0.775, top), frameon=False, fontsize=8.5)
