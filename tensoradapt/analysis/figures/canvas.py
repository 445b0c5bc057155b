"""Parts of all figures: sizes, frame, caption and files."""

from __future__ import annotations

import io
import textwrap
import warnings
from collections.abc import Iterable, Sequence
from functools import lru_cache
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

from tensoradapt.analysis.figures import ink
from tensoradapt.analysis.figures.page import PAGE as PAGE
from tensoradapt.analysis.figures.page import RC as RC
from tensoradapt.analysis.figures.page import page
from tensoradapt.analysis.figures.styles import Style, marker_look
from tensoradapt.errors import few
from tensoradapt.files import replace_file

MARKER, DPI = 6.0, 200  # points; dots per inch
BOXES = "Glyph .* missing from font"
SMALLEST = 4.5  # points of type
NAME, TITLE, LEGEND = 8.0, 9.5, 8.5  # points of the type of rows' names, of axes' labels and of legends
UNDATED: dict[str, dict[str, Any]] = {  # the same bytes
    "png": {"Software": None},
    "pdf": {"CreationDate": None},
    "svg": {"Date": None},
}
KINDS = ("png", "pdf")  # the kinds of files, unless others are asked for
NARROW = 4.5  # inches of a figure, below which legends and names are smaller


def scaled(size: float) -> float:
    """Return a size of type in points: the given one where ``font.size`` is 9, and in proportion elsewhere.

    >>> with mpl.rc_context({"font.size": 18}):
    ...     scaled(8)
    16.0
    """
    return size * float(mpl.rcParams["font.size"]) / RC["font.size"]


def new_figure(width: float, height: float, layout: Literal["constrained"] | None = None) -> Figure:
    """Return a new figure that belongs to no window system, or one of pyplot's if the page says so; sizes in inches."""
    if PAGE.get().pyplot:
        from matplotlib import pyplot  # only here: it may start a window system, and it keeps every figure

        return pyplot.figure(figsize=(width, height), layout=layout)
    with mpl.rc_context(PAGE.get().settings()):
        figure = Figure(figsize=(width, height), dpi=DPI, layout=layout)
        FigureCanvasAgg(figure)
    return figure


def new_axes(width: float, height: float) -> Axes:
    """Return axes of a new figure of so many inches; on a page of another width, the height suits the width."""
    wide = PAGE.get().width or width
    return _axes(wide, height * max(0.6, min(wide / width, 1.2)))


def row_axes(names: Sequence[str], width: float, height: float, row: float) -> Axes:
    """Return new axes for rows, each at least ``row`` inches high, with room for their names on the left."""
    wide, high = extent(names)
    return _axes(PAGE.get().width or width + wide, height + max(row, high + 0.06) * len(names))


def _axes(width: float, height: float) -> Axes:
    figure = new_figure(width, height, "constrained")
    with mpl.rc_context(PAGE.get().settings()):
        return figure.add_subplot()


def page_width(ax: Axes | None) -> float:
    """Return the inches of the figure that axes are in or will be in; infinite where the axes decide it."""
    if ax is None:
        return PAGE.get().width or float("inf")
    return float(figure_of(ax).get_figwidth())


def narrow(ax: Axes | None) -> bool:
    """Return whether a figure is as narrow as the column of a paper."""
    return page_width(ax) < NARROW


def names_width(ax: Axes | None, usual: float = 3.5) -> float:
    """Return the inches that names left of the axes may have."""
    return min(usual, 0.36 * page_width(ax))


def row_names(texts: Sequence[str], ax: Axes | None, usual: float = 3.5) -> tuple[list[str], float]:
    """Return the folded names of rows, and the points of their type, ``scaled``.

    The type is smaller where the rows of given axes are lower than the names.
    """
    size, width = (NAME - 1.5, 1.2 * names_width(ax, usual)) if narrow(ax) else (NAME, names_width(ax, usual))
    names = [folded(text, width, size) for text in texts]
    while ax is not None and size > SMALLEST and extent(names, size)[1] * len(names) > 0.95 * _high(ax):
        size -= 0.5
        names = [folded(text, width + (0 if narrow(ax) else 0.1 * (NAME - size)), size) for text in texts]
    return names, scaled(size)


def _high(ax: Axes) -> float:
    return float(ax.get_window_extent().height) / figure_of(ax).dpi


def cell_width(ax: Axes, names: Sequence[str], columns: int) -> float:
    """Return the inches of a column; axes under a layout engine are taken to have the width that ``names`` leave."""
    figure = figure_of(ax)
    if figure.get_layout_engine() is not None and figure.axes == [ax]:
        return (float(figure.get_figwidth()) - extent(names)[0] - 0.3) / columns
    return float(ax.get_window_extent().width) / figure.dpi / columns


def column_names(texts: Iterable[str], width: float, most: float) -> tuple[float, int]:
    """Return the points of the type, ``scaled``, and the angle of names above columns of so many inches.

    Names are upright where they are wider than the columns, and then smaller where their lines are higher.
    """
    named = list(texts)
    wide, high = extent(named, most)
    if wide <= width:
        return scaled(most), 0
    return scaled(max(SMALLEST, min(most, 0.8 * most * width / high))), 90


def fitting_size(text: str, width: float, most: float) -> float:
    """Return the points of the type, at most ``most``, in which a text is no wider than so many inches.

    The size is 0 where no readable type is as small.
    """
    size = min(most, most * width / extent([text], most)[0])
    return size if size >= SMALLEST else 0.0


def label_width(ax: Axes | None) -> float:
    """Return the inches that the label of x may have."""
    return min(4.4, 0.72 * page_width(ax))


def escape_math(text: str) -> str:
    """Escape `$` so that matplotlib does not enter math mode."""
    return text.replace("$", r"\$")


def folded(text: str, width: float = 3.5, size: float = NAME) -> str:
    """Break a text into lines no wider than so many inches and escape it; nothing is left out.

    ``size`` is that of ``extent``.
    """
    whole = extent([escape_math(text)], size)[0]
    columns = len(text) if whole <= width else int(1.2 * len(text) * width / whole)
    while columns > 1 and extent([escape_math(textwrap.fill(text, columns))], size)[0] > width:
        columns -= 1
    return escape_math(textwrap.fill(text, max(columns, 1)))


def extent(texts: Iterable[str], size: float = NAME) -> tuple[float, float]:
    """Return the width of the widest and the height of the highest text, in inches; ``size`` is not yet ``scaled``."""
    family = tuple(mpl.rcParams["font.family"])
    sizes = [_extent(text, scaled(size), family) for text in texts]
    return max(width for width, _ in sizes), max(height for _, height in sizes)


@lru_cache(maxsize=4096)  # the names of methods are on every figure
def _extent(text: str, size: float, family: tuple[str, ...]) -> tuple[float, float]:
    with mpl.rc_context({**RC, "font.family": list(family)}), page(pyplot=False, own=True), warnings.catch_warnings():
        warnings.filterwarnings("ignore", BOXES)  # said once, when the figure is written
        box = new_figure(1, 1).text(0, 0, text, fontsize=size).get_window_extent()
    return box.width / DPI, box.height / DPI


def frame(ax: Axes, grid: str | None = None) -> None:
    """Draw the left and bottom spines alone and, along ``grid`` ("x", "y" or "both"), a pale grid."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[:].set_color(ink.grey())
    ax.tick_params(which="both", color=ink.grey(), labelcolor=ink.dark())
    if grid:
        ax.grid(True, axis=grid, color=ink.faint(), linewidth=0.7)  # type: ignore[arg-type]
        ax.set_axisbelow(True)


def add_caption(figure: Figure, text: str) -> None:
    """Write text below a constrained figure, which grows by the height of the text."""
    width, height = figure.get_size_inches()
    note, high = wrapped_note(figure, text, width - 0.25)
    room = high + 0.14
    figure.set_size_inches(width, height + room)
    note.set_y(0.08 / (height + room))
    figure.set_layout_engine("constrained", rect=(0, room / (height + room), 1, height / (height + room)))


def wrapped_note(figure: Figure, text: str, width: float) -> tuple[Text, float]:
    """Write text at the foot of a figure in lines no wider than so many inches; return it and its height in inches."""
    look: dict[str, Any] = {"fontsize": scaled(7.5), "color": ink.grey(), "va": "bottom", "linespacing": 1.3}
    look["gid"] = "caption"
    note = figure.text(0.12 / figure.get_figwidth(), 0, "", **look)
    for columns in range(160, 20, -2):
        note.set_text(escape_math(textwrap.fill(text, columns)))
        if note.get_window_extent().width <= width * figure.dpi:
            break
    return note, note.get_window_extent().height / figure.dpi


def write(figure: Figure, stem: Path, kinds: Sequence[str] = KINDS) -> tuple[Path, ...]:
    """Write a figure as ``stem``.png and ``stem``.pdf, or other kinds, and return the paths.

    Each file is written whole or not at all; the same figure gives the same bytes.
    """
    with mpl.rc_context(PAGE.get().settings()), warnings.catch_warnings():
        warnings.filterwarnings("ignore", BOXES)
        paths = [replace_file(stem.with_name(f"{stem.name}.{kind}"), rendered(figure, kind)) for kind in kinds]
    warn_of_boxes(figure)  # after it was drawn, which is when the names of ticks are made
    return tuple(paths)


def warn_of_boxes(figure: Figure) -> None:
    """Warn once of all characters that no font has, which a figure shows as boxes."""
    texts: set[str] = {part.get_text() for part in figure.findobj(Text)}
    if lacking := sorted(set("".join(texts)) - _drawable() - {"\n"}):
        named = few([f"{character} (U+{ord(character):04X})" for character in lacking])
        warnings.warn(
            f"the figure shows boxes for {named}: no font here has them. Install one that does, such as Noto Sans CJK",
            stacklevel=3,
        )


@lru_cache(maxsize=1)
def _drawable() -> frozenset[str]:
    """Return all characters that the fonts have."""
    paths = [entry.fname for entry in fontManager.ttflist if entry.name in RC["font.family"]]
    return frozenset(chr(code) for path in paths for code in get_font(path).get_charmap())


def rendered(figure: Figure, kind: str, dpi: float = DPI) -> bytes:
    """Return a figure as the bytes of a file of one of the kinds in ``UNDATED``."""
    buffer, engine = io.BytesIO(), figure.get_layout_engine()
    if engine is not None:  # once, as savefig draws a figure with an engine twice
        engine.execute(figure)
        figure.set_layout_engine(None)
    try:
        figure.savefig(buffer, format=kind, dpi=dpi, metadata=UNDATED[kind])
    finally:
        figure.set_layout_engine(engine)
    return buffer.getvalue()


def draw_marker(ax: Axes, x: float, y: float, style: Style, hollow: bool, size: float = MARKER) -> Line2D:
    """Draw a method's marker of so many points, hollow or filled as its style says, and return it."""
    look = marker_look(style)
    if hollow:
        look |= {"markerfacecolor": ink.paper(), "markeredgecolor": style.colour}
    edge = 1.2 if hollow or style.fill != "full" else 0.6
    return ax.plot(x, y, color=style.colour, markersize=size, markeredgewidth=edge, zorder=3, gid="mean", **look)[0]


def figure_of(artist: Artist) -> Figure:
    """Return the figure that an artist is in."""
    figure = artist.get_figure(root=True)
    assert figure is not None
    return figure
