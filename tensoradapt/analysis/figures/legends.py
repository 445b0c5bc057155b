"""Legends of methods, above the axes of a figure or above all of its panels."""

from __future__ import annotations

from functools import partial
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import blended_transform_factory

from tensoradapt.analysis.figures.canvas import LEGEND, MARKER, NARROW, figure_of, folded, narrow, page_width, scaled
from tensoradapt.analysis.figures.styles import Style, line_look
from tensoradapt.analysis.names import displayed

MANY = 9  # methods from which on a legend is smaller


def legend_above(ax: Axes, methods: dict[str, Style], *more: Line2D, grow: bool = False) -> None:
    """Put a legend of methods, and of ``more``, above the axes, in as many columns as fit.

    ``grow``: make the figure higher if need be.
    """
    box = ax.get_window_extent()
    size, look = _legend_look(ax, len(methods) >= MANY)
    entries = [*_handles(methods, size, page_width(ax)), *more]
    whole, alone = figure_of(ax).bbox, narrow(ax) and figure_of(ax).axes == [ax]
    left = 0.01 * whole.width if alone else box.x0  # in a narrow figure the legend has the whole width
    look |= {"loc": "lower left", "bbox_to_anchor": (0.01 if alone else 0, 1.0), "borderaxespad": 0.2}
    if alone:  # wherever the axes will be
        look["bbox_transform"] = blended_transform_factory(figure_of(ax).transFigure, ax.transAxes)
    room = 0.92 * whole.width - left  # letters are wider at other resolutions
    room = room if alone else min(1.2 * box.width, room)
    for columns in range(len(entries), 0, -1):
        legend = ax.legend(handles=entries, ncols=columns, **look)
        if legend.get_window_extent().width <= room:
            break
    if grow:
        figure = figure_of(ax)
        figure.set_figheight(figure.get_figheight() + max(0, legend.get_window_extent().height / figure.dpi - 0.4))


def legend_on_top(figure: Figure, methods: dict[str, Style]) -> None:
    """Put a legend of methods above all panels, in as many columns as fit, and make the figure higher by it."""
    size, look = _legend_look(figure.axes[0])
    drawn = _handles(methods, size, figure.get_figwidth())
    for columns in range(len(drawn), 0, -1):
        legend = figure.legend(handles=drawn, ncols=columns, loc="outside upper left", **look)
        if columns == 1 or legend.get_window_extent().width <= 0.98 * figure.bbox.width:
            break
        legend.remove()
    figure.set_figheight(figure.get_figheight() + legend.get_window_extent().height / figure.dpi)


def _legend_look(ax: Axes, many: bool = False) -> tuple[float, dict[str, Any]]:
    """Return the points of a legend's type, and how it is set: close where the figure is narrow."""
    size = LEGEND - many
    look: dict[str, Any] = {"frameon": False, "handlelength": 2.6 if many else 2.2, "columnspacing": 1.3}
    if narrow(ax):
        size = LEGEND - (2.5 if many else 2)
        look |= {"handlelength": 1.7, "columnspacing": 0.8, "handletextpad": 0.4, "labelspacing": 0.2}
    return size, {**look, "fontsize": scaled(size)}


def _handles(methods: dict[str, Style], size: float, width: float) -> list[Line2D]:
    """Return a line and marker for each method, as they are in the figure, by the names to show."""
    names = displayed(methods)
    ordered = sorted(methods, key=lambda method: (names[method].lower(), method))
    named = [(folded(names[method], min(4.8, 0.75 * width), size), methods[method]) for method in ordered]
    look: dict[str, Any] = {"markersize": MARKER if width >= NARROW else MARKER - 1.5, "linewidth": 0.9}
    line = partial(Line2D, [], [], **look)
    return [line(label=name, **line_look(style)) for name, style in named]
