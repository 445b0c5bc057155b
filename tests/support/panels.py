"""Read what is on a panel of scores, for tests of figures."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
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


def contrast(one: Any, other: Any) -> float:
    """The contrast ratio of two colours; text has 4.5 or more at level AA (WCAG 2.2, 1.4.3)."""
    dark, light = sorted(map(_luminance, (one, other)))
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: Any) -> float:
    """Relative luminance of an sRGB colour (WCAG 2.2)."""
    rgb = np.array(to_rgb(colour))
    return float(np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722])
