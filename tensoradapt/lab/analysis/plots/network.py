"""A tensor network as a drawing: factors as nodes, bonds as lines between them, modes as open legs.

Each connected part is a star, a row, a row between two hubs or a ring where it is one; others are placed by stress
majorization. Bonds are as long as their names need, which stand in a gap of the line.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import combinations, pairwise
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.font_manager import FontProperties, findfont
from matplotlib.patches import Circle, FancyBboxPatch
from matplotlib.textpath import text_to_path

from tensoradapt.checks import check_is, flag, shown, whole
from tensoradapt.errors import TensorAdaptError
from tensoradapt.lab.analysis.names import COLOURS, tone
from tensoradapt.networks.network import Factor, Network
from tensoradapt.planning.plan import Plan

NODE, NAME, SMALL = 8.0, 7.5, 6.5  # points of the names of factors, of indices, and of factors that are vectors
FONT, WIDER = 9.0, 1.06  # the ``font.size`` of these; letters are as much wider at some resolutions
LINE, LEG, DOT, PAD, MARGIN = 0.1, 0.3, 0.045, 0.04, 0.08  # inches: beside a name, a leg, a dot, around names and all
GROWTH, STEPS, LARGEST = 1.07, 20, 2.0  # until all names are free; and of the natural size at most
STARTS, ROUNDS = 12, 200  # how often stress majorization begins, and its steps
LEVEL = 1.1  # times a turned arrangement has to be better than one with a part on the very left
BLUE, ORANGE, GREEN, WINE = COLOURS[0], COLOURS[1], COLOURS[2], COLOURS[7]
Half = np.ndarray  # (2,): half the width and height of a box
Box = np.ndarray  # (4,): its middle and half sizes
Arrangement = tuple[np.ndarray, Mapping[str, float]]  # places (vertices, 2), and the angles of legs that have one


def network(
    source: Plan | Network,
    ax: Axes | None = None,
    *,
    figsize: tuple[float, float] | None = None,
    caption: bool = False,
    tensor: int = 0,
    cut: bool = False,
    names: bool = True,
) -> Axes:
    """Draw a plan's tensor, or a network: factors as nodes, bonds as lines between them, modes as open legs.

    A dot is an index of three ends or more. Filled factors are trained from random values, hollow ones start at zero,
    grey ones are frozen; factors that are vectors are smaller. Legs are green for index modes, orange for rows and blue
    for columns. The same network gives the same drawing. Examples are in docs/concepts/index.md.

    Args:
        source: a plan, or the ``Network`` of one of its groups.
        ax: axes to draw into; by default those of a new pyplot figure, which ``ax.figure.savefig`` writes.
        figsize: width and height of a new figure in inches; by default what the names need.
        caption: whether a new figure says below what it shows.
        tensor: which of the plan's tensors, from 0.
        cut: colour the factors of A blue and those of B orange, and the indices between them, whose sizes multiply to
            the rank of the exported LoRA, red.
        names: whether factors and indices are named; False for a small picture.

    Returns:
        The axes.

    Raises:
        TensorAdaptError: for anything else than a plan or a network, and for a tensor that the plan lacks.

    >>> import tensoradapt as ta
    >>> ax = ta.plots.network(ta.plan("tiny-random-bert", "cp", rank=2))
    >>> len(ax.texts) > 5
    True
    """
    flag(caption, "caption")
    if ax is not None:
        return draw(source, ax, tensor=tensor, cut=cut, names=names)
    from matplotlib import pyplot  # only here: it may start a window system, and it keeps every figure

    width, height = figsize or size(source, tensor=tensor, names=names)
    width = max(width, 3.4 * (caption and not figsize))
    said = textwrap.wrap(described(source, tensor=tensor, cut=cut), int(18 * width / _scale())) if caption else []
    room = 0.15 * _scale() * len(said) + 0.12 * caption
    made = pyplot.figure(figsize=(width, height + room * (not figsize)))
    share = room / made.get_figheight()
    look: dict[str, Any] = {"fontsize": NAME * _scale(), "color": tone(0.44)}
    made.text(0.02, share / 2, "\n".join(said), va="center", parse_math=False, gid="caption", **look)
    return draw(source, made.add_axes((0, share, 1, 1 - share)), tensor=tensor, cut=cut, names=names)


def size(source: Plan | Network, *, tensor: int = 0, names: bool = True) -> tuple[float, float]:
    """Return the width and height in inches that a drawing needs for names of the usual size."""
    width, height = 2 * _scale() * _laid(_chosen(source, tensor)[0], names).bounds[2:]
    return float(width), float(height)


def described(source: Plan | Network, *, tensor: int = 0, cut: bool = False) -> str:
    """Say what a drawing shows, and what its marks mean."""
    chosen, zero, title = _chosen(source, tensor)
    said = [f"{title}. Filled: trained."]
    said += [f"Hollow: starts at zero ({zero})."] * bool(zero)
    said += ["Grey: frozen."] * any(not factor.trainable for factor in chosen.factors)
    said += ["Dot: an index of three ends or more."] * bool(Graph.of(chosen).dots)
    if cut:
        return " ".join([*said, f"Blue: A; orange: B; red: the cut, R = {chosen.cut.rank}."])
    layout = chosen.layout
    roles = (("green index modes", layout.index), ("orange rows", layout.rows), ("blue columns", layout.cols))
    return " ".join([*said, f"Legs: {', '.join(role for role, modes in roles if modes)}."])


def draw(source: Plan | Network, ax: Axes, *, tensor: int = 0, cut: bool = False, names: bool = True) -> Axes:
    """Draw ``network`` into axes, as large as they allow and twice the usual size at most, and return them."""
    check_is("ax", ax, Axes)
    flag(cut, "cut")
    flag(names, "names")
    chosen, zero, _ = _chosen(source, tensor)
    drawn, colours = _laid(chosen, names), _colours(chosen, cut)
    inches = np.array(ax.get_window_extent().size) / ax.figure.dpi
    scale = min(*inches / drawn.bounds[2:] / 2, LARGEST if names else 1.0)
    stroke = scale if names else 1.0
    low, high = (drawn.bounds[:2] + sign * inches / scale / 2 for sign in (-1, 1))
    ax.set_axis_off()
    ax.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), aspect="equal")
    for label, line in drawn.lines:
        look: dict[str, Any] = {"color": colours[label], "solid_capstyle": "butt", "gid": f"line:{label}", "zorder": 1}
        ax.plot(*line.T, linewidth=(3.0 if cut and label in chosen.cut.crossing else 1.5) * stroke, **look)
    for label, (x, y, *_) in zip(drawn.dots, drawn.boxes[len(chosen.factors) :], strict=True):
        ax.add_patch(Circle((x, y), DOT, color=colours[label], zorder=2, gid=f"dot:{label}"))
    text: dict[str, Any] = {"ha": "center", "zorder": 4, "parse_math": False, "visible": names}
    for label, (x, y, *_) in drawn.names.items():
        look = {"va": "center", "fontsize": NAME * scale, "color": colours[label], "gid": f"index:{label}"}
        ax.text(x, y, f"{label}={chosen.sizes[label]}", **text, **look)
    for factor, (x, y, wide, high) in zip(chosen.factors, drawn.boxes, strict=False):
        face, edge, ink = _inks(chosen, factor, zero, cut)
        shape = f"round,pad=0,rounding_size={high if factor.trainable else 0.05}"
        look = {"facecolor": face, "edgecolor": edge, "linewidth": 1.6 * stroke, "zorder": 3}
        node = FancyBboxPatch((x - wide, y - high), 2 * wide, 2 * high, shape, gid=f"node:{factor.name}", **look)
        ax.add_patch(node)
        points = (SMALL if len(factor.labels) == 1 else NODE) * scale
        look = {"va": "center_baseline", "fontsize": points, "color": ink, "gid": f"factor:{factor.name}"}
        ax.text(x, y, factor.name, **text, **look)
    return ax


def _chosen(source: Plan | Network, tensor: int) -> tuple[Network, str, str]:
    """Return the network to draw, the name of the factor that starts at zero, and what the network is."""
    whole(tensor, "tensor", least=0)
    if isinstance(source, Network):
        return source, source.zero.name, f"A network over '{source.layout}': {source.n_params:,} parameters"
    if not isinstance(source, Plan):
        raise TensorAdaptError(f"source is {shown(source)}; expected a plan, or a network of one of its groups")
    if tensor >= (n := len(source.groups)):
        raise TensorAdaptError(f"tensor is {tensor}, and the plan has {n}; expected a number below that")
    chosen = source.groups[tensor].network
    zero = chosen.zero.name if source.begins.update == "zero" and not source.begins.nearest else ""
    which = f"tensor {tensor} of {n}, " if n > 1 else ""
    return chosen, zero, f"{source.spec.name} over '{chosen.layout}': {which}{chosen.n_params:,} parameters"


def _inks(network: Network, factor: Factor, zero: str, cut: bool) -> tuple[str, str, str]:
    """Return the colours of a factor's face, edge and name."""
    side = (BLUE if factor.name in network.cut.a else ORANGE) if cut else tone(0.25)
    if not factor.trainable:
        return tone(0.85), side if cut else tone(0.66), tone(0.25)
    return (tone(1), side, tone(0.25)) if factor.name == zero else (side, side, tone(1))


def _colours(network: Network, cut: bool) -> dict[str, str]:
    """Return the colour of each index: red where it is cut, else that of its role."""
    found = dict.fromkeys(network.sizes, tone(0.44))
    if cut:
        return found | dict.fromkeys(network.cut.crossing, WINE)
    roles = ((network.layout.index, GREEN), (network.layout.rows, ORANGE), (network.layout.cols, BLUE))
    return found | {mode.name: colour for modes, colour in roles for mode in modes}


def _scale() -> float:
    return float(mpl.rcParams["font.size"]) / FONT


def _half(text: str, points: float) -> Half:
    """Return half the width and height of a text in inches."""
    width, height, _ = text_to_path.get_text_width_height_descent(text, FontProperties(size=points), False)
    return np.array([width * WIDER, height]) / 144


@dataclass(frozen=True)
class Graph:
    """A network as a drawing has it. Vertices are the factors, then a dot for each index that has three ends or more.

    A line joins two vertices and has the name of its index, or "" where it leads to the dot of its index. ``halves``
    are half sizes of vertices, ``texts`` those of indices' names, ``legs`` the open modes of each vertex.
    """

    dots: tuple[str, ...]
    lines: dict[tuple[int, int], str]
    legs: list[list[str]]
    halves: list[Half]
    texts: dict[str, Half]
    sides: dict[str, int]  # modes of columns, which are drawn on the left: -1; of rows: 1; others: 0

    @classmethod
    def of(cls, network: Network, names: bool = True) -> Graph:
        """Return the graph of a network. A second bond of two factors has a dot too, so that two lines are seen."""
        dots: list[str] = []
        lines: dict[tuple[int, int], str] = {}
        legs: dict[int, list[str]] = {}
        roles = (network.layout.cols, network.layout.index, network.layout.rows)
        sides = {mode.name: side for side, modes in enumerate(roles, -1) for mode in modes}
        for label in network.sizes:
            held = [i for i, factor in enumerate(network.factors) if label in factor.labels]
            mode, position = label in sides, held[0]
            if len(held) + mode > 2 or tuple(held) in lines:
                position = len(network.factors) + len(dots)
                dots.append(label)
                lines |= {(i, position): "" for i in held}
            elif not mode:
                lines[held[0], held[1]] = label
            legs.setdefault(position, []).extend([label] * mode)
        halves = [_node_half(factor, names) for factor in network.factors] + [np.full(2, DOT)] * len(dots)
        texts = {label: _half(f"{label}={n}", NAME) if names else np.zeros(2) for label, n in network.sizes.items()}
        return cls(tuple(dots), lines, [legs.get(i, []) for i in range(len(halves))], halves, texts, sides)

    @cached_property
    def near(self) -> list[list[int]]:
        """The neighbours of each vertex."""
        return [sorted(a + b - i for a, b in self.lines if i in (a, b)) for i in range(len(self.halves))]

    def side(self, vertex: int) -> int:
        """Return on which side of a drawing the legs of a vertex lead away: -1 for the left, 1 for the right, or 0."""
        return int(np.sign(sum(self.sides[label] for label in self.legs[vertex])))

    def parts(self) -> Iterator[list[int]]:
        """Yield the vertices of each connected part."""
        left = list(range(len(self.halves)))
        while left:
            part = left[:1]
            for vertex in part:
                part += [other for other in self.near[vertex] if other not in part]
            left = [vertex for vertex in left if vertex not in part]
            yield part

    def inside(self, part: Sequence[int]) -> list[tuple[int, int]]:
        """Return the ends of the lines of a part."""
        return [ends for ends in self.lines if ends[0] in part]

    def length(self, a: int, b: int, angle: float) -> float:
        """Return the inches that a line needs in a direction, with room for its name."""
        label = self.lines.get((a, b)) or self.lines.get((b, a))
        between = 2 * _reach(self.texts[label] + PAD, angle) if label and self.texts[label][0] else 0.15
        return _reach(self.halves[a], angle) + _reach(self.halves[b], angle) + 2 * LINE + between


def _node_half(factor: Factor, names: bool) -> Half:
    vector = len(factor.labels) == 1
    high = 0.11 if vector else 0.15
    wide = _half(factor.name, SMALL if vector else NODE)[0] + 0.07 if names else high
    return np.array([max(high, wide), high])


def _way(angle: float) -> np.ndarray:
    return np.array([math.cos(angle), math.sin(angle)])


def _reach(half: Half, angle: float) -> float:
    """Return how far the edge of a box is from its middle in a direction."""
    return float((half / np.maximum(np.abs(_way(angle)), 1e-9)).min())


def _arrangements(graph: Graph, part: list[int]) -> Iterator[Arrangement]:
    """Yield the arrangements that a part may have, the best first."""
    hub = max(part, key=lambda vertex: len(graph.near[vertex]))
    arms, tree = graph.near[hub], len(graph.inside(part)) == len(part) - 1
    if tree and len(arms) == len(part) - 1 and len(arms) > 2 + any(not graph.legs[arm] for arm in arms):
        yield _round(graph, part, _by_side(arms, graph.side)), {}
    elif tree:
        yield _row(graph, part, tree)
    else:
        yield from _between_hubs(graph, part)
        if len(graph.inside(part)) < 20:
            yield _round(graph, part, _longest_cycle(graph, part)), {}
            yield _row(graph, part, tree)
    yield from _by_stress(graph, part)


def _round(graph: Graph, part: Sequence[int], order: Sequence[int]) -> np.ndarray:
    """Return places of vertices on a circle, in this order, and of all others in the middle of their neighbours.

    The circle is so large that every line has the length that it needs.
    """
    matrix, positions = np.eye(len(graph.halves)), np.zeros((len(graph.halves), 2))
    positions[order] = [_way(angle) for angle in _angles([graph.side(vertex) for vertex in order])]
    for vertex in {*part} - {*order}:
        matrix[vertex, graph.near[vertex]] = -1 / len(graph.near[vertex])
    found, needed = np.asarray(np.linalg.solve(matrix, positions)), 0.6
    for a, b in graph.inside(part):
        x, y = found[b] - found[a]
        needed = max(needed, graph.length(a, b, math.atan2(y, x)) / max(math.hypot(x, y), 0.1))
    return found * needed


def _angles(sides: Sequence[int]) -> np.ndarray:
    """Return equal angles in this order, of which those of columns are on the left and those of rows on the right.

    The first that are as good have a part on the very left; to be taken, others have to be ``LEVEL`` times better.
    """
    n = len(sides)
    turns = (0.0, 0.5, 0.75, 0.25)[: 4 if n % 2 else 2]
    tries = [(turn, first, way) for turn in turns for first in range(n) for way in (1, -1)]
    found = [math.pi - 2 * math.pi * (way * (np.arange(n) - first) + turn) / n for turn, first, way in tries]
    scores = sides @ np.cos(found).T * [1 if turn else LEVEL for turn, *_ in tries]
    return found[int(np.argmax(np.round(scores, 6)))]


def _by_side(items: Sequence[Any], side: Callable[[Any], int]) -> list[Any]:
    """Return items in the order of a circle: columns, half of those of no side, rows, the other half."""
    cols, none, rows = ([item for item in items if side(item) == value] for value in (-1, 0, 1))
    half = (len(none) + 1) // 2
    return [*cols[::-1], *none[:half], *rows, *none[half:][::-1]]


def _row(graph: Graph, part: list[int], tree: bool) -> Arrangement:
    """Return the longest chain from columns to rows as a straight line, each other vertex above or below it.

    Where a part is no tree, the chain is along bonds of two factors alone.
    """
    paths = [path for vertex in part for path in _paths(graph, [vertex], tree)]
    chain = max(paths, key=lambda path: (len(path), graph.side(path[-1]) - graph.side(path[0])))
    positions, ways = np.full((len(graph.halves), 2), np.nan), dict[str, float]()
    positions[chain, 0] = np.cumsum([0.0, *(graph.length(a, b, 0) for a, b in pairwise(chain))])
    positions[chain, 1] = 0
    left = {*part} - {*chain}
    while left:
        ready = [vertex for vertex in sorted(left) if {*graph.near[vertex]} - left]
        _place_beside(graph, positions, vertex := min(ready, key=lambda v: len({*graph.near[v]} & left)))
        left.remove(vertex)
    for vertex in chain:
        legs = graph.legs[vertex]
        if len(chain) == 1:
            order = _by_side(legs, graph.sides.__getitem__)
            ways |= dict(zip(order, _angles([graph.sides[label] for label in order]), strict=True))
        elif tree and (len(legs) > 1 or vertex not in (chain[0], chain[-1])):
            taken = any(positions[other][1] > 0 for other in graph.near[vertex])
            up = [label for label in legs if graph.sides[label] == 1 and not taken]
            ways |= _fan(up[::-1], math.pi / 2) | _fan([label for label in legs if label not in up], -math.pi / 2)
    return positions, ways


def _place_beside(graph: Graph, positions: np.ndarray, vertex: int) -> None:
    """Place a vertex above or below its neighbours, at the first place that is free."""
    near = [other for other in graph.near[vertex] if not np.isnan(positions[other, 0])]
    x, high = positions[near, 0].mean(), max(graph.length(vertex, other, math.pi / 2) for other in near)
    low, top = positions[near, 1].min(), positions[near, 1].max()
    for k in (1, -1, 2, -2, 3, -3):
        positions[vertex] = x, (top if k > 0 else low) + k * high
        if np.nanmin(np.hypot(*(np.delete(positions, vertex, 0) - positions[vertex]).T)) > high / 2:
            return


def _paths(graph: Graph, path: list[int], dots: bool) -> list[list[int]]:
    """Return the longest paths that begin with this one; through dots too, or along named lines alone."""
    a = path[-1]
    more = [b for b in graph.near[a] if b not in path and (dots or graph.lines.get((a, b)) or graph.lines.get((b, a)))]
    return [found for b in more for found in _paths(graph, [*path, b], dots)] or [path]


def _fan(labels: Sequence[str], middle: float, spread: float = 0.75) -> dict[str, float]:
    return {label: middle + spread * (k - (len(labels) - 1) / 2) for k, label in enumerate(labels)}


def _between_hubs(graph: Graph, part: Sequence[int]) -> Iterator[Arrangement]:
    """Yield a row between two vertices that all others are joined to, if a part is one; legs lead outwards."""
    row = sorted((vertex for vertex in part if len(graph.near[vertex]) == 2), key=graph.side)
    hubs = [vertex for vertex in part if vertex not in row]
    if len(hubs) != 2 or len(row) < 3 or any(graph.near[vertex] != hubs for vertex in row):
        return
    positions, half = np.zeros((len(graph.halves), 2)), len(row) // 2
    for sign, outwards in ((-1, row[:half][::-1]), (1, row[half:])):
        x = 0.45
        for vertex in outwards:
            wide = graph.halves[vertex][0]
            positions[vertex, 0] = sign * (x + wide)
            x += 2 * wide + 0.3 + max((LEG + 2 * graph.texts[label][0] for label in graph.legs[vertex]), default=0.0)
    positions[hubs, 1] = np.array([1.0, -1.0]) * max(1.0, 0.36 * np.abs(positions[:, 0]).max())
    yield positions, {}


def _longest_cycle(graph: Graph, part: Sequence[int]) -> list[int]:
    """Return a longest cycle; among several that with most legs."""
    best, paths = list[int](), [[vertex] for vertex in part]
    while paths:
        path = paths.pop()
        for other in graph.near[path[-1]]:
            if other == path[0] and len(path) > 2:
                path = path if path[1] < path[-1] else [path[0], *path[:0:-1]]
                best = max(best, path, key=lambda cycle: (len(cycle), sum(len(graph.legs[v]) for v in cycle)))
            elif other > path[0] and other not in path:
                paths.append([*path, other])
    return best


def _by_stress(graph: Graph, part: list[int]) -> Iterator[Arrangement]:
    """Yield places whose distances are near those along lines, of the fewest crossings first; columns on the left.

    They are found by majorization from several starts (Gansner, Koren and North, Graph Drawing 2004).
    """
    apart, found = np.where(np.eye(len(part)) > 0, 0, np.inf), []
    for a, b in graph.inside(part):
        i, j = part.index(a), part.index(b)
        apart[i, j] = apart[j, i] = graph.length(a, b, 0.5)
    for k in range(len(part)):
        apart = np.minimum(apart, apart[:, k, None] + apart[k])
    for seed in range(STARTS):
        at, error = _stress(apart, np.random.default_rng(seed).normal(size=(len(part), 2)))
        x, y = np.array([graph.side(vertex) for vertex in part]) @ (at - at.mean(0))
        angle = math.atan2(y, x) if abs(x) + abs(y) > 0.1 else 0.0
        positions = np.zeros((len(graph.halves), 2))
        positions[part] = at @ np.stack([_way(-angle), _way(math.pi / 2 - angle)])
        found.append((_crossings([positions[[*ends]] for ends in graph.inside(part)]), error, seed, positions))
    yield from ((positions, {}) for *_, positions in sorted(found, key=lambda each: each[:3])[:4])


def _stress(apart: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, float]:
    """Return places (n, 2) whose distances are near ``apart`` (n, n), and how far they are off."""
    weight = np.where(apart > 0, 1 / np.where(apart > 0, apart, 1) ** 2, 0)
    inverse = np.linalg.pinv(np.diag(weight.sum(1)) - weight)
    for _ in range(ROUNDS):
        gap = np.hypot(*(at[:, None] - at).transpose(2, 0, 1))
        ratio = np.where(gap > 1e-9, weight * apart / np.where(gap > 1e-9, gap, 1), 0)
        at = inverse @ ((np.diag(ratio.sum(1)) - ratio) @ at)
    return at, round(float((weight * (gap - apart) ** 2).sum()), 3)


def _crossings(lines: Sequence[np.ndarray]) -> int:
    """Count the pairs of segments (2, 2) that cross."""

    pairs = np.array([*combinations(lines, 2)]).reshape(-1, 2, 2, 2)  # pairs, lines, ends, x and y

    def sides(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        (x, y), (u, v) = (one[:, 1] - one[:, 0]).T[:, :, None], (other - one[:, :1]).transpose(2, 0, 1)
        return np.sign(np.round(x * v - y * u, 9)).prod(1)

    return int(((sides(pairs[:, 0], pairs[:, 1]) < 0) & (sides(pairs[:, 1], pairs[:, 0]) < 0)).sum())


@dataclass
class Drawn:
    """The places of all that is drawn, in inches: boxes of vertices and names, and segments (2, 2) with their index."""

    dots: tuple[str, ...]
    boxes: list[Box]
    lines: list[tuple[str, np.ndarray]]
    names: dict[str, Box]

    @property
    def bounds(self) -> Box:
        """The box around all, with a margin."""
        boxes = np.array([*self.boxes, *self.names.values()])
        low, high = (boxes[:, :2] - boxes[:, 2:]).min(0), (boxes[:, :2] + boxes[:, 2:]).max(0)
        return np.hstack([(low + high) / 2, (high - low) / 2 + MARGIN])

    def clashes(self) -> int:
        """Count the overlaps of boxes, and of boxes with lines that do not end in them."""
        boxes = np.array([*self.boxes, *self.names.values()])
        boxes[:, 2:] += np.where(np.arange(len(boxes)) < len(self.boxes), 2 * PAD, PAD / 2)[:, None]
        apart = np.abs(boxes[:, None, :2] - boxes[:, :2]) < boxes[:, None, 2:] + boxes[:, 2:]
        along = np.linspace(0, 1, 50)[:, None]
        points = np.array([a + along * (b - a) for _, (a, b) in self.lines]).reshape(-1, 50, 1, 2)
        on = (np.abs(points - boxes[:, :2]) < boxes[:, 2:]).all(-1)
        own = (np.abs(points - boxes[:, :2])[:, [0, -1]].max(-1) < 1e-9).any(1)
        return (int(apart.all(-1).sum()) - len(boxes)) // 2 + int((on.any(1) & ~own).sum())


def _laid(network: Network, names: bool) -> Drawn:
    return _laid_with(network, names, str(findfont(FontProperties())))


@lru_cache(maxsize=128)
def _laid_with(network: Network, names: bool, font: str) -> Drawn:
    """Return the drawing of a network, its connected parts below one another."""
    graph = Graph.of(network, names)
    boxes: dict[int, Box] = {}
    whole, low = Drawn(graph.dots, [], [], {}), 0.0
    for part in graph.parts():
        found = _best(graph, part)
        x, y, _, high = found.bounds
        shift = np.array([-x, low - y - high, 0, 0])
        low -= 2 * high + LEG / 2
        boxes |= zip(part, (box + shift for box in found.boxes), strict=True)
        whole.lines += [(label, line + shift[:2]) for label, line in found.lines]
        whole.names |= {label: box + shift for label, box in found.names.items()}
    whole.boxes += [boxes[vertex] for vertex in sorted(boxes)]
    return whole


def _best(graph: Graph, part: list[int]) -> Drawn:
    """Return the first drawing of a part without clashes and crossings, or that with the fewest."""
    tries: list[tuple[int, int, Drawn]] = []
    for positions, ways in _arrangements(graph, part):
        for step in range(STEPS):
            found = _built(graph, part, positions * GROWTH**step, ways)
            if not (clashes := found.clashes()):
                break
        tries.append((clashes, _crossings([line for _, line in found.lines]), found))
        if tries[-1][:2] == (0, 0):
            break
    return min(tries, key=lambda each: each[:2])[2]


def _built(graph: Graph, part: Sequence[int], positions: np.ndarray, ways: Mapping[str, float]) -> Drawn:
    """Return a drawing with vertices at these places, and its legs and names."""
    found = Drawn(graph.dots, [np.hstack([positions[vertex], graph.halves[vertex]]) for vertex in part], [], {})
    for a, b in graph.inside(part):
        label = graph.lines[a, b] or graph.dots[b - len(graph.halves)]
        if graph.lines[a, b] and graph.texts[label][0]:
            along = positions[b] - positions[a]
            angle, inch = math.atan2(along[1], along[0]), along / max(np.hypot(*along), 1e-9)
            near, far = _reach(graph.halves[a], angle), np.hypot(*along) - _reach(graph.halves[b], angle)
            middle, gap = positions[a] + inch * (near + far) / 2, inch * _reach(graph.texts[label] + PAD, angle)
            found.names[label] = np.hstack([middle, graph.texts[label]])
            found.lines += [
                (label, np.stack([positions[a], middle - gap])),
                (label, np.stack([middle + gap, positions[b]])),
            ]
        else:
            found.lines.append((label, positions[[a, b]]))
    for vertex in part:
        for label, angle in _legs(graph, positions, vertex, ways).items():
            way, half = _way(angle), graph.texts[label]
            end = positions[vertex] + way * (_reach(graph.halves[vertex], angle) + LEG)
            beyond = end + way / np.abs(way).max() * (half + PAD * (half[0] > 0))
            found.lines.append((label, np.stack([positions[vertex], end])))
            found.names[label] = np.hstack([beyond, half])
    for vertex in part:
        label = graph.dots[vertex - len(graph.halves)] if vertex >= len(graph.halves) - len(graph.dots) else ""
        if label and label not in graph.sides:
            found.names[label] = _beside_dot(graph, positions, vertex, found, graph.texts[label])
    return found


def _gaps(graph: Graph, positions: np.ndarray, vertex: int) -> list[tuple[float, float]]:
    """Return the angles between neighbouring lines of a vertex, the widest first, each with its middle."""
    ways = sorted(math.atan2(*(positions[other] - positions[vertex])[::-1]) for other in graph.near[vertex])
    gaps = [(round(b - a, 6), (a + b) / 2) for a, b in pairwise([*ways, *(way + 2 * math.pi for way in ways[:1])])]
    return sorted(gaps, key=lambda gap: -gap[0])


def _legs(graph: Graph, positions: np.ndarray, vertex: int, ways: Mapping[str, float]) -> dict[str, float]:
    """Return the angles of the legs of a vertex: those that are given, else a fan in the widest gap of its lines."""
    legs = graph.legs[vertex]
    if not legs or legs[0] in ways:
        return {label: ways[label] for label in legs}
    gap, middle = _gaps(graph, positions, vertex)[0]
    return _fan(legs if math.cos(middle) < 0 else legs[::-1], middle, min(0.75, gap / (len(legs) + 1)))


def _beside_dot(graph: Graph, positions: np.ndarray, vertex: int, found: Drawn, half: Half) -> Box:
    """Return the place of the name of a dot that is closest to it and free; of all in use, the last."""
    for reach in (0.05, 0.1, 0.15, 0.2, 0.3):
        for _, middle in _gaps(graph, positions, vertex):
            at = positions[vertex] + _way(middle) * (DOT + reach + _reach(half, middle))
            box = np.hstack([at, half])
            tried = Drawn(found.dots, found.boxes, found.lines, {**found.names, "": box})
            if not tried.clashes():
                return box
    return box
