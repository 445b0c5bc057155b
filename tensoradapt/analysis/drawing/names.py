"""Place the open legs and the names of a drawn network, so that no name touches a line, a factor or another name."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from tensoradapt.analysis.drawing.geometry import PAD, Box, Segment, angle_of, crosses, grown, leg, meets, overlap, unit
from tensoradapt.analysis.drawing.placement import Graph

APART = 0.3  # radians between a leg and the lines of its factor, at least
ALONG = (0.55, 0.62, 0.48, 0.7, 0.4, 0.78, 0.3)  # where on a line, from its busier end, its name may be
TURNS = np.deg2rad([0, 20, -20, 40, -40, 60, -60, 90, -90, 120, -120, 150, -150, 180])
Extent = Callable[[str], tuple[float, float]]  # index -> half sizes of its name


@dataclass
class Drawn:
    """The parts of a drawing so far: boxes of the vertices, segments, and boxes of the names of indices, by index."""

    boxes: list[Box]
    segments: list[tuple[str, Segment]] = field(default_factory=list)  # each with its index
    names: dict[str, Box] = field(default_factory=dict)

    def free(self, box: Box) -> bool:
        """Return whether a name in this box touches nothing."""
        room, others = grown(box, PAD), (*self.boxes, *self.names.values())
        return not any(overlap(room, other) for other in others) and not any(
            meets(room, segment) for _, segment in self.segments
        )

    def leg_free(self, vertex: int, line: Segment, name: Box) -> bool:
        """Return whether a leg of a vertex and its name touch nothing."""
        blocks = [
            *(box for i, box in enumerate(self.boxes) if i != vertex),
            *(grown(b, PAD) for b in self.names.values()),
        ]
        others = [segment for _, segment in self.segments]
        clear = not any(meets(box, line) for box in blocks) and not any(crosses(line, other) for other in others)
        return clear and min((angle_of(line, other) for other in others), default=1.0) > APART and self.free(name)


def drawn(
    graph: Graph, places: np.ndarray, halves: list[tuple[float, float]], extent: Extent, strict: bool = True
) -> Drawn | None:
    """Place the legs and names of a graph at places (vertices, 2); None if one finds no place and has to (``strict``).

    Legs lead away from the neighbours of their factor; those of a row go up from row modes and down from others.
    """
    found = Drawn([(x, y, *half) for (x, y), half in zip(places, halves, strict=True)])
    found.segments += [
        (name or graph.dots[b - len(graph.network.factors)], places[[a, b]]) for a, b, name in graph.lines
    ]
    for vertex, label in graph.legs:
        tried = [leg(found.boxes[vertex], angle, extent(label)) for angle in _angles(graph, places, vertex, label)]
        best = next((each for each in tried if found.leg_free(vertex, *each)), None if strict else tried[0])
        if best is None:
            return None
        found.segments.append((label, best[0]))
        found.names[label] = best[1]
    for label, tries in _bonds(graph, places, extent):
        first, *more = tries
        box = next(filter(found.free, (first, *more)), None if strict else first)
        if box is None:
            return None
        found.names[label] = box
    return found


def _angles(graph: Graph, places: np.ndarray, vertex: int, label: str) -> list[float]:
    """Return the directions that a leg may have, the best first."""
    own = [name for at, name in graph.legs if at == vertex]
    away = sum((unit(places[vertex] - places[other]) for other in graph.near[vertex]), np.zeros(2))
    rows = {mode.name for mode in graph.network.layout.rows}
    inner = math.hypot(*away) < 0.3 or (len(own) > 1 and np.ptp(places[:, 1]) == 0)
    same = [name for name in own if (name in rows) == (label in rows)] if inner else own
    first = math.pi / 2 * (1 if label in rows else -1) if inner else math.atan2(away[1], away[0])
    spread = math.radians(44) * (same.index(label) - (len(same) - 1) / 2)
    sign = -1 if inner and label in rows else 1
    return [first + sign * spread + turn for turn in TURNS]


def _bonds(graph: Graph, places: np.ndarray, extent: Extent) -> Iterator[tuple[str, Iterator[Box]]]:
    """Yield the names of bonds, each with the places it may have: beside its line, or around its dot."""
    for a, b, label in graph.lines:
        ends = [a, b] if len(graph.near[a]) >= len(graph.near[b]) else [b, a]
        if label:
            yield label, _beside(places[ends], extent(label))
    modes = graph.network.layout.size_of
    for i, label in enumerate(graph.dots, len(graph.network.factors)):
        if label not in modes:
            ways = [math.atan2(*(places[other] - places[i])[::-1]) for other in graph.near[i]]
            yield label, _round(places[i], extent(label), ways)


def _beside(line: np.ndarray, half: tuple[float, float]) -> Iterator[Box]:
    along = unit(line[1] - line[0])
    normal = np.array([-along[1], along[0]])
    normal *= 1 if (normal[1], normal[0]) > (0, 0) else -1
    away = float(np.abs(normal) @ np.array(half)) + PAD + 0.02
    for share in ALONG:
        for side in (1, -1):
            x, y = line[0] + share * (line[1] - line[0]) + side * away * normal
            yield float(x), float(y), *half


def _round(dot: np.ndarray, half: tuple[float, float], ways: list[float]) -> Iterator[Box]:
    """Yield boxes around a dot, the closest first, and of these where lines in directions ``ways`` leave most room."""

    def room(angle: float) -> float:
        return min(abs((angle - way + math.pi) % (2 * math.pi) - math.pi) for way in ways)

    for reach in (0.06, 0.14, 0.24):
        for angle in sorted(np.deg2rad(np.arange(90, 450, 15)), key=room, reverse=True):
            way = np.array([math.cos(angle), math.sin(angle)])
            x, y = dot + way * (np.array(half) + PAD + reach)
            yield float(x), float(y), *half
