"""Parts of all figures: type sizes, legend, caption and files."""

from __future__ import annotations

import io
import textwrap
import warnings
from collections.abc import Iterable, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager, get_font
from matplotlib.lines import Line2D
from matplotlib.text import Text

from tensoradapt.analysis.figures.styles import Style, line_look, marker_look
from tensoradapt.errors import few
from tensoradapt.files import replace_file

DARK, GREY = "#404040", "#707070"
MARKER, DPI = 6.0, 200  # points; dots per inch
MANY = 9  # methods from which on a legend is smaller
NAME, TITLE, LEGEND = 8.0, 9.5, 8.5  # points of the type of rows' names, of axes' labels and of legends
UNDATED: dict[str, dict[str, Any]] = {"png": {"Software": None}, "pdf": {"CreationDate": None}}  # the same bytes
# matplotlib brings the first; the others, where they are installed, have the characters that it lacks
FONTS = ("DejaVu Sans", "Noto Sans", "Noto Sans CJK SC", "Noto Sans CJK JP", "WenQuanYi Zen Hei", "Arial Unicode MS")
BOXES = "Glyph .* missing from font"
INSTALLED = {entry.name for entry in fontManager.ttflist}
RC: dict[Any, Any] = {
    "font.family": [name for name in FONTS if name in INSTALLED],
    "font.size": 9,
    "text.hinting": "none",  # else text is wider at some resolutions than where it was measured
    "axes.labelsize": 9.5,
    "pdf.fonttype": 42,
    "savefig.bbox": None,
    "figure.constrained_layout.use": False,
    "figure.autolayout": False,
}


def new_figure(width: float, height: float, layout: Literal["constrained"] | None = None) -> Figure:
    """A new figure of so many inches that belongs to no window system."""
    with mpl.rc_context(RC):
        figure = Figure(figsize=(width, height), dpi=DPI, layout=layout)
        FigureCanvasAgg(figure)
    return figure


def new_axes(width: float, height: float) -> Axes:
    """Axes of a new figure of so many inches."""
    with mpl.rc_context(RC):
        return new_figure(width, height, "constrained").add_subplot()


def row_axes(names: Sequence[str], width: float, height: float, row: float) -> Axes:
    """Axes of so many inches for rows, at least ``row`` high each, and what their names on the left need."""
    wide, high = extent(names)
    return new_axes(width + wide, height + max(row, high + 0.06) * len(names))


def escape_math(text: str) -> str:
    """Escape `$` so that matplotlib does not enter math mode."""
    return text.replace("$", r"\$")


def folded(text: str, width: float = 3.5, size: float = NAME) -> str:
    """Break a text into lines no wider than so many inches and escape it; nothing is left out."""
    whole = extent([escape_math(text)], size)[0]
    columns = len(text) if whole <= width else int(1.2 * len(text) * width / whole)
    while columns > 1 and extent([escape_math(textwrap.fill(text, columns))], size)[0] > width:
        columns -= 1
    return escape_math(textwrap.fill(text, max(columns, 1)))


def extent(texts: Iterable[str], size: float = NAME) -> tuple[float, float]:
    """Width of the widest and height of the highest of some texts, in inches."""
    sizes = [_extent(text, size) for text in texts]
    return max(width for width, _ in sizes), max(height for _, height in sizes)


@lru_cache(maxsize=4096)  # the names of methods are on every figure
def _extent(text: str, size: float) -> tuple[float, float]:
    with mpl.rc_context(RC), warnings.catch_warnings():
        warnings.filterwarnings("ignore", BOXES)  # said once, when the figure is written
        box = new_figure(1, 1).text(0, 0, text, fontsize=size).get_window_extent()
    return box.width / DPI, box.height / DPI


def frame(ax: Axes, grid: str | None = None) -> None:
    """Draw the left and bottom spines alone and, along ``grid`` ("x", "y" or "both"), a pale grid."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[:].set_color(GREY)
    ax.tick_params(which="both", color=GREY, labelcolor=DARK)
    if grid:
        ax.grid(True, axis=grid, color="#ebebeb", linewidth=0.7)  # type: ignore[arg-type]
        ax.set_axisbelow(True)


def legend_above(ax: Axes, methods: dict[str, Style], *more: Line2D, grow: bool = False) -> None:
    """Put a legend of methods, and of ``more``, above the axes, in as many columns as fit.

    ``grow``: make the figure higher if need be.
    """
    size = LEGEND if len(methods) < MANY else LEGEND - 1
    box, entries = ax.get_window_extent(), [*_handles(methods, size), *more]
    look: dict[str, Any] = {"frameon": False, "fontsize": size, "handlelength": 2.2 if len(methods) < MANY else 2.6}
    look |= {"loc": "lower left", "bbox_to_anchor": (0, 1.0), "columnspacing": 1.3, "borderaxespad": 0.2}
    room = min(1.2 * box.width, 0.98 * figure_of(ax).bbox.width - box.x0)
    for columns in range(len(entries), 0, -1):
        legend = ax.legend(handles=entries, ncols=columns, **look)
        if legend.get_window_extent().width <= room:
            break
    if grow:
        figure = figure_of(ax)
        figure.set_figheight(figure.get_figheight() + max(0, legend.get_window_extent().height / figure.dpi - 0.4))


def legend_on_top(figure: Figure, methods: dict[str, Style]) -> None:
    """Put a legend of methods above all panels, in as many columns as fit, and make the figure higher by it."""
    drawn = _handles(methods, LEGEND)
    look: dict[str, Any] = {"frameon": False, "fontsize": LEGEND, "handlelength": 2.2, "columnspacing": 1.3}
    for columns in range(len(drawn), 0, -1):
        legend = figure.legend(handles=drawn, ncols=columns, loc="outside upper left", **look)
        if columns == 1 or legend.get_window_extent().width <= 0.98 * figure.bbox.width:
            break
        legend.remove()
    figure.set_figheight(figure.get_figheight() + legend.get_window_extent().height / figure.dpi)


def _handles(methods: dict[str, Style], size: float) -> list[Line2D]:
    """A method's line and marker each, as they are in the figure."""
    named = [(folded(name, 4.8, size), style) for name, style in methods.items()]
    line = partial(Line2D, [], [], markersize=MARKER, linewidth=0.9)
    return [line(label=name, **line_look(style)) for name, style in named]


def add_caption(figure: Figure, text: str) -> None:
    """Write text below a constrained figure, which grows by the height of the text."""
    width, height = figure.get_size_inches()
    note, high = wrapped_note(figure, text, width - 0.25)
    room = high + 0.14
    figure.set_size_inches(width, height + room)
    note.set_y(0.08 / (height + room))
    figure.set_layout_engine("constrained", rect=(0, room / (height + room), 1, height / (height + room)))


def wrapped_note(figure: Figure, text: str, width: float) -> tuple[Text, float]:
    """Write text at the foot of a figure in lines no wider than so many inches; returns it and its height in inches."""
    look: dict[str, Any] = {"fontsize": 7.5, "color": GREY, "va": "bottom", "linespacing": 1.3, "gid": "caption"}
    note = figure.text(0.12 / figure.get_figwidth(), 0, "", **look)
    for columns in range(160, 20, -2):
        note.set_text(escape_math(textwrap.fill(text, columns)))
        if note.get_window_extent().width <= width * figure.dpi:
            break
    return note, note.get_window_extent().height / figure.dpi


def write(figure: Figure, stem: Path) -> tuple[Path, Path]:
    """Write ``stem``.png and ``stem``.pdf, each whole or not at all; the same figure gives the same bytes."""
    with mpl.rc_context(RC), warnings.catch_warnings():
        warnings.filterwarnings("ignore", BOXES)
        png, pdf = (replace_file(stem.with_name(f"{stem.name}.{kind}"), rendered(figure, kind)) for kind in UNDATED)
    warn_of_boxes(figure)  # after it was drawn, which is when the names of ticks are made
    return png, pdf


def warn_of_boxes(figure: Figure) -> None:
    """Warn once of all characters that no font has, which a figure shows as boxes."""
    texts: set[str] = {part.get_text() for part in figure.findobj(Text)}  # type: ignore[attr-defined]
    if lacking := sorted(set("".join(texts)) - _drawable() - {"\n"}):
        named = few([f"{character} (U+{ord(character):04X})" for character in lacking])
        warnings.warn(
            f"the figure shows boxes for {named}: no font here has them. Install one that does, such as Noto Sans CJK",
            stacklevel=3,
        )


@lru_cache(maxsize=1)
def _drawable() -> frozenset[str]:
    """All characters that the fonts have."""
    paths = [entry.fname for entry in fontManager.ttflist if entry.name in RC["font.family"]]
    return frozenset(chr(code) for path in paths for code in get_font(path).get_charmap())


def rendered(figure: Figure, kind: str, dpi: float = DPI) -> bytes:
    """A figure as the bytes of a file, "png" or "pdf"."""
    buffer, engine = io.BytesIO(), figure.get_layout_engine()
    if engine is not None:  # once, as savefig draws a figure with an engine twice
        engine.execute(figure)
        figure.set_layout_engine(None)
    try:
        figure.savefig(buffer, format=kind, dpi=dpi, metadata=UNDATED[kind])
    finally:
        figure.set_layout_engine(engine)
    return buffer.getvalue()


def draw_marker(ax: Axes, x: float, y: float, style: Style, hollow: bool) -> Line2D:
    """Draw a method's marker, hollow, or filled as its style says; returns it."""
    look = marker_look(style)
    if hollow:
        look |= {"markerfacecolor": "white", "markeredgecolor": style.colour}
    edge = 1.2 if hollow or style.fill != "full" else 0.6
    return ax.plot(x, y, color=style.colour, markersize=MARKER, markeredgewidth=edge, zorder=3, gid="mean", **look)[0]


def figure_of(artist: Artist) -> Figure:
    """The figure that an artist is in."""
    figure = artist.get_figure(root=True)
    assert figure is not None
    return figure
