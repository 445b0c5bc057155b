"""The look of figures of the pages of docs: settings of matplotlib, and one way to write them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

DOCS = Path(__file__).parent.parent / "docs"
DPI = 200
RC: dict[Any, Any] = {
    "font.size": 9,
    "pdf.fonttype": 42,
    "text.hinting": "none",  # else text is wider at some resolutions than where it was measured
    "axes.labelsize": "medium",
    "axes.titlesize": "medium",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#707070",
    "axes.axisbelow": True,
    "xtick.color": "#707070",
    "ytick.color": "#707070",
    "xtick.labelcolor": "#404040",
    "ytick.labelcolor": "#404040",
    "grid.color": "#ebebeb",
    "grid.linewidth": 0.7,
    "legend.frameon": False,
}


def write(figure: Figure, path: Path) -> None:
    """Write a figure as PNG or PDF, by the ending of the path; the same figure gives the same bytes."""
    figure.savefig(path, dpi=DPI, metadata={"Software" if path.suffix == ".png" else "CreationDate": None})


@contextmanager
def drawn(path: Path, size: tuple[float, float], **settings: Any) -> Iterator[Figure]:
    """Within it a new figure is drawn, which is written at the end."""
    made: dict[Any, Any] = {**RC, **settings}
    with mpl.rc_context(made):
        figure = Figure(figsize=size, layout="constrained")
        yield figure
        write(figure, path)
    print(path)
