"""Labels on the frontier plot: ranks beside their points, names of the references right of the axes.

A rank label covers no marker, error bar or other label and stays inside the axes. It goes next to its point where there
is room, else further away with a leader line.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cbook import pts_to_poststep
from matplotlib.patheffects import withStroke
from matplotlib.text import Annotation

from tensoradapt.analysis.figures import ink
from tensoradapt.analysis.figures.canvas import figure_of, folded, narrow, scaled
from tensoradapt.analysis.figures.panel import Mark, Panel
from tensoradapt.analysis.figures.styles import Style
from tensoradapt.analysis.old_tables.comparable import REFERENCES
from tensoradapt.analysis.old_tables.frontier import Point
from tensoradapt.analysis.statistics.intervals import Floats
from tensoradapt.text import size_text

RANK, CROWDED = 7.0, 24  # points of the type; points of a figure up to which each has its rank
Pair = tuple[float, float]
Box = tuple[float, float, float, float]  # left, bottom, right, top
DIRECTIONS = ((0, 1), (1, 0), (0, -1), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1))
RING = tuple((float(np.cos(a)), float(np.sin(a))) for a in np.linspace(0, 2 * np.pi, 24, endpoint=False))


def name_references(panel: Panel, against: dict[str, Mark]) -> None:
    """Write the references' names right of the axes at their lines, moved apart where two lines are close."""
    ax, scale = panel.ax, figure_of(panel.ax).dpi / 72
    lines = dict(sorted(against.items(), key=lambda pair: panel.height(pair[1])))
    small = narrow(ax)
    look: dict[str, Any] = {"textcoords": "offset points", "color": ink.dark(), "va": "center"}
    look["fontsize"] = scaled(6.5 if small else 7.5)
    look |= {"xycoords": ("axes fraction", "data"), "annotation_clip": False}
    names = {kind: folded(name, 0.6, 6.5) if small else name for kind, name in REFERENCES.items()}
    named = [(f"{names[kind]}\n{mark.mean:.3f}", panel.height(mark)) for kind, mark in lines.items()]
    texts = [ax.annotate(text, (1, height), (5, 0), **look) for text, height in named]
    heights = [_pixels(ax, 1, height)[1] for _, height in named]
    gap = max((text.get_window_extent().height for text in texts), default=0.0) + scale
    for text, at, height in zip(texts, spread(heights, gap), heights, strict=True):
        text.set_position((5, (at - height) / scale))


def name_ranks(panel: Panel, points: Sequence[Point], marks: Sequence[Mark], styles: dict[str, Style]) -> None:
    """Label the mark of each point with its rank; those on the frontier choose their place first.

    Of more than ``CROWDED`` points only those on the frontier and on the strip are labelled.
    """
    ax, obstacles, lines = panel.ax, _obstacles(panel.ax, "mean", "bar"), _line_pixels(panel.ax)
    ticks = _obstacles(ax, "seed", "lost")
    named = [(point, mark) for point, mark in zip(points, marks, strict=True) if point.rank is not None]
    left, bottom, right, top = ax.get_window_extent().extents
    middle = _pixels(ax, 1, panel.low)[1]
    for strip, bounds in ((False, (left, middle, right, top)), (True, (left, bottom, right, middle))):
        own = [pair for pair in named if panel.on_strip(pair[1]) == strip]
        if not strip and len(named) > CROWDED:
            own = [pair for pair in own if pair[0].on_frontier]
        own.sort(key=lambda pair: not pair[0].on_frontier)
        texts = [_rank_label(ax, point, mark.x, panel.height(mark), styles[point.method]) for point, mark in own]
        _place_ranks(ax, texts, (obstacles, ticks), lines, bounds, leaders=not strip)


def _place_ranks(
    ax: Axes,
    texts: Sequence[Annotation],
    obstacles: tuple[list[Box], list[Box]],
    lines: Floats,
    bounds: Box,
    leaders: bool,
) -> None:
    """Move texts to free places within ``bounds``, with leader lines where allowed; remove those that have none.
    ``obstacles``: of labels and leaders, and of labels alone.
    """
    scale = figure_of(ax).dpi / 72
    extents = [text.get_window_extent() for text in texts]
    anchors = [_pixels(ax, *text.xy) for text in texts]
    places = place_labels(
        anchors,
        [(extent.width, extent.height) for extent in extents],
        obstacles[0],
        lines,
        bounds,
        ticks=obstacles[1],
        near=[scale * gap for gap in ((4, 5.5, 7) if leaders else (4, 7, 10, 13, 16, 19))],
        far=[scale * gap for gap in (range(9, 62, 4) if leaders else ())],
    )
    for text, anchor, place in zip(texts, anchors, places, strict=True):
        if place is None:
            text.remove()
            continue
        offset = ((place.x - anchor[0]) / scale, (place.y - anchor[1]) / scale)
        text.set_position(offset)
        if place.leader:
            line = {"arrowstyle": "-", "linewidth": 0.6, "shrinkA": 3, "shrinkB": 3, "alpha": 0.8}
            line["color"] = text.get_color()
            ax.annotate("", text.xy, offset, textcoords="offset points", arrowprops=line, zorder=2.2)


def _rank_label(ax: Axes, point: Point, x: float, y: float, style: Style) -> Annotation:
    look: dict[str, Any] = {"fontsize": scaled(RANK), "ha": "center", "va": "center", "zorder": 5, "gid": "rank"}
    look |= {"color": ink.mixed(style.colour, ink.ink(), 0.28), "textcoords": "offset points"}
    halo = [withStroke(linewidth=1.6, foreground=ink.paper())]
    return ax.annotate(size_text(point.rank, short=True), (x, y), (0, 0), path_effects=halo, **look)


def _obstacles(ax: Axes, *kinds: str) -> list[Box]:
    """Return the boxes of markers, error bars or ticks of seeds, in pixels."""
    scale, boxes = figure_of(ax).dpi / 72, []
    for line in ax.get_lines():
        if (gid := line.get_gid()) not in kinds:
            continue
        at = line.get_transform().transform(np.asarray(line.get_xydata(), float))
        wide = 1.2 if gid == "bar" else line.get_markersize() / 2 + 0.5
        half = scale * np.array([wide, 0.9 if gid in ("seed", "lost") else wide])
        each = [at] if gid == "bar" else at[:, None]
        boxes += [(*(ends.min(0) - half), *(ends.max(0) + half)) for ends in each]
    return boxes


def _line_pixels(ax: Axes) -> Floats:
    """Return points (k, 2) about two pixels apart on every line of the axes."""
    pieces = [np.empty((0, 2))]
    for line in ax.get_lines():
        data = np.asarray(line.get_xydata(), float)
        if line.get_drawstyle() == "steps-post":
            data = np.transpose(np.asarray(pts_to_poststep(*data.T)))
        for a, b in itertools.pairwise(line.get_transform().transform(data)):
            if np.isfinite([a, b]).all():  # a line has a gap where a point is on the strip
                pieces.append(np.linspace(a, b, 2 + int(np.hypot(*(b - a)) / 2)))
    return np.concatenate(pieces)


def _pixels(ax: Axes, x: float, y: float) -> Pair:
    across, up = ax.transData.transform((x, y))
    return float(across), float(up)


class Place(NamedTuple):
    """The centre of a label; ``leader`` where it is too far from its point to be read without a line."""

    x: float
    y: float
    leader: bool


def place_labels(
    anchors: Sequence[Pair],  # the points
    sizes: Sequence[Pair],  # width and height of each label
    obstacles: Sequence[Box],  # which no label or leader may cover
    lines: Floats,  # (k, 2), closely spaced points on lines that labels had better not cross
    bounds: Box,  # which no label may leave
    near: Sequence[float],  # gaps between point and label without a leader
    far: Sequence[float],  # and with one
    ticks: Sequence[Box] = (),  # which no label may cover, and a leader may
) -> list[Place | None]:
    """Return a place for each label, the most important first; None where no place is free. Lengths have one unit.

    No label overlaps an obstacle or another label; no leader runs through an obstacle or label other than its own.

    >>> place_labels([(50, 50)], [(20, 10)], [], np.empty((0, 2)), (0, 0, 100, 100), near=[5], far=[20])
    [Place(x=50.0, y=60.0, leader=False)]
    """
    taken, places = np.array([*ticks, *obstacles], float).reshape(-1, 4), []
    for anchor, size in zip(anchors, sizes, strict=True):
        place = None
        for tier in _tiers(anchor, size, near, far):
            if free := [at for at in tier if _is_free(at, anchor, size, taken, bounds, len(ticks))]:
                place = min(free, key=lambda at: _n_inside(_box(at, size), lines))
                taken = np.vstack([taken, _box(place, size)])
                break
        places.append(place)
        if place is not None and place.leader:
            lines = np.vstack([lines, np.repeat(_leader(anchor, place), 3, axis=0)])
    return places


def _tiers(anchor: Pair, size: Pair, near: Sequence[float], far: Sequence[float]) -> Iterator[list[Place]]:
    """Yield places to try together: all near ones, then those of each far gap."""

    def at(way: Pair, gap: float, leader: bool) -> Place:
        reach = gap if leader or 0 in way else 0.6 * gap  # a corner comes a little nearer than an edge
        x, y = (float(a + w * (reach + s / 2)) for a, w, s in zip(anchor, way, size, strict=True))
        return Place(x, y, leader)

    yield [at(way, gap, False) for gap in near for way in DIRECTIONS]
    yield from ([at(way, gap, True) for way in RING] for gap in far)


def _is_free(place: Place, anchor: Pair, size: Pair, taken: Floats, bounds: Box, n_ticks: int) -> bool:
    left, bottom, right, top = box = _box(place, size)
    if left < bounds[0] or bottom < bounds[1] or right > bounds[2] or top > bounds[3] or overlap(box, taken):
        return False
    if not place.leader:
        return True
    taken = taken[n_ticks:]
    of_anchor = (taken[:, :2] <= anchor).all(1) & (anchor <= taken[:, 2:]).all(1)
    path = _leader(anchor, place)
    return not any(_n_inside(tuple(other), path) for other in taken[~of_anchor])


def _box(place: Place, size: Pair) -> Box:
    return place.x - size[0] / 2, place.y - size[1] / 2, place.x + size[0] / 2, place.y + size[1] / 2


def overlap(box: Box, others: Floats) -> bool:
    """Return whether ``box`` shares area with one of ``others`` (k, 4).

    >>> overlap((0, 0, 2, 2), np.array([[1, 1, 3, 3]])), overlap((0, 0, 1, 1), np.array([[1, 1, 3, 3]]))
    (True, False)
    """
    return bool(((others[:, :2] < box[2:]) & (others[:, 2:] > box[:2])).all(1).any())


def _n_inside(box: Box, points: Floats) -> int:
    return int(((points > box[:2]) & (points < box[2:])).all(1).sum())


def _leader(anchor: Pair, place: Place) -> Floats:
    return np.linspace(anchor, (place.x, place.y), 30)


def spread(places: Sequence[float], gap: float) -> list[float]:
    """Return the ascending ``places``, moved as little as needed, in squares, to be ``gap`` apart.

    >>> spread([0.0, 1.0, 50.0], 11)
    [-5.0, 6.0, 50.0]
    """
    groups: list[list[float]] = []  # groups of places that touch, each as far left as its number of gaps
    for i, place in enumerate(places):
        groups.append([place - i * gap])
        while len(groups) > 1 and fmean(groups[-2]) > fmean(groups[-1]):
            groups[-2:] = [groups[-2] + groups[-1]]
    at = [fmean(group) for group in groups for _ in group]
    return [middle + i * gap for i, middle in enumerate(at)]
