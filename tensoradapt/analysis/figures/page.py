"""Pages for new figures: their width, whether pyplot knows them, and the settings of matplotlib that hold for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

import matplotlib as mpl
from matplotlib import style as sheets
from matplotlib.font_manager import fontManager

from tensoradapt.checks import shown
from tensoradapt.errors import TensorAdaptError

StyleSheet = str | Mapping[str, Any] | Sequence[Any] | None
# matplotlib brings the first; the others, where they are installed, have the characters that it lacks
FONTS = ("DejaVu Sans", "Noto Sans", "Noto Sans CJK SC", "Noto Sans CJK JP", "WenQuanYi Zen Hei", "Arial Unicode MS")
INSTALLED = {entry.name for entry in fontManager.ttflist}
RC: dict[Any, Any] = {
    "font.family": [name for name in FONTS if name in INSTALLED],
    "font.size": 9,
    "text.hinting": "none",  # else text is wider at some resolutions than where it was measured
    "axes.labelsize": 9.5,
    "pdf.fonttype": 42,
    "svg.hashsalt": "tensoradapt",
    "savefig.bbox": None,
    "figure.constrained_layout.use": False,
    "figure.autolayout": False,
}


@dataclass(frozen=True)
class Page:
    """The place of new figures.

    ``width``: in inches, None for their own width; ``pyplot``: whether pyplot knows them; ``own``: whether they have
    the settings of this package, not those of a style sheet.
    """

    width: float | None = None
    pyplot: bool = False
    own: bool = True

    def settings(self) -> dict[Any, Any]:
        """Return the settings of matplotlib that figures of this page have in place of those that are set."""
        return RC if self.own and not self.pyplot else {}


PAGE: ContextVar[Page] = ContextVar("page", default=Page())  # noqa: B039  # which is frozen


@contextmanager
def page(**changes: Any) -> Iterator[None]:
    """Make new figures on another ``Page`` in a ``with`` block."""
    token = PAGE.set(replace(PAGE.get(), **changes))
    try:
        yield
    finally:
        PAGE.reset(token)


@contextmanager
def styled(style: StyleSheet = None) -> Iterator[None]:
    """Put the package's settings in place of matplotlib's in a ``with`` block; a user's or style sheet's settings stay.
    Raises TensorAdaptError for what is no style.
    """
    with mpl.rc_context():
        try:
            if not isinstance(style, str | Mapping | list | tuple | None):
                raise TypeError
            sheets.use(dict(style) if isinstance(style, Mapping) else style or {})
        except (OSError, TypeError, ValueError, KeyError, AttributeError):
            raise TensorAdaptError(
                f"style is {shown(style)}; expected a style sheet of matplotlib, such as 'grayscale', or rcParams"
            ) from None
        mpl.rcParams.update({k: v for k, v in RC.items() if mpl.rcParams[k] == mpl.rcParamsDefault[k]})
        with page(own=style is None):
            yield
