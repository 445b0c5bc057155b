"""Figures for tests: drawn in axes of their own, where marks stand, and what texts do to each other and to edges."""

from __future__ import annotations

from itertools import combinations
from types import ModuleType

import numpy as np
import pandas as pd
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox


def shown(ax: Axes) -> list[Text]:
    """Every text of axes, their second axes and their legend that is drawn."""
    ticks: list[Text] = []
    for one in (ax, *ax.child_axes):
        for axis in (one.xaxis, one.yaxis):
            low, high = sorted(axis.get_view_interval())
            found = [tick for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
            ticks += [label for tick in found for label in (tick.label1, tick.label2)]
            ticks.append(axis.label)
    legend, titles = ax.get_legend(), (ax.title, ax._left_title, ax._right_title)
    texts = [*ticks, *ax.texts, *titles, *(legend.get_texts() if legend else ())]
    return [text for text in texts if text.get_visible() and text.get_text().strip()]


def faults(figure: Figure, turned: bool = False) -> list[str]:
    """Say which texts are outside the figure, cross an edge of their axes, or cover another by more than a point.

    ``turned``: names of ticks are turned, so that their boxes say nothing of what they cover.
    """
    figure.canvas.draw()
    point, found = figure.dpi / 72, []
    seen = [(text, Text.get_window_extent(text), ax) for ax in figure.axes for text in shown(ax)]
    own = (figure._suptitle, figure._supxlabel, *(t for legend in figure.legends for t in legend.get_texts()))
    seen += [(text, text.get_window_extent(), None) for text in own if text is not None and text.get_text()]
    for text, box, ax in seen:
        if not _inside(box, figure.bbox, 0.5):
            found.append(f"{text.get_text()!r} is outside the figure")
        if ax is not None and _shared(box, ax.bbox) > point and not _inside(box, ax.bbox, point):
            found.append(f"{text.get_text()!r} is over an edge of its axes")
    for (one, first, _), (other, second, _) in combinations(seen, 2):
        if not (turned and (one.get_rotation() or other.get_rotation())) and _shared(first, second) > point:
            found.append(f"{one.get_text()!r} and {other.get_text()!r} cover each other")
    return found


def _inside(box: Bbox, other: Bbox, room: float) -> bool:
    low = box.x0 >= other.x0 - room and box.y0 >= other.y0 - room
    return low and box.x1 <= other.x1 + room and box.y1 <= other.y1 + room


def _shared(one: Bbox, other: Bbox) -> float:
    """Pixels that two boxes overlap by, the smaller of both ways."""
    return min(min(one.x1, other.x1) - max(one.x0, other.x0), min(one.y1, other.y1) - max(one.y0, other.y0))


def drawn(module: ModuleType, rows: pd.DataFrame, width: float = 7, **options: object) -> Axes:
    """Draw rows into a new figure of this width, as high as the file asks for."""
    _, ax = pyplot.subplots(figsize=module.size(rows, width=width), layout="constrained")
    return module.draw(rows, ax, **options)


def lines(ax: Axes, gid: str) -> list[np.ndarray]:
    """The data (n, 2) of each line of a kind, which is its gid up to a colon."""
    return [np.asarray(line.get_xydata(), float) for line in ax.lines if f"{line.get_gid()}:".startswith(f"{gid}:")]
