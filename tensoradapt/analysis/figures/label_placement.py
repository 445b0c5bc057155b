"""Where to put small labels around points so that none covers another, a marker or an error bar. Numbers only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tensoradapt.analysis.statistics.intervals import Floats

Box = tuple[float, float, float, float]  # left, bottom, right, top
DIRECTIONS = ((0, 1), (1, 0), (0, -1), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1))
RING = tuple((float(np.cos(a)), float(np.sin(a))) for a in np.linspace(0, 2 * np.pi, 24, endpoint=False))


@dataclass(frozen=True)
class Place:
    """The centre of a label; ``leader`` if it is too far from its point to be read without a line."""

    x: float
    y: float
    leader: bool


def place_labels(
    anchors: Sequence[tuple[float, float]],
    sizes: Sequence[tuple[float, float]],
    obstacles: Sequence[Box],
    lines: Floats,
    bounds: Box,
    near: Sequence[float],
    far: Sequence[float],
) -> list[Place | None]:
    """A place for each label, most important first; None where there is no free one.

    ``anchors`` are the points, ``sizes`` width and height of the labels, ``lines`` (k, 2) closely spaced points on
    lines that labels may cross but had better not, ``near`` and ``far`` the gaps between point and label to try,
    without and with a leader. All in one unit. Law: no label overlaps an obstacle or another label or leaves the
    bounds; no leader runs through an obstacle or label other than its own.

    >>> place_labels([(50, 50)], [(20, 10)], [], np.empty((0, 2)), (0, 0, 100, 100), near=[5], far=[20])
    [Place(x=50.0, y=60.0, leader=False)]
    """
    taken, crossed, found = np.array(obstacles, float).reshape(-1, 4), lines, []
    for anchor, size in zip(anchors, sizes, strict=True):
        place = _best(anchor, size, taken, crossed, bounds, near, far)
        found.append(place)
        if place is not None:
            taken = np.vstack([taken, _box(place.x, place.y, size)])
            if place.leader:
                crossed = np.vstack([crossed, np.repeat(_sample(anchor, (place.x, place.y)), 3, axis=0)])
    return found


def overlap(box: Box, others: Floats) -> bool:
    """True if ``box`` shares area with one of ``others`` (k, 4).

    >>> overlap((0, 0, 2, 2), np.array([[1, 1, 3, 3]])), overlap((0, 0, 1, 1), np.array([[1, 1, 3, 3]]))
    (True, False)
    """
    left, bottom, right, top = box
    apart = (others[:, 0] >= right) | (others[:, 2] <= left) | (others[:, 1] >= top) | (others[:, 3] <= bottom)
    return bool((~apart).any())


def _best(
    anchor: tuple[float, float],
    size: tuple[float, float],
    taken: Floats,
    crossed: Floats,
    bounds: Box,
    near: Sequence[float],
    far: Sequence[float],
) -> Place | None:
    """The free place that crosses the fewest lines: of all near ones, else of the nearest far gap that has one."""
    tiers = [[_at(anchor, size, way, gap, False) for gap in near for way in DIRECTIONS]]
    tiers += [[_at(anchor, size, way, gap, True) for way in RING] for gap in far]
    for places in tiers:
        free = [place for place in places if _is_free(place, anchor, size, taken, bounds)]
        if free:
            return min(free, key=lambda place: _inside(_box(place.x, place.y, size), crossed))
    return None


def _at(
    anchor: tuple[float, float], size: tuple[float, float], way: tuple[float, float], gap: float, leader: bool
) -> Place:
    """A label in direction ``way``: its edge ``gap`` from the anchor, its corner a little nearer on diagonals."""
    reach = gap if leader or 0 in way else 0.6 * gap
    return Place(
        float(anchor[0] + way[0] * (reach + size[0] / 2)), float(anchor[1] + way[1] * (reach + size[1] / 2)), leader
    )


def _is_free(place: Place, anchor: tuple[float, float], size: tuple[float, float], taken: Floats, bounds: Box) -> bool:
    box = _box(place.x, place.y, size)
    if box[0] < bounds[0] or box[1] < bounds[1] or box[2] > bounds[2] or box[3] > bounds[3] or overlap(box, taken):
        return False
    if not place.leader:
        return True
    x, y = anchor
    own = (taken[:, 0] <= x) & (x <= taken[:, 2]) & (taken[:, 1] <= y) & (y <= taken[:, 3])
    path = _sample(anchor, (place.x, place.y))
    return not any(_inside(tuple(other), path) for other in taken[~own])


def _box(x: float, y: float, size: tuple[float, float]) -> Box:
    return x - size[0] / 2, y - size[1] / 2, x + size[0] / 2, y + size[1] / 2


def _inside(box: Box, points: Floats) -> int:
    x, y = points[:, 0], points[:, 1]
    return int(((x > box[0]) & (x < box[2]) & (y > box[1]) & (y < box[3])).sum())


def _sample(start: tuple[float, float], end: tuple[float, float]) -> Floats:
    return np.linspace(start, end, 30)


def spread(heights: Sequence[float], gap: float) -> list[float]:
    """The ascending ``heights``, moved as little as needed to be ``gap`` apart.

    >>> spread([0.0, 1.0, 50.0], 11)
    [-5.0, 6.0, 50.0]
    """
    moved = list(heights)
    for _ in range(len(moved) ** 2):
        for i in range(len(moved) - 1):
            short = gap - (moved[i + 1] - moved[i])
            if short > 1e-9:
                moved[i] -= short / 2
                moved[i + 1] += short / 2
    return moved
