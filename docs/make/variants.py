"""The variants of a picture that the site shows: light and dark, wide and narrow.

x.png is the light, wide one, which GitHub shows too. Beside it stand x_dark.png, x_narrow.png and x_narrow_dark.png;
``conf.py`` shows the one that fits the reader's screen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl

WIDE, NARROW = 7.0, 3.4  # inches: the text of a page, and a telephone
PAPER, INK = "#131416", "#d8dadd"  # of the theme's dark pages
DARK: dict[Any, Any] = dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor"), PAPER)
DARK |= dict.fromkeys(("text.color", "axes.labelcolor", "axes.titlecolor", "axes.edgecolor"), INK)
DARK |= dict.fromkeys(("xtick.color", "ytick.color", "xtick.labelcolor", "ytick.labelcolor"), INK)
DARK |= {"grid.color": "#34373b", "legend.facecolor": PAPER, "patch.edgecolor": INK}


@contextmanager
def dark() -> Iterator[None]:
    """Within it figures have light ink on the paper of dark pages."""
    with mpl.rc_context(DARK):
        yield


def beside(path: Path, suffix: str) -> Path:
    """Return the path of a variant: ``beside(Path("x.png"), "_dark")`` is x_dark.png."""
    return path.with_name(f"{path.stem}{suffix}{path.suffix}")


def both(path: Path, draw: Callable[[Path], Any]) -> None:
    """Draw a picture light and dark."""
    draw(path)
    with dark():
        draw(beside(path, "_dark"))


def all_four(path: Path, draw: Callable[[Path, float], Any]) -> None:
    """Draw a picture light and dark, at both widths, which ``draw`` is given in inches."""
    both(path, lambda one: draw(one, WIDE))
    both(beside(path, "_narrow"), lambda one: draw(one, NARROW))
