"""Colours of all that is no method: shades between the ink and the paper of the style sheet in force.

On white paper with black ink they are the greys that figures of this package have always had; on dark paper light ones.
"""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
from matplotlib.colors import to_hex, to_rgb, to_rgba


def shade(grey: int) -> str:
    """Return the colour that is this grey, from 0 (ink) to 255 (paper), on white paper."""
    return to_hex(mixed(mpl.rcParams["text.color"], _paper(), grey / 255))


def ink() -> str:
    """Return full ink."""
    return shade(0)


def dark() -> str:
    """Return the colour of names and lines that are read."""
    return shade(0x40)


def grey() -> str:
    """Return the colour of axes, references and captions."""
    return shade(0x70)


def pale() -> str:
    """Return the colour of single seeds."""
    return shade(0xA8)


def faint() -> str:
    """Return the colour of grids."""
    return shade(0xEB)


def paper() -> str:
    """Return the colour of the inside of hollow markers, and of halos."""
    return shade(0xFF)


def mixed(one: Any, other: Any, share: float) -> tuple[float, float, float]:
    """Return a colour with a share of another."""
    red, green, blue = ((1 - share) * a + share * b for a, b in zip(to_rgb(one), to_rgb(other), strict=True))
    return red, green, blue


def _paper() -> Any:
    """Return the first of the colours of axes and figures that is not transparent; else white."""
    faces: tuple[Any, ...] = (mpl.rcParams["axes.facecolor"], mpl.rcParams["figure.facecolor"])
    return next((face for face in faces if to_rgba(face)[3] > 0), "white")
