"""What is on a panel of scores, for tests of figures."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D


def axes() -> Axes:
    figure = Figure(figsize=(7, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    return figure.subplots()


def strip(ax: Axes) -> tuple[float, float]:
    """Lower and upper end of the strip, in data; there has to be one."""
    (band,) = [patch for patch in ax.patches if patch.get_gid() == "strip"]
    return band.get_y(), band.get_y() + band.get_height()


def drawn(ax: Axes, gid: str) -> list[Line2D]:
    return [line for line in ax.get_lines() if line.get_gid() == gid]


def heights(ax: Axes, gid: str) -> list[float]:
    """The y of everything of a kind, ascending."""
    return sorted(float(y) for line in drawn(ax, gid) for y in line.get_ydata())
