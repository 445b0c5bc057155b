"""Figures of mode diagnostics: singular values of every mode, cosines between slices, and both with their tables."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator

from tensoradapt.analysis.figures import ink
from tensoradapt.analysis.figures.canvas import RC, frame, new_figure, scaled, write
from tensoradapt.analysis.figures.styles import COLOURS, MARKERS
from tensoradapt.analysis.statistics.intervals import Floats
from tensoradapt.analysis.statistics.spectra import Spectra, check_mode
from tensoradapt.errors import TensorAdaptError
from tensoradapt.files import replace_file

LINES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
LEAST = 1e-8  # the least share of the largest singular value that is drawn
ENERGIES = (0.9, 0.99)
COSINES = "YlGnBu_r"  # from dark blue to pale yellow; black is read on its middle, where most cosines are
NUMBERS, TICKS = 8, 16  # slices up to which cosines are written into their cells, and each is named


def plot_spectra(spectra: Spectra, ax: Axes | None = None) -> Axes:
    """Draw singular values over the largest of their mode, log, against index / size.

    The large hollow marker is the rank for 90 % of the energy, the small filled one that for 99 %; pale: values within
    the estimated noise. Values below 1e-8 of the largest are off the axes. An example is in
    docs/notebooks/6_read_the_mode_spectra.md.

    Args:
        spectra: of ``ta.spectra.spectra``, which raises what is wrong with a tensor.
        ax: axes to draw on; by default new ones.

    Returns:
        The axes.
    """
    ax = _axes() if ax is None else ax
    for i, mode in enumerate(spectra.shape):
        _draw_mode(ax, spectra, mode, i)
    lowest = min((v[v > 0].min() / v[0] for v in spectra.values.values() if v[0] > 0), default=LEAST)
    ax.set_yscale("log")
    ax.set_ylim(max(lowest, LEAST) / 1.6, 1.6)
    ax.yaxis.set_major_locator(LogLocator(numticks=9))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.set_xlim(0, 1.03)
    ax.set_xlabel("index / size of the mode")
    ax.set_ylabel("singular value / largest")
    frame(ax, "both")
    if not ax.get_lines():
        ax.text(0.5, 0.5, "every entry is zero", transform=ax.transAxes, color=ink.grey(), ha="center", va="bottom")
    _legend(ax, spectra)
    return ax


def plot_similarity(
    matrix: Floats,  # (n, n)
    labels: Sequence[str],  # (n,)
    ax: Axes | None = None,
) -> Axes:
    """Draw cosines between slices from -1, dark, to 1, light, in print too (docs/notebooks/6_read_the_mode_spectra.md).

    Args:
        matrix: (n, n), of ``ta.spectra.similarity``; up to 8 slices the numbers are written in.
        labels: n names.
        ax: axes to draw on; by default new ones.

    Returns:
        The axes.

    Raises:
        TensorAdaptError: for a matrix that does not fit its labels.
    """
    matrix, n = np.asarray(matrix, float), len(labels)
    if matrix.shape != (n, n) or not n:
        raise TensorAdaptError(f"similarity has shape {matrix.shape} with {n} labels; expected (n, n) and one for each")
    ax = _axes() if ax is None else ax
    image = ax.imshow(matrix, cmap=COSINES, vmin=-1, vmax=1)
    shown = range(0, n, -(-n // TICKS))
    names = [labels[i] for i in shown]
    upright = max(map(len, names)) * len(names) > 24
    ax.set_xticks(shown, names, rotation=90 if upright else 0)
    ax.set_yticks(shown, names)
    for (i, j), cosine in np.ndenumerate(matrix if n <= NUMBERS else np.empty((0, 0))):
        text = f"{round(cosine, 2) + 0.0:.2f}"  # no -0.00
        ax.text(j, i, text, color="black" if cosine > -0.2 else "white", ha="center", va="center", fontsize=scaled(7))
    ax.tick_params(color=ink.grey(), labelcolor=ink.dark())
    bar = ax.figure.colorbar(image, ax=ax, fraction=0.046, pad=0.04, ticks=[-1, 0, 1])
    bar.set_label("cosine of two slices")
    return ax


def figure(
    spectra: Spectra,
    similarities: Mapping[str, Floats] | None = None,
    labels: Mapping[str, Sequence[str]] | None = None,
) -> Figure:
    """Draw the spectra, and beside them the cosines of some modes (docs/notebooks/6_read_the_mode_spectra.md).

    Args:
        spectra: of ``ta.spectra.spectra``.
        similarities: the (n, n) matrix of each of up to about three modes.
        labels: names of the slices of a mode; else they are numbered.

    Returns:
        The figure.

    Raises:
        TensorAdaptError: for a mode that the spectra lack.
    """
    given, named = similarities or {}, labels or {}
    for mode in (*given, *named):
        check_mode(mode, spectra.shape)
    with mpl.rc_context(RC):
        drawing = new_figure(5.2 + 3.4 * len(given), 3.6, "constrained")
        axes = drawing.subplots(1, 1 + len(given), squeeze=False, width_ratios=[1.5] + [1] * len(given))[0]
        plot_spectra(spectra, axes[0])
        for ax, (mode, matrix) in zip(axes[1:], given.items(), strict=True):
            plot_similarity(matrix, named.get(mode, [str(i) for i in range(len(matrix))]), ax)
            ax.set_xlabel(mode)
            ax.set_ylabel(mode)
    return drawing


def save_spectra(
    spectra: Spectra,
    stem: Path,
    similarities: Mapping[str, Floats] | None = None,
    labels: Mapping[str, Sequence[str]] | None = None,
) -> tuple[Path, ...]:
    """Write ``figure`` as ``stem``.png (200 dpi) and .pdf, and its numbers as ``stem``.csv (docs/figures/README.md).

    The cosines of each mode go to ``stem``-mode.csv. Each file is replaced whole, the same data as the same bytes.

    Args:
        spectra, similarities, labels: as for ``figure``, which raises what does not fit.
        stem: path of the files without their endings.

    Returns:
        The paths.
    """
    stem, drawing = Path(stem), figure(spectra, similarities, labels)
    paths = [*write(drawing, stem)]
    paths.append(_table(_rows(spectra), stem.with_name(f"{stem.name}.csv")))
    for mode, matrix in (similarities or {}).items():
        names = (labels or {}).get(mode, [str(i) for i in range(len(matrix))])
        rows = [[mode, *names], *([name, *map(_digits, row)] for name, row in zip(names, matrix, strict=True))]
        paths.append(_table(rows, stem.with_name(f"{stem.name}-{mode}.csv")))
    return tuple(paths)


def _rows(spectra: Spectra) -> list[list[Any]]:
    """Return a row per singular value; what a mode has once is repeated in each of its rows."""
    ranks = [spectra.rank_for(energy) for energy in ENERGIES]
    rows: list[list[Any]] = [
        ["mode", "size", "index", "singular_value", "energy", "effective_rank", "rank_90", "rank_99", "noise_rank"]
    ]
    for mode, size in spectra.shape.items():
        once = [_digits(spectra.effective_rank[mode]), *(rank[mode] for rank in ranks), spectra.noise_rank[mode]]
        for i, (value, energy) in enumerate(zip(spectra.values[mode], spectra.energy[mode], strict=True), 1):
            rows.append([mode, size, i, _digits(value), _digits(energy), *once])
    return rows


def _digits(value: float) -> str:
    return f"{value:.6g}"


def _table(rows: Sequence[Sequence[Any]], path: Path) -> Path:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    return replace_file(path, text.getvalue().encode())


def _draw_mode(ax: Axes, spectra: Spectra, mode: str, i: int) -> None:
    """Draw the line of one mode, pale from where noise begins, and its two ranks."""
    values, size, above = spectra.values[mode], spectra.shape[mode], spectra.noise_rank[mode]
    if values[0] == 0:
        return
    x, y = np.arange(1, len(values) + 1) / size, np.where(values > 0, values / values[0], np.nan)
    style = {**_style(i), "linewidth": 1.4}
    ax.plot(x[max(above - 1, 0) :], y[max(above - 1, 0) :], alpha=0.35, zorder=2, gid="noise", **style)
    ax.plot(x[:above], y[:above], zorder=2.2, gid="signal", **style)
    for energy, points, fill in zip(ENERGIES, (9.0, 4.5), ("none", style["color"]), strict=True):
        at, marker = spectra.rank_for(energy)[mode] - 1, MARKERS[i % len(MARKERS)]
        mark: dict[str, Any] = {"markersize": points, "markerfacecolor": fill, "markeredgewidth": 1.2}
        ax.plot(x[at], y[at], marker, color=style["color"], zorder=3, gid=f"{energy:g}", **mark)


def _legend(ax: Axes, spectra: Spectra) -> None:
    """Put legends above the axes: names and sizes, then what the markers say."""
    look: dict[str, Any] = {"linewidth": 1.4, "markersize": 5}
    handles = [Line2D([], [], **_style(i), marker=MARKERS[i % len(MARKERS)], **look) for i in range(len(spectra.shape))]
    texts = [f"{mode} ({size})" for mode, size in spectra.shape.items()]
    where: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0, 1), "ncols": 3, "alignment": "left"}
    where |= {"title": "marks: rank for 90 % (hollow) and 99 % (filled) of the energy; pale: noise", "frameon": False}
    ax.legend(handles, texts, fontsize=scaled(8.5), handlelength=3.2, title_fontsize=scaled(7.5), **where)


def _style(i: int) -> dict[str, Any]:
    return {"color": COLOURS[i % len(COLOURS)], "linestyle": LINES[i % len(LINES)]}


def _axes() -> Axes:
    from matplotlib import pyplot  # only here: it may start a window system, and it keeps every figure

    with mpl.rc_context(RC):
        return pyplot.figure(figsize=(5.2, 3.6), layout="constrained").add_subplot()
