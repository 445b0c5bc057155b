"""Draw docs/results/figures/library.png from benchmarks/records/trained_library.csv: bytes against error and score."""

from __future__ import annotations

from pathlib import Path

import figure_style
import matplotlib as mpl
import pandas as pd
import trained_library
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from tensoradapt.analysis.names import COLOURS

PNG = Path(__file__).parent.parent / "docs" / "results" / "figures" / "library.png"
BYTES = (8_000, 16_000, 32_000, 64_000, 128_000)


def main() -> None:
    table = trained_library.table().sort_values("bytes")
    with mpl.rc_context(figure_style.RC):
        figure = Figure(figsize=(10.4, 4.2), layout="constrained")
        error, loss = figure.subplots(1, 2, sharex=True)
        for ax in (error, loss):
            bytes_axis(ax)
        for (colour, marker), ((of, form), rows) in zip(looks(table), table.groupby(["of", "form"]), strict=True):
            line = {"color": colour, "marker": marker, "label": label(of, form), "linewidth": 1.2, "markersize": 5}
            error.plot(rows["bytes"], rows["error"], **line)
            half = 100 * (rows["high"] - rows["loss"])
            loss.errorbar(rows["bytes"], 100 * rows["loss"], half, elinewidth=0.8, **line)
        error.set_title("relative error of the updates")
        loss.set_title("points lost, mean and 95 % over 24 adapters")
        for level in (0.5, 1):
            loss.axhline(level, color="#b0b0b0", linewidth=0.7, linestyle=":")
        figure.legend(*error.get_legend_handles_labels(), loc="outside lower center", ncols=4)
        figure_style.write(figure, PNG)
    print(PNG)


def looks(table: pd.DataFrame) -> list[tuple[str, str]]:
    """Return a colour for each form, and a marker: circles as one tensor, squares alone."""
    forms = sorted(set(table["form"]))
    pairs = [(of, form) for (of, form), _ in table.groupby(["of", "form"])]
    return [(COLOURS[forms.index(form) % len(COLOURS)], "o" if of == "all" else "s") for of, form in pairs]


def label(of: str, form: str) -> str:
    """Return how the legend names a form."""
    return form if form == "as trained" else f"{form}, {'as one tensor' if of == 'all' else 'each alone'}"


def bytes_axis(ax: Axes) -> None:
    """Bytes an adapter, doubling."""
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(FixedLocator(BYTES))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    ax.set_xlabel("bytes an adapter, with its part of what is shared")
    ax.grid(axis="y")


if __name__ == "__main__":
    main()
