"""A tensor network as a drawing: factors as nodes, bonds as lines between them, modes as open legs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyBboxPatch

from tensoradapt.analysis.drawing.names import Drawn, drawn
from tensoradapt.analysis.drawing.placement import Graph, placed
from tensoradapt.analysis.figures import ink
from tensoradapt.analysis.figures.canvas import (
    UNDATED,
    escape_math,
    extent,
    figure_of,
    new_figure,
    scaled,
    wrapped_note,
    write,
)
from tensoradapt.analysis.figures.page import StyleSheet, page, styled
from tensoradapt.analysis.figures.styles import COLOURS
from tensoradapt.checks import check_is, flag, shown, whole
from tensoradapt.errors import TensorAdaptError
from tensoradapt.networks.network import Factor, Network
from tensoradapt.planning.plan import Plan

NODE, NAME, SMALL = 8.0, 7.5, 6.5  # points of the names of factors, of indices, and of factors that are vectors
MARGIN, DOT = 0.08, 0.045  # inches: around a drawing, and the radius of a dot
STEPS = 12  # times a drawing is made larger until its names fit
WIDER = 1.06  # letters are as much wider at other resolutions
BLUE, ORANGE, GREEN, WINE = COLOURS[0], COLOURS[1], COLOURS[2], COLOURS[7]


def network(
    of: Plan | Network,
    ax: Axes | None = None,
    *,
    tensor: int = 0,
    cut: bool = False,
    caption: bool = True,
    style: StyleSheet = None,
) -> Axes:
    """Draw a plan's tensor, or a network: factors as nodes, bonds as lines between them, modes as open legs.

    A dot is an index of three ends or more. Filled factors are trained from random values, hollow ones start at zero,
    grey ones are frozen; factors that are vectors are smaller. Legs are green for index modes, orange for rows and blue
    for columns. The same network gives the same drawing. Examples are in docs/concepts/index.md.

    Args:
        of: a plan, or the ``Network`` of one of its groups.
        ax: axes to draw on; by default a new pyplot figure.
        tensor: which of the plan's tensors, from 0.
        cut: colour the factors of A blue and those of B orange, and the indices between them, whose sizes multiply to
            the rank of the exported LoRA, red.
        caption: whether a new figure has its caption below.
        style: a style sheet, or a mapping of rcParams, for this figure.

    Returns:
        The axes.

    Raises:
        TensorAdaptError: for anything else than a plan or a network, and for a tensor that the plan lacks.
    """
    chosen, zero, title = _chosen(of, tensor)
    if ax is not None:
        check_is("ax", ax, Axes)
    flag(cut, "cut")
    flag(caption, "caption")
    with styled(style):
        diagram = Diagram.of(chosen, zero, cut)
        if ax is None:
            with page(pyplot=True):
                ax = _page(diagram, f"{title}. {_said(diagram)}" if caption else "")
        diagram.paint(ax)
    return ax


def save_network(of: Plan | Network, path: Path, *, tensor: int = 0, cut: bool = False, caption: bool = False) -> Path:
    """Write the drawing of ``network`` as a file; the same network gives the same bytes (docs/concepts/index.md).

    Args:
        of, tensor, cut: as in ``network``.
        path: of the file; its ending says whether it is a PNG (200 dpi), PDF or SVG.
        caption: whether the caption is below.

    Returns:
        The path.

    Raises:
        TensorAdaptError: for another ending, and what ``network`` refuses.
    """
    path = Path(path)
    if (kind := path.suffix[1:]) not in UNDATED:
        raise TensorAdaptError(f"{path} has no ending of a figure; expected one of .{', .'.join(UNDATED)}")
    return write(network_figure(of, tensor=tensor, cut=cut, caption=caption), path.with_suffix(""), (kind,))[0]


def network_figure(of: Plan | Network, *, tensor: int = 0, cut: bool = False, caption: bool = False) -> Figure:
    """Return the drawing of ``network`` as a figure that belongs to no window system."""
    chosen, zero, title = _chosen(of, tensor)
    diagram = Diagram.of(chosen, zero, cut)
    ax = _page(diagram, f"{title}. {_said(diagram)}" if caption else "")
    diagram.paint(ax)
    return figure_of(ax)


def _chosen(of: Plan | Network, tensor: int) -> tuple[Network, str, str]:
    """Return the network to draw, the name of the factor that starts at zero, and what the network is."""
    whole(tensor, "tensor", least=0)
    if isinstance(of, Network):
        return of, of.zero.name, f"A network over '{of.layout}': {of.n_params:,} parameters"
    if not isinstance(of, Plan):
        raise TensorAdaptError(f"a network was to be drawn of {shown(of)}; expected a plan, or a network of its groups")
    if tensor >= len(of.groups):
        raise TensorAdaptError(f"tensor is {tensor}, and the plan has {len(of.groups)}; expected a number below that")
    chosen = of.groups[tensor].network
    name, n = of.spec.name, len(of.groups)
    zero = chosen.zero.name if of.start in ("zero", "gradient") else ""
    which = f"tensor {tensor} of {n}, " if n > 1 else ""
    return chosen, zero, f"{name} over '{chosen.layout}': {which}{chosen.n_params:,} parameters"


@dataclass(frozen=True)
class Diagram:
    """A network with the places of all that is drawn, in inches; ``zero`` names the factor that starts at zero."""

    graph: Graph
    drawn: Drawn
    zero: str
    cut: bool

    @classmethod
    def of(cls, network: Network, zero: str, cut: bool = False) -> Diagram:
        """Return the diagram of a network, as large as its names need."""
        graph = Graph.of(network)
        halves = [*map(_half, network.factors), *((DOT, DOT) for _ in graph.dots)]
        sizes = {label: _text_half(f"{label}={n}", NAME) for label, n in network.sizes.items()}
        between = {(a, b): sizes[label][0] for a, b, label in graph.lines if label}

        def pitch(a: int, b: int) -> float:
            name = between.get((a, b), between.get((b, a), 0.0))
            return halves[a][0] + halves[b][0] + max(0.34, 2 * name + 0.14)

        places = placed(graph, pitch)
        tries = (
            drawn(graph, places * 1.12**step, halves, sizes.__getitem__, step < STEPS) for step in range(STEPS + 1)
        )
        return cls(graph, next(found for found in tries if found is not None), zero, cut)

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """Left, bottom, width and height, in inches, with a margin."""
        boxes = np.array([*self.drawn.boxes, *self.drawn.names.values()])
        low, high = (boxes[:, :2] - boxes[:, 2:]).min(0) - MARGIN, (boxes[:, :2] + boxes[:, 2:]).max(0) + MARGIN
        return (*low, *(high - low))

    def paint(self, ax: Axes) -> None:
        """Draw the diagram on axes, as large as they allow, twice the natural size at most."""
        left, low, width, height = self.bounds
        box, dpi = ax.get_window_extent(), figure_of(ax).dpi
        scale = min(box.width / dpi / width, box.height / dpi / height, 2.0)
        ax.set_axis_off()
        ax.set(xlim=(left, left + width), ylim=(low, low + height))
        ax.set_aspect("equal", adjustable="box")
        for label, segment in self.drawn.segments:
            (line,) = ax.plot(*segment.T, color=self._colour(label), zorder=1, gid=f"line:{label}")
            line.set_linewidth((3.0 if self._is_cut(label) else 1.5) * scale)
            line.set_solid_capstyle("butt")
        for label, (x, y, *_) in self.drawn.names.items():
            text = escape_math(f"{label}={self.graph.network.sizes[label]}")
            look: dict[str, Any] = {
                "fontsize": scaled(NAME) * scale,
                "color": self._colour(label),
                "gid": f"index:{label}",
            }
            ax.text(x, y, text, ha="center", va="center", zorder=4, **look)
        for factor, at in zip(self.graph.network.factors, self.drawn.boxes, strict=False):
            self._node(ax, factor, at, scale)
        for label, (x, y, *_) in zip(self.graph.dots, self.drawn.boxes[len(self.graph.network.factors) :], strict=True):
            ax.add_patch(Circle((x, y), DOT, color=self._colour(label), zorder=2, gid=f"dot:{label}"))

    def _node(self, ax: Axes, factor: Factor, box: tuple[float, ...], scale: float) -> None:
        x, y, wide, high = box
        colour = self._side(factor)
        face, edge, text = colour, colour, ink.paper()
        if not factor.trainable:
            face, edge, text = (ink.shade(0xD8), colour if self.cut else ink.shade(0xA8), ink.dark())
        elif factor.name == self.zero:
            face, text = ink.paper(), ink.dark()
        shape = f"round,pad=0,rounding_size={high if factor.trainable else 0.05}"
        look: dict[str, Any] = {"facecolor": face, "edgecolor": edge, "linewidth": 1.6 * scale, "zorder": 3}
        corner = (x - wide, y - high)
        ax.add_patch(FancyBboxPatch(corner, 2 * wide, 2 * high, shape, gid=f"node:{factor.name}", **look))
        size = scaled(SMALL if _is_vector(factor) else NODE) * scale
        look = {"fontsize": size, "color": text, "zorder": 4, "gid": f"factor:{factor.name}"}
        ax.text(x, y, escape_math(factor.name), ha="center", va="center_baseline", **look)

    def _side(self, factor: Factor) -> str:
        if not self.cut:
            return ink.dark()
        return BLUE if factor.name in self.graph.network.cut.a else ORANGE

    def _is_cut(self, label: str) -> bool:
        return self.cut and label in self.graph.network.cut.crossing

    def _colour(self, label: str) -> str:
        """Return the colour of an index: red where it is cut, else that of its role."""
        layout = self.graph.network.layout
        if self.cut:
            return WINE if self._is_cut(label) else ink.grey()
        roles = ((layout.index, GREEN), (layout.rows, ORANGE), (layout.cols, BLUE))
        return next((colour for modes, colour in roles if label in {mode.name for mode in modes}), ink.grey())


def _is_vector(factor: Factor) -> bool:
    return len(factor.labels) == 1


def _half(factor: Factor) -> tuple[float, float]:
    """Return the half sizes of a factor's node, which has room for its name."""
    wide, _ = _text_half(factor.name, SMALL if _is_vector(factor) else NODE)
    high = scaled(0.11 if _is_vector(factor) else 0.15)
    return max(wide + scaled(0.07), high), high


def _text_half(text: str, size: float) -> tuple[float, float]:
    width, height = extent([escape_math(text)], size)
    return width * WIDER / 2, height / 2


def _said(diagram: Diagram) -> str:
    """Say what the marks of a diagram mean."""
    factors = diagram.graph.network.factors
    zero = next((f.name for f in factors if f.name == diagram.zero), "")
    said = ["Filled: trained."]
    said += [f"Hollow: starts at zero ({zero})."] * bool(zero)
    said += ["Grey: frozen."] * any(not factor.trainable for factor in factors)
    said += ["Dot: an index of three ends or more."] * bool(diagram.graph.dots)
    if diagram.cut:
        found = diagram.graph.network.cut
        return " ".join([*said, f"Blue: A; orange: B; red: the cut, R = {found.rank}."])
    layout = diagram.graph.network.layout
    roles = (("green index modes", layout.index), ("orange rows", layout.rows), ("blue columns", layout.cols))
    return " ".join([*said, f"Legs: {', '.join(role for role, modes in roles if modes)}."])


def _page(diagram: Diagram, caption: str) -> Axes:
    """Return axes of a new figure as large as the diagram and its caption."""
    *_, width, height = diagram.bounds
    width = max(width, 3.4) if caption else width
    figure = new_figure(width, height)
    room = 0.0
    if caption:
        note, high = wrapped_note(figure, caption, width - 0.25)
        room = high + 0.14
        note.set_y(0.06 / (height + room))
        figure.set_size_inches(width, height + room)
    return figure.add_axes((0, room / (height + room), 1, height / (height + room)))
