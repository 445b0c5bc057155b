"""The look of figures of the pages of docs: settings of matplotlib, and one way to write them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from tensoradapt.lab.analysis.names import tone

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
    "axes.axisbelow": True,
    "grid.linewidth": 0.7,
    "legend.frameon": False,
}
GREYS = {0.44: ("axes.edgecolor", "xtick.color", "ytick.color"), 0.25: ("xtick.labelcolor", "ytick.labelcolor")}
GREYS |= {0.92: ("grid.color",)}  # shares of paper in the ink of the style sheet
SUFFIX = [""]  # of the pictures' names: the last one counts


@contextmanager
def suffixed(suffix: str) -> Iterator[None]:
    """Within it the names of pictures end with a suffix, as x_dark.png does."""
    SUFFIX.append(suffix)
    try:
        yield
    finally:
        SUFFIX.pop()


def panels(figure: Figure, number: int, **options: Any) -> Any:
    """Return axes beside each other, or in a narrow picture one below the other."""
    return figure.subplots(*((number, 1) if _is_narrow() else (1, number)), **options)


def beside(number: int) -> int:
    """Return how many columns a legend of so many has."""
    return 1 if _is_narrow() else number


def _is_narrow() -> bool:
    return SUFFIX[-1].startswith("_narrow")


def write(figure: Figure, path: Path) -> None:
    """Write a figure as PNG or PDF, by the ending of the path; the same figure gives the same bytes."""
    figure.savefig(path, dpi=DPI, metadata={"Software" if path.suffix == ".png" else "CreationDate": None})


@contextmanager
def drawn(path: Path, size: tuple[float, float], **settings: Any) -> Iterator[Figure]:
    """Within it a new figure is drawn, which is written at the end."""
    greys = {name: tone(share) for share, names in GREYS.items() for name in names}
    made: dict[Any, Any] = {**RC, **greys, **settings}
    path = path.with_name(f"{path.stem}{SUFFIX[-1]}{path.suffix}")
    with mpl.rc_context(made):
        figure = Figure(figsize=(3.6, 0.9 * size[0]) if _is_narrow() else size, layout="constrained")
        yield figure
        write(figure, path)
    print(path)
