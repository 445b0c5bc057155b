"""Text on the frontier plot: ranks beside their points, names beside the reference lines."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cbook import pts_to_poststep
from matplotlib.colors import to_rgb
from matplotlib.patheffects import withStroke
from matplotlib.text import Annotation

from tensoradapt.analysis.figures.canvas import DARK, MARKER, Style
from tensoradapt.analysis.figures.label_placement import Box, place_labels, spread
from tensoradapt.analysis.statistics.intervals import Floats, Interval
from tensoradapt.analysis.tables.frontier import Point, rank_text

REFERENCES = {"head": ("head only", ":"), "full": ("full fine-tuning", "--")}


def name_references(ax: Axes, against: dict[str, Interval]) -> None:
    """Names right of the axes, at their lines, moved apart where two lines are close."""
    kinds = sorted(against, key=lambda kind: against[kind].mean)
    scale = _scale(ax)
    texts = [_reference_label(ax, kind, against[kind].mean) for kind in kinds]
    heights = [_pixels(ax, 1, against[kind].mean)[1] for kind in kinds]
    gap = max((text.get_window_extent().height for text in texts), default=0.0) + scale
    for text, at, height in zip(texts, spread(heights, gap), heights, strict=True):
        text.set_position((5, (at - height) / scale))


def _reference_label(ax: Axes, kind: str, mean: float) -> Annotation:
    return ax.annotate(
        f"{REFERENCES[kind][0]}\n{mean:.3f}",
        xy=(1, mean),
        xycoords=("axes fraction", "data"),
        xytext=(5, 0),
        textcoords="offset points",
        fontsize=7.5,
        color=DARK,
        va="center",
        annotation_clip=False,
    )


def name_ranks(ax: Axes, found: Sequence[Point], styles: dict[str, Style]) -> None:
    """Rank labels; those of the frontier get the first choice of place."""
    named = sorted((point for point in found if point.rank is not None), key=lambda point: not point.on_frontier)
    scale = _scale(ax)
    texts = [_rank_label(ax, point, styles[point.label]) for point in named]
    extents = [text.get_window_extent() for text in texts]
    bounds = ax.get_window_extent()
    anchors = [_pixels(ax, point.cost, point.interval.mean) for point in named]
    places = place_labels(
        anchors,
        [(extent.width, extent.height) for extent in extents],
        _obstacles(ax, found, scale),
        _lines(ax, found),
        (bounds.x0, bounds.y0, bounds.x1, bounds.y1),
        near=[scale * gap for gap in (4, 5.5, 7)],
        far=[scale * gap for gap in range(9, 40, 4)],
    )
    for point, text, anchor, place in zip(named, texts, anchors, places, strict=True):
        if place is None:
            text.remove()
            continue
        offset = ((place.x - anchor[0]) / scale, (place.y - anchor[1]) / scale)
        text.set_position(offset)
        if place.leader:
            _leader(ax, point, offset, styles[point.label])


def _rank_label(ax: Axes, point: Point, style: Style) -> Annotation:
    text = ax.annotate(
        rank_text(point.rank),
        xy=(point.cost, point.interval.mean),
        xytext=(0, 0),
        textcoords="offset points",
        fontsize=7,
        color=tuple(0.72 * part for part in to_rgb(style.colour)),
        ha="center",
        va="center",
        zorder=5,
        path_effects=[withStroke(linewidth=1.6, foreground="white")],
    )
    text.set_gid("rank")
    return text


def _leader(ax: Axes, point: Point, offset: tuple[float, float], style: Style) -> None:
    arrow = {"arrowstyle": "-", "color": style.colour, "linewidth": 0.6, "shrinkA": 3, "shrinkB": 3, "alpha": 0.8}
    ax.annotate(
        "",
        xy=(point.cost, point.interval.mean),
        xytext=offset,
        textcoords="offset points",
        arrowprops=arrow,
        zorder=2.2,
    )


def _obstacles(ax: Axes, found: Sequence[Point], scale: float) -> list[Box]:
    """Markers and error bars in pixels."""
    half, thin = scale * (MARKER / 2 + 0.5), scale * 1.2
    boxes = []
    for point in found:
        x, y = _pixels(ax, point.cost, point.interval.mean)
        boxes.append((x - half, y - half, x + half, y + half))
        if np.isfinite(point.interval.low):
            ends = [_pixels(ax, point.cost, end)[1] for end in (point.interval.low, point.interval.high)]
            boxes.append((x - thin, ends[0], x + thin, ends[1]))
    return boxes


def _lines(ax: Axes, found: Sequence[Point]) -> Floats:
    """Points two pixels apart, or nearly, on every line of the axes, (k, 2)."""
    pieces = [np.empty((0, 2))]
    for line in ax.get_lines():
        data = np.asarray(line.get_xydata(), float)
        if line.get_drawstyle() == "steps-post":
            data = np.transpose(np.asarray(pts_to_poststep(*data.T)))
        corners = line.get_transform().transform(data)
        for a, b in itertools.pairwise(corners):
            pieces.append(np.linspace(a, b, 2 + int(np.hypot(*(b - a)) / 2)))
    return np.concatenate(pieces)


def _pixels(ax: Axes, x: float, y: float) -> tuple[float, float]:
    at = ax.transData.transform((x, y))
    return float(at[0]), float(at[1])


def _scale(ax: Axes) -> float:
    """Pixels per point."""
    figure = ax.get_figure(root=True)
    assert figure is not None
    return figure.dpi / 72
