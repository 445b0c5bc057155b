"""Points (2,), segments (2, 2) and boxes of a drawing, in inches."""

from __future__ import annotations

import math

import numpy as np

Point = np.ndarray  # (2,)
Segment = np.ndarray  # (2, 2)
Box = tuple[float, float, float, float]  # middle and half sizes
LEG, PAD = 0.3, 0.045  # the length of a leg beyond its box, and the space around names


def crosses(one: Segment, other: Segment) -> bool:
    """Return whether two segments cross.

    >>> crosses(np.array([[0, 0], [2, 2]]), np.array([[0, 2], [2, 0]]))
    True
    """

    def turn(a: Point, b: Point, c: Point) -> float:
        return float((b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]))

    (a, b), (c, d) = one, other
    return bool(turn(a, b, c) * turn(a, b, d) < 0 and turn(c, d, a) * turn(c, d, b) < 0)


def distance(point: Point, segment: Segment) -> float:
    """Return the distance of a point from a segment.

    >>> distance(np.array([1.0, 2.0]), np.array([[0.0, 0.0], [4.0, 0.0]]))
    2.0
    """
    a, along = segment[0], segment[1] - segment[0]
    share = np.clip((point - a) @ along / max(along @ along, 1e-12), 0, 1)
    return float(np.hypot(*(a + share * along - point)))


def overlap(one: Box, other: Box) -> bool:
    """Return whether two boxes overlap.

    >>> overlap((0, 0, 1, 1), (1.5, 0, 1, 1)), overlap((0, 0, 1, 1), (3, 0, 1, 1))
    (True, False)
    """
    return bool(abs(one[0] - other[0]) < one[2] + other[2] and abs(one[1] - other[1]) < one[3] + other[3])


def meets(box: Box, segment: Segment) -> bool:
    """Return whether a segment meets a box.

    >>> meets((0, 0, 1, 1), np.array([[-2, 0], [2, 0]])), meets((0, 0, 1, 1), np.array([[-2, 0], [0, 3]]))
    (True, False)
    """
    half, start, way = box[2:], segment[0] - np.array(box[:2]), segment[1] - segment[0]
    low, high = 0.0, 1.0
    for k in (0, 1):
        if abs(way[k]) < 1e-12:
            if abs(start[k]) > half[k]:
                return False
            continue
        a, b = sorted(((-half[k] - start[k]) / way[k], (half[k] - start[k]) / way[k]))
        low, high = max(low, a), min(high, b)
    return bool(low < high)


def grown(box: Box, by: float) -> Box:
    """Return a box that is larger by so much on each side."""
    return (box[0], box[1], box[2] + by, box[3] + by)


def unit(vector: Point) -> Point:
    """Return the vector of length 1 in the direction of a vector."""
    return vector / max(float(np.hypot(*vector)), 1e-9)


def angle_of(one: Segment, other: Segment) -> float:
    """Return the angle in radians between segments where the other begins or ends at one's beginning; else infinite."""
    starts, ends = (np.allclose(point, one[0]) for point in other)
    if not starts and not ends:
        return float("inf")
    away = other[1] - other[0] if starts else other[0] - other[1]
    return float(np.arccos(np.clip(unit(one[1] - one[0]) @ unit(away), -1, 1)))


def leg(box: Box, angle: float, half: tuple[float, float]) -> tuple[Segment, Box]:
    """Return a leg from the middle of a box, and the box of its name beyond it, with these half sizes."""
    way = np.array([math.cos(angle), math.sin(angle)])
    inside = min(box[2 + k] / max(abs(way[k]), 1e-9) for k in (0, 1))
    end = np.array(box[:2]) + way * (inside + LEG)
    x, y = end + way / np.abs(way).max() * (np.array(half) + PAD)
    return np.stack([np.array(box[:2]), end]), (float(x), float(y), *half)
