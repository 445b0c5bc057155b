"""Place the factors of a network in a drawing: a row, a star, two hubs, a ring or a circle; the clearest is taken."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, pairwise

import numpy as np

from tensoradapt.analysis.drawing.geometry import crosses, distance
from tensoradapt.networks.network import Network

FOLD, APART = 7, 1.6  # factors in one row at most; inches between parts that no line joins


@dataclass(frozen=True)
class Graph:
    """A network as a drawing has it. Vertices are the factors, then a dot for each index that has three ends or more.

    A line joins two vertices and has the name of its index, or "" where it leads to the dot of its index. A leg is the
    open end of a mode.
    """

    network: Network
    dots: tuple[str, ...]
    lines: tuple[tuple[int, int, str], ...]
    legs: tuple[tuple[int, str], ...]

    @classmethod
    def of(cls, network: Network) -> Graph:
        """Return the graph of a network. A second bond of two factors has a dot too, so that two lines are seen."""
        dots: list[str] = []
        lines: list[tuple[int, int, str]] = []
        legs: list[tuple[int, str]] = []
        for label in network.sizes:
            held = [i for i, factor in enumerate(network.factors) if label in factor.labels]
            mode = label in network.layout.size_of
            place = held[0]
            if len(held) + mode > 2 or tuple(held) in {(a, b) for a, b, _ in lines}:
                place = len(network.factors) + len(dots)
                dots.append(label)
                lines += [(i, place, "") for i in held]
            elif not mode:
                lines.append((held[0], held[1], label))
            legs += [(place, label)] * mode
        return cls(network, tuple(dots), tuple(lines), tuple(legs))

    @property
    def size(self) -> int:
        """The number of vertices."""
        return len(self.network.factors) + len(self.dots)

    @cached_property
    def near(self) -> list[list[int]]:
        """The neighbours of each vertex."""
        return [sorted({a + b - i for a, b, _ in self.lines if i in (a, b)}) for i in range(self.size)]

    def side(self, vertex: int) -> int:
        """Return -1 for a vertex with a column mode, 1 for one with a row mode, else 0."""
        modes = {label for at, label in self.legs if at == vertex}
        cols, rows = ({mode.name for mode in group} for group in (self.network.layout.cols, self.network.layout.rows))
        return bool(modes & rows) - bool(modes & cols)


def placed(graph: Graph, pitch: Callable[[int, int], float]) -> np.ndarray:
    """Return places (vertices, 2) in inches: the first of the arrangements in which fewest lines cross.

    Args:
        pitch: the least distance of two vertices side by side, whose names and line have to fit.
    """
    unit = max([0.75, *(pitch(a, b) for a, b, _ in graph.lines)])
    round_ = [*_star(graph, unit), *_hubs(graph, unit), *_ring(graph, unit), _circle(graph, unit)]
    row, branches = _row(graph, pitch), len(graph.lines) < graph.size
    return min([row, *round_] if branches else [*round_, row], key=lambda places: _clashes(graph, places))


def _row(graph: Graph, pitch: Callable[[int, int], float]) -> np.ndarray:
    """Return the longest chain from columns to rows, folded where it is long; others are beside their neighbours."""
    chain = [vertex for part in _chains(graph) for vertex in part]
    half = math.ceil(len(chain) / 2) if len(chain) > FOLD else len(chain)
    steps = [pitch(a, b) + (0 if b in graph.near[a] else APART) for a, b in pairwise(chain)]
    x = np.cumsum([0.0, *(steps if half == len(chain) else [max(steps)] * len(steps))])
    places = np.full((graph.size, 2), np.nan)
    for k, vertex in enumerate(chain):
        places[vertex] = (x[k], 0) if k < half else (x[half - 1] + x[half] - x[k], 1.0)
    for vertex in sorted(set(range(graph.size)) - set(chain)):
        middle = np.nanmean([places[other] for other in graph.near[vertex]] or [[0, 0]], axis=0)
        free = (middle + np.array((0, step)) for step in (0.75, -0.75, 1.5, -1.5, 2.25))
        places[vertex] = next((at for at in free if np.nanmin(np.hypot(*(places - at).T)) > 0.4), middle)
    return places


def _chains(graph: Graph) -> Iterator[list[int]]:
    left = set(range(graph.size))
    while left:
        part = _farthest(graph, min(left, key=lambda vertex: (graph.side(vertex), vertex)))
        chain = max(part, _farthest(graph, part[-1]), key=len)
        ends = [(graph.side(vertex), vertex) for vertex in (chain[0], chain[-1])]
        yield chain if ends[0] <= ends[1] else chain[::-1]
        reached = {part[0]}
        while more := {other for vertex in reached for other in graph.near[vertex]} - reached:
            reached |= more
        left -= reached


def _farthest(graph: Graph, start: int) -> list[int]:
    """Return a shortest path to a vertex that is farthest; among several, to one with a row mode."""
    paths, queue = {start: [start]}, [start]
    for vertex in queue:
        for other in graph.near[vertex]:
            if other not in paths:
                paths[other] = [*paths[vertex], other]
                queue.append(other)
    return max(paths.values(), key=lambda path: (len(path), graph.side(path[-1])))


def _star(graph: Graph, unit: float) -> Iterator[np.ndarray]:
    hub = max(range(graph.size), key=lambda vertex: len(graph.near[vertex]))
    if len(graph.near[hub]) == graph.size - 1 > 2:
        yield _around([vertex for vertex in range(graph.size) if vertex != hub], unit, graph.size)


def _hubs(graph: Graph, unit: float) -> Iterator[np.ndarray]:
    """Yield a row between two vertices that all others are joined to, where there are two."""
    full = [v for v in range(graph.size) if len(set(graph.near[v])) >= graph.size - 2]
    if len(full) == 2 and graph.size > 5:
        row = [vertex for vertex in range(graph.size) if vertex not in full]
        places = np.zeros((graph.size, 2))
        places[row, 0] = unit * np.arange(len(row))
        places[full] = [(unit * (len(row) // 2 - 0.5), y) for y in (1.3, -1.4)]
        yield places


def _ring(graph: Graph, unit: float) -> Iterator[np.ndarray]:
    """Yield the longest cycle on a circle, with each other vertex in the middle of its neighbours."""
    cycle = _longest_cycle(graph) if len(graph.lines) < 20 else []
    inside = [vertex for vertex in range(graph.size) if vertex not in cycle]
    if len(cycle) < 3:
        return
    places = _around(cycle, unit * (1.4 if inside else 1), graph.size)
    matrix, right = np.eye(graph.size), places.copy()
    for vertex in inside:
        near = graph.near[vertex]
        matrix[vertex, near] = -1 / max(len(near), 1)
        right[vertex] = 0
    yield np.linalg.lstsq(matrix, right, rcond=None)[0]


def _longest_cycle(graph: Graph) -> list[int]:
    best: list[int] = []
    paths = [[vertex] for vertex in range(graph.size)]
    while paths:
        path = paths.pop()
        for other in graph.near[path[-1]]:
            if other == path[0] and len(path) > 2:
                best = max(best, path, key=lambda cycle: (len(cycle), sum(at in cycle for at, _ in graph.legs)))
            elif other > path[0] and other not in path:
                paths.append([*path, other])
    return best


def _circle(graph: Graph, unit: float) -> np.ndarray:
    """Return all vertices on a circle, in an order that is changed pair by pair while fewer lines cross."""

    def cost(order: list[int]) -> tuple[int, float]:
        places = _around(order, unit, graph.size)
        return _clashes(graph, places), _length(graph, places)

    order, better = list(range(graph.size)), True
    while better:
        swaps = [_swapped(order, i, j) for i, j in combinations(range(graph.size), 2)]
        best = min(swaps, key=cost, default=order)
        better = cost(best) < cost(order)
        order = best if better else order
    return _around(order, unit, graph.size)


def _swapped(order: list[int], i: int, j: int) -> list[int]:
    changed = list(order)
    changed[i], changed[j] = order[j], order[i]
    return changed


def _around(order: list[int], unit: float, size: int) -> np.ndarray:
    """Return vertices clockwise on an ellipse, the first on the left; the others are in the middle."""
    places, n = np.zeros((size, 2)), len(order)
    angle = np.pi - 2 * np.pi * (np.arange(n) + 0.5 * (n % 2 == 0) * (n > 2)) / n
    radius = max(unit, 0.5 * unit / math.sin(math.pi / max(n, 2)))
    places[order] = radius * np.stack([np.cos(angle), 0.85 * np.sin(angle)], axis=1)
    return places


def _clashes(graph: Graph, places: np.ndarray) -> int:
    """Count the pairs of lines that cross, and the vertices that are on a line or on another vertex."""
    ends = [(a, b) for a, b, _ in graph.lines]
    crossing = sum(
        not {*one} & {*other} and crosses(places[[*one]], places[[*other]]) for one, other in combinations(ends, 2)
    )
    on = sum(distance(places[v], places[[*one]]) < 0.25 for one in ends for v in range(graph.size) if v not in one)
    near = sum(np.hypot(*(places[a] - places[b])) < 0.4 for a, b in combinations(range(graph.size), 2))
    return int(crossing + 2 * on + 4 * near)


def _length(graph: Graph, places: np.ndarray) -> float:
    return float(sum(np.hypot(*(places[a] - places[b])) for a, b, _ in graph.lines))
