"""The figure of `step_size.py`: every row's step over LoRA's along four axes, the rows of interest named."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

import figure_style
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, NullFormatter

from tensoradapt.lab.analysis.names import COLOURS, looks, tone
from tensoradapt.lab.analysis.plots import _parts

PNG = figure_style.DOCS / "results" / "figures" / "step_size.png"
Row = Mapping[str, str]
NAMED = (
    *("lora", "lorta", "lotr", "metatt-5d", "vera", "loha", "tenslora-qkv", "tenslora-att_qkv_depth", "tt-lora"),
    *("loretta-rep", "tinylora", "block_term"),
)
OTHERS, BAND = "#9a9a9a", COLOURS[2]
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
    with figure_style.drawn(PNG, (11, 9.6)) as figure:
        grid = figure.subplots(len(PANELS), len(AXES), sharex="col")
        for of_row, (scale, step, column, limits, band, label) in zip(grid, PANELS, strict=True):
            of_row[0].set_ylabel(label)
            for ax, axis in zip(of_row, AXES, strict=True):
                own = [r for r in rows if (r["axis"], r["scale"], int(r["step"])) == (axis, scale, step)]
                if axis == "lr" and step == 1:  # the first step is the same at every rate
                    ax.set_axis_off()
                    continue
                panel(ax, own, column, band)
                wide = axis == "lr"  # rates that run away: a range of its own
                if limits[1] < 10 and not wide:
                    ax.set_yticks([0.25, 0.5, 1, 2, 4, 8])
                ax.set_ylim((0.012, 400) if wide else limits)
                ax.tick_params(labelleft=axis in ("rank", "lr"))
                if axis == "rank" and column == "rms_ratio_to_lora":
                    ax.axvline(96, color=tone(_parts.GREY), linewidth=0.9, linestyle=":")
        for ax, text in zip((*grid[-1, :3], grid[1, 3]), AXES.values(), strict=True):
            ax.set_xlabel(text)
            ax.tick_params(labelbottom=True)
        _legends(grid[0, 3], grid[2, 3])
        figure.suptitle("RMS of the change of all adapted matrices, over LoRA's (r=8, alpha=16)", x=0.01, ha="left")


def panel(ax: Axes, rows: Sequence[Row], column: str, band: tuple[float, float]) -> None:
    """A line for each row of the comparison, the mean over seeds; hollow where ranks are clipped."""
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.axhspan(*band, color=BAND, alpha=0.15, linewidth=0)
    ax.axhline(1, color=tone(0.25), linewidth=0.7)
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
    ax.tick_params(labelsize="small")
    ax.grid(axis="y")


def _line(ax: Axes, name: str, values: Sequence[float], means: Sequence[float], clipped: Sequence[bool]) -> None:
    if name not in NAMED:
        ax.plot(values, means, color=OTHERS, linewidth=0.6, alpha=0.6, zorder=2)
        return
    look = looks(NAMED)[name]
    ax.plot(values, means, look.line, color=look.colour, linewidth=1.1, zorder=3)
    for x, y, hollow in zip(values, means, clipped, strict=True):
        face = tone(1) if hollow else look.colour
        ax.plot(x, y, look.marker, color=look.colour, mfc=face, ms=4.2, mew=0.9, zorder=3.5)


def _ratio(value: float, _: int) -> str:
    return f"{value:g}" if 1e-3 <= value < 1e4 else f"{value:.0e}"


def _legends(above: Axes, below: Axes) -> None:
    """Draw the legends into axes that have no panel."""
    found = looks(NAMED)
    rest = [
        Line2D([], [], color=OTHERS, linewidth=0.7, label="all other rows"),
        Line2D([], [], color=tone(0.25), marker="o", mfc=tone(1), linewidth=0, ms=4.5, label="ranks clipped"),
        Patch(color=BAND, alpha=0.15, label="within 10 % (first step),\na factor of 2 (others)"),
        Line2D([], [], color=tone(_parts.GREY), linewidth=0.9, linestyle=":", label="rank = width / 8"),
    ]
    for ax, handles in ((above, _parts.handles(found[name] for name in NAMED)), (below, rest)):
        ax.legend(handles=handles, loc="upper left", fontsize="small", borderaxespad=0)
