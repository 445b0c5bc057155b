"""What several figures share: a mean with its interval, limits of a score, ticks of what was run, free places.

Sizes and gaps are points, colours follow the style sheet in force, and every mean has a gid that says what it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise, product
from textwrap import fill
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import scipy
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.markers import CARETDOWN
from matplotlib.patheffects import withStroke
from matplotlib.text import Annotation, Text
from matplotlib.ticker import NullLocator
from matplotlib.transforms import Transform, offset_copy
from numpy.typing import NDArray
from scipy.spatial import KDTree

from tensoradapt.lab.analysis.cell_texts import decimals
from tensoradapt.lab.analysis.names import LINES, Look, display, tone
from tensoradapt.planning.size import Size

Floats = NDArray[np.float64]
NARROW = 3.2  # inches of axes below which marks are smaller and texts fewer
SHORT = {"head": "base", "full": "full", "bitfit": "BitFit"}  # names of references in the least of axes
GOOD = "#1f7a4d"  # of what is shown to lose less than the margin
GREY, PALE, FAINT = 0.42, 0.8, 0.93  # shares of paper: texts and lines of second rank, frames, grids


def figure_of(ax: Axes) -> Figure:
    """Return the whole figure that axes are in."""
    found = ax.get_figure(root=True)
    assert found is not None, "axes that were removed have no figure"
    return found


def inches(ax: Axes) -> float:
    """Return the width of axes, which a layout engine may still change a little."""
    return float(ax.get_window_extent().width / figure_of(ax).dpi)


def narrow(ax: Axes) -> bool:
    """Say whether axes are those of a column of a paper, or of a subplot."""
    return inches(ax) < NARROW


def has_room(ax: Axes) -> bool:
    """Say whether the figure has a layout engine, which makes room for what stands beside axes."""
    return figure_of(ax).get_layout_engine() is not None


def zone_colour() -> str:
    """Return the colour of the zone of what hardly matters; a dark paper needs more of it to be seen."""
    return tone(0.14 if sum(to_rgb(tone(1))) > 1.5 else 0.28, GOOD)


def tone_of(outcome: str) -> str:
    """Return the colour of a verdict's words: green where less than the margin is lost, grey where little is known."""
    if outcome == "kept":
        return tone(0.7, GOOD, ink=True)
    return tone(GREY if outcome in ("open", "failed") else 0)


def plain(text: str) -> str:
    """Return a name as matplotlib shows it letter by letter: a dollar sign begins no formula."""
    return text.replace("$", r"\$")


def wrapped(drawn: Figure, text: str, inches: float, size: str | float) -> str:
    """Return a text in lines of a width, by the mean width of its letters."""
    measured = Text(text=plain(text), fontsize=size, figure=drawn).get_window_extent()
    letters = int(0.95 * inches * drawn.dpi * len(text) / max(measured.width, 1))
    return plain(fill(text, max(12, letters), break_on_hyphens=False))


def fit_text(ax: Axes) -> None:
    """Make the text of narrow axes smaller, where the style sheet leaves it at the size of all text."""
    if narrow(ax):
        if mpl.rcParams["xtick.labelsize"] == mpl.rcParams["ytick.labelsize"] == "medium":
            ax.tick_params(labelsize="small")
        if mpl.rcParams["axes.labelsize"] == "medium":
            ax.xaxis.label.set_fontsize("small")
            ax.yaxis.label.set_fontsize("small")


def bare(ax: Axes, *sides: str) -> None:
    """Hide the sides of the frame (top and right, where none is named)."""
    ax.spines[list(sides or ("top", "right"))].set_visible(False)


def number(value: float, digits: int = 3) -> str:
    """Return a score as it is read: three decimals, one of a percentage; the minus sign is that of the style sheet.

    >>> number(0.8137), number(-81.37), number(12345.6)
    ('0.814', '−81.4', '12,345.6')
    """
    text = f"{value:,.{digits if abs(value) < 10 else 1}f}"
    return text.replace("-", "−") if mpl.rcParams["axes.unicode_minus"] else text


def signed(value: float, digits: int = 3) -> str:
    """Return a difference with its sign, that of 0 too; a small one has as many digits as it takes.

    >>> signed(0.0), signed(-0.0), signed(-0.0004).replace("−", "-"), signed(0.02)
    ('+0.000', '+0.000', '-0.0004', '+0.020')
    """
    return f"{'+' if value >= 0 else ''}{number(value + 0.0, decimals(value, digits))}"


def rank_text(rank: object) -> str:
    """Return a rank as figures write it: "r=8", of ranks by bond the largest, and nothing where there is none.

    >>> rank_text(8.0), rank_text("layer=2 out=4"), rank_text(None)
    ('r=8', 'r≤4', '')
    """
    return Size.of({"rank": rank}).short


def score_name(rows: pd.DataFrame, of: str = "test") -> str:
    """Return what an axis of scores is called."""
    metric = rows["metric"].iloc[0]
    return f"{of} score" if pd.isna(metric) else plain(f"{of} {metric}".replace("_", " "))


def said(row: pd.Series) -> str:
    """Return the gid of a mean, which a page shows where the pointer is."""
    name = f"{display(row['method'])} {rank_text(row['rank'])}".strip()
    size = "" if pd.isna(row["n_params"]) else f", {row['n_params']:,.0f} parameters"
    seeds = f" ({row['low']:.4f} to {row['high']:.4f}, {row['n_seeds']} seeds)" if row["n_seeds"] > 1 else " (one seed)"
    return f"mean: {name}{size}: {row['mean']:.4f}{seeds}"


def point(ax: Axes, x: float, row: pd.Series, look: Look, filled: bool = True, shift: float = 0) -> None:
    """Draw a row of ``summarise`` at x: its mean (or ``y``) as a marker, its interval as a bar that the axes cut.

    Limits of y must be set. A mean below them, and a size whose runs failed, is an arrow on the lower edge. ``shift``:
    points right of x, where x is a choice and no measurement, as a rank.
    """
    y, limits, size = row.get("y", row["mean"]), ax.get_ylim(), 4.5 if narrow(ax) else 6
    mark: dict[str, Any] = {"color": look.colour, "transform": moved(ax, shift), "gid": said(row)}
    if y < limits[0] or row.get("outcome") == "failed":
        ax.plot(x, limits[0], marker=CARETDOWN, ms=6, mew=0, clip_on=False, zorder=5, **mark)
        return
    if pd.notna(row["low"]):
        bar: dict[str, Any] = {**mark, "color": tone(0.7, look.colour), "gid": "bar", "solid_capstyle": "butt"}
        ax.plot([x, x], np.clip([row["low"], row["high"]], *limits), lw=size / 3.75, zorder=2.5, **bar)
    edge = tone(1) if filled and look.marker != "x" else look.colour
    face = look.colour if filled else tone(1)
    ax.plot(x, y, look.marker, mfc=face, mec=edge, ms=size, mew=1, zorder=3 + filled, **mark)


def moved(ax: Axes, shift: float) -> Transform:
    """Return the data's transform, so many points to the right."""
    return offset_copy(ax.transData, figure_of(ax), shift, units="points")


def score_limits(rows: pd.DataFrame) -> tuple[float, float]:
    """Return limits of y that hold the seeds that are not lost, within the metric's own, and intervals little longer.

    Other intervals are cut, as those of three seeds can be many times as long as all else; a mean that counts lost
    seeds may be below (``point``). The least height is 2 % of the metric's range.
    """
    values, lost = (np.concatenate([np.asarray(each) for each in rows[name]]) for name in ("scores", "lost"))
    values = values[~lost.astype(bool)] if not lost.all() else values
    bottom, top = (float(rows[name].astype(float).dropna().head(1).sum()) for name in ("metric_low", "metric_high"))
    whole = top - bottom if 0 < top - bottom < math.inf else 0.0
    low, high = values.min(), values.max()
    pad = max(0.08 * (high - low), (0.02 * whole - (high - low)) / 2) or 0.05 * abs(high) or 0.05
    ends = rows[["low", "high"]].astype(float)
    near = ends[(ends["low"] > low - 2.5 * pad) & (ends["high"] < high + 2.5 * pad)]
    low, high = min([low, *(near["low"] + 0.8 * pad)]), max([high, *(near["high"] - 0.8 * pad)])
    if not whole:
        return float(low - pad), float(high + pad)
    return float(max(low - pad, bottom - 0.02 * whole)), float(min(high + pad, top + 0.02 * whole))


def references(ax: Axes, rows: pd.DataFrame) -> None:
    """Draw references as lines with their names; out of the limits, which must be set, as arrows at the edge."""
    (low, high), means = ax.get_ylim(), rows["mean"]
    points = ax.get_window_extent().height / _scale(ax) / (high - low)
    outside = {low: 0, high: 0}  # names at each edge so far
    for _, row in rows.sort_values("mean").iterrows():
        mean, name = row["mean"], display(row["method"]) if inches(ax) > 2 else SHORT.get(row["kind"], "")
        at, name = min(max(mean, low), high), f"{plain(name)} {number(mean)}"
        close = ((means > mean) & ((means - mean) * points < 13)).any()  # another one has the line above this one
        up = at == low or (at == mean and not close and (high - mean) * points >= 13)
        if at == mean:
            ax.axhline(at, color=tone(GREY), lw=0.9, ls=(0, (4, 2)), zorder=1, gid=said(row))
        else:
            name = (r"$\downarrow$ " if at == low else r"$\uparrow$ ") + name  # mathematics has them in every font
        offset = 2 + outside.get(at, 0) * (9 if narrow(ax) else 10.5)
        outside |= {at: outside[at] + 1} if at != mean else {}
        right = mean < low  # where scores grow with x that corner is empty
        look: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
        look |= {"color": tone(GREY), "fontsize": "x-small" if narrow(ax) else "small", "path_effects": halo()}
        look |= {"ha": "right" if right else "left", "va": "bottom" if up else "top", "zorder": 5.5}
        ax.annotate(name, (0.99 if right else 0.01, at), (0, offset if up else -offset), **look)


def value_ticks(ax: Axes, values: Iterable[float], text: Callable[[float], str], room: float) -> None:
    """Tick a logarithmic x at values that were run, the first ones first, where each has so many inches; see limits."""
    low, high = ax.get_xlim()
    apart, ticks = room * math.log(high / low) / inches(ax), list[float]()
    for value in values:
        if all(abs(math.log(value / other)) > apart for other in ticks):
            ticks.append(value)
    ax.set_xticks(sorted(ticks), [text(value) for value in sorted(ticks)])
    ax.xaxis.set_minor_locator(NullLocator())


def label(ax: Axes, text: str, x: float, y: float, colour: str, size: object = "small") -> Annotation:
    """Add a label of a point of the data, which ``place`` moves; its colour is darker, as text needs it."""
    look: dict[str, Any] = {"textcoords": "offset points", "ha": "center", "va": "center", "path_effects": halo()}
    look |= {"color": tone(0.72, colour, ink=True), "fontsize": size, "zorder": 6}
    return ax.annotate(plain(text), (x, y), (0, 0), **look)


def end_names(ax: Axes, names: Mapping[str, tuple[float, str]]) -> None:
    """Write names (with the last y and the colour of their lines) right of the axes, apart where two are close."""
    low, high = ax.get_ylim()
    wide = 15 if narrow(ax) else 26
    look: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "va": "center"}
    look |= {"fontsize": "x-small" if narrow(ax) else "small", "linespacing": 0.95}
    ends = sorted((min(max(y, low), high), fill(name, wide), colour) for name, (y, colour) in names.items())
    texts = [ax.annotate(plain(n), (1, y), (5, 0), color=tone(0.72, c, ink=True), **look) for y, n, c in ends]
    figure_of(ax).draw_without_rendering()
    scale = _scale(ax)
    gap = max((text.get_window_extent().height / scale for text in texts), default=0) + 1
    at = [float(ax.transData.transform((ax.get_xlim()[1], y))[1]) / scale for y, *_ in ends]
    for text, y, to in zip(texts, at, spread(at, gap), strict=True):
        text.set_position((5, to - y))


def spread(positions: Sequence[float], gap: float) -> list[float]:
    """Return ascending places, moved as little as needed, in squares, to be ``gap`` apart.

    >>> spread([0, 10, 11], 4)
    [0.0, 8.5, 12.5]
    """
    gaps = gap * np.arange(len(positions))
    return list(map(float, scipy.optimize.isotonic_regression(positions - gaps).x + gaps)) if len(positions) else []


def lines(ax: Axes, rows: pd.DataFrame, styles: Mapping[str, Look]) -> Iterator[tuple[pd.DataFrame, Look, float]]:
    """Yield the rows of each method and setting, the line's look, and how many points right it may stand of others.

    Lines of one method have other dashes, and names with their setting; those of fewer parameters are first.
    """
    every = list(rows.groupby(["method", "setting"]))
    every.sort(key=lambda line: (line[0][0], line[1]["n_params"].min()))
    step = min(6.0, (8 if narrow(ax) else 24) / len(every))
    for i, ((method, setting), own) in enumerate(every):
        look, alike = styles[method], sum(other == method for (other, _), _ in every[:i])
        style = LINES[alike % len(LINES)] if alike else look.line
        look = look._replace(name=f"{look.name} {setting}".strip(), line=style)
        yield own, look._replace(marker="o") if look.marker == "x" else look, step * (i - (len(every) - 1) / 2)


def legend(ax: Axes, handles: Sequence[Line2D], below: bool) -> None:
    """Name lines right of the axes, or below their numbers and name."""
    look: dict[str, Any] = {"frameon": False, "handlelength": 1.6, "borderaxespad": 0, "fontsize": "small"}
    where: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1.03, 1)}
    if below:
        points = offset_copy(ax.transAxes, figure_of(ax), 0, -40, units="points")
        where = {"loc": "upper center", "bbox_to_anchor": (0.5, 0), "bbox_transform": points, "ncols": 2}
    ax.legend(handles=handles, **look, **where)


def handles(looks: Iterable[Look]) -> list[Line2D]:
    """Return the handles of a legend of methods, in the order given."""
    return [Line2D([], [], color=k.colour, marker=k.marker, ls=k.line, ms=5, lw=1, label=plain(k.name)) for k in looks]


NEAR = 8  # points from a label to its point above which it has a line to it
FAR = (4, 5.5, 8, 11, 15, 20, 26, 34, 46, 62, 84)  # points that a label may be from its point
GAPS, ANGLES = (each.ravel() for each in np.meshgrid(FAR, np.arange(24) * np.pi / 12))
WAYS = np.column_stack([np.cos(ANGLES), np.sin(ANGLES)])


def move_labels(ax: Axes, labels: Sequence[Annotation]) -> None:
    """Move labels, the most important first, to where they cover least of lines, marks, texts and other labels.

    One that is far from its point gets a thin line to it. All else must be drawn, and limits set.
    """
    figure_of(ax).draw_without_rendering()  # a layout engine moves the axes only now
    ink = KDTree(np.concatenate([np.empty((0, 2)), *map(_ink, ax.lines)]))
    boxes = min((_placed(ax, order, labels, ink) for order in (labels, labels[::-1])), key=lambda one: one[0])[1]
    for label in labels:
        at, (centre, half), scale = ax.transData.transform(label.xy), boxes[label], _scale(ax)
        label.set_position((centre - at) / scale)
        corner = np.clip(at, centre - half, centre + half)
        if np.hypot(*(corner - at)) > NEAR * scale:
            ends = ax.transData.inverted().transform([at, corner])
            ax.plot(*ends.T, color=label.get_color(), lw=0.5, zorder=2, scalex=False, scaley=False, gid="leader")


def _placed(
    ax: Axes, order: Sequence[Annotation], labels: Sequence[Annotation], ink: KDTree
) -> tuple[float, dict[Text, Floats]]:
    """Return what the places of labels cost that are chosen in an order, and the middle and half size of each text."""
    scale, frame = _scale(ax), ax.get_window_extent()
    sizes = {text: text.get_window_extent() for text in ax.texts}
    boxes = {t: np.array([np.mean(box.get_points(), 0), np.array(box.size) / 2]) for t, box in sizes.items()}
    costs, others = {}, {text: box for text, box in boxes.items() if text not in labels}
    for label in (*order, *order):  # the second time each label knows of all others
        others.pop(label, None)
        at, half = ax.transData.transform(label.xy), boxes[label][1] + 0.8 * scale
        centres = at + WAYS * GAPS[:, None] * scale + np.clip(WAYS * 1.5, -1, 1) * half
        middles, halves = np.array([*others.values()]).reshape(-1, 2, 2).swapaxes(0, 1)
        covered = (np.abs(ink.data - centres[:, None]) < half).all(-1).sum(1)
        over = (np.abs(middles - centres[:, None]) < halves + half).all(-1).sum(1)
        path = at + np.linspace(0.3, 1, 12)[:, None, None] * (np.clip(at, centres - half, centres + half) - at)
        crossed = 40 * (np.abs(path[:, :, None] - middles) < halves).all(-1).any(0).sum(1)
        crossed = crossed + 1.5 * (ink.query(path)[0] < 1.5 * scale).sum(0)
        out = ((centres - half < frame.min) | (centres + half > frame.max)).any(1)
        cost = GAPS + 2.5 * covered + 400 * over + np.where(GAPS > NEAR, crossed, 0) + 1e4 * out
        costs[label] = float(cost.min())
        others[label] = np.array([centres[int(np.argmin(cost))], half])
    return sum(costs.values()), others


def halo() -> list[Any]:
    """Return an outline of paper, so that text is read over lines."""
    return [withStroke(linewidth=1.8, foreground=tone(1))]


def _scale(ax: Axes) -> float:
    """Return the pixels of a point."""
    return float(figure_of(ax).dpi / 72)


def _ink(line: Line2D) -> Floats:
    """Return points about 3 pixels apart on a line, and nine over each marker, in pixels."""
    at: Floats = line.get_transform().transform(line.get_xydata())
    reach = line.get_markersize() / 2 * line.figure.dpi / 72
    if line.get_marker() not in ("None", None, "_", ""):
        marks = (at[:, None] + reach * np.array([*product((-1, 0, 1), repeat=2)])).reshape(-1, 2)
    else:
        marks = at
    if line.get_linestyle() == "None" or len(at) < 2:
        return marks
    pairs = [(a, b) for a, b in pairwise(at) if np.isfinite([a, b]).all()]
    return np.concatenate([marks, *(np.linspace(a, b, 2 + int(min(np.hypot(*(b - a)), 5e3) / 3)) for a, b in pairs)])
