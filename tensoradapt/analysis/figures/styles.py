"""Styles: one colour, marker, line and fill for each method by its name, over all figures."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from tensoradapt.analysis.figures import ink

Fill = Literal["full", "bottom"]
# Okabe and Ito's colours, told apart with any colour vision, and Tol's wine in place of their yellow, which white paper
# swallows.
BLACK = "#000000"  # drawn in the ink of the style sheet
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", BLACK, "#882255")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h")  # 11 and 8 are coprime: 88 pairs before one repeats
LINES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)))
FILLS: tuple[Fill, ...] = ("full", "bottom")
# Place i of this table has colour i modulo 8 and marker i modulo 11; line and fill change with every row of eight.
# Names that mean one method share a place; case, spaces, hyphens and brackets do not count.
PLACES = (
    *("cp, lorta, cp (lorta)", "lora", "tensor-train, tt, tt (metatt)", "tucker", "vera", "lotr"),
    *("frozen base + head, frozen base trained head", "metatt, metatt-4d"),
    *("fact-tt", "lora-xs", "tensor ring", "fact-tk", "randlora", "loretta, loretta-rep"),
    *("full fine-tuning", "metatt-5d"),
    *("cara", "pissa", "tt-lora, tt-matrix", "tenslora-att", "kronecker, lokr, kronecker (lokr)", "aurora", "dense"),
    *("metatt-4+1d", "lorta-peft", "rslora", "tenslora-qkv", "block-term", "loha", "flora", "quanta", "dota"),
    *("lorta-litgpt", "lora+", "tenslora-depth", "tenslora-cp-att", "tinylora", "tenslora-att_qkv", "tenslora+"),
    *("tenslora-cp-qkv", "tenslora-att_depth", "tenslora-qkv_depth", "tenslora-att_qkv_depth", "tenslora-cp-depth"),
    *("tenslora-cp-att_qkv", "tenslora-cp-att_depth", "tenslora-cp-qkv_depth", "tenslora-cp-att_qkv_depth"),
)


@dataclass(frozen=True)
class Style:
    """How a method is drawn: colour and marker, the dashes of its line, and which half of a marker is filled."""

    colour: str
    marker: str
    line: Any = "-"
    fill: Fill = "full"


def styles_of(labels: Iterable[str]) -> dict[str, Style]:
    """A style for each label, by name: that of ``PLACES`` where the name is known, else one that follows from the name.

    A label has the same style in every figure, except where another of the figure has it already: then the later by
    name takes the next marker of the same colour. An unknown name whose first word is known, as of a method over a
    layout, has the colour of that word. No two of 88 labels are alike.
    """
    ordered = sorted(set(labels), key=lambda label: (_key(label) not in _known(), label))
    places: dict[str, int] = {}
    for label in ordered:
        home, taken = _home(label), set(places.values())
        free = (place for place in _nearby(home) if place not in taken)
        places[label] = next(free, home)  # beyond 88 labels some look alike
    return {label: _style(places[label]) for label in sorted(places)}


def _key(label: str) -> str:
    return re.sub(r"[^\w+]|_", "", label.lower())


@lru_cache(maxsize=1)
def _known() -> dict[str, int]:
    return {_key(name): place for place, names in enumerate(PLACES) for name in names.split(", ")}


def _home(label: str) -> int:
    """The place of a label: a number below 88."""
    n, known = len(COLOURS), _known()
    if (key := _key(label)) in known:
        return known[key]
    drawn = zlib.crc32(label.encode())
    first = _key((re.split(r"[\s,:]", label.strip()) or [""])[0])
    colour = known[first] % n if first in known else drawn % (n - 1)
    colour += first not in known and colour >= known[_key("frozen base + head")]  # the references' black is left out
    return colour + n * (drawn // n % len(MARKERS))


def _nearby(home: int) -> Iterator[int]:
    """All places, those of the same colour first."""
    n, whole = len(COLOURS), len(COLOURS) * len(MARKERS)
    for colour in range(n):
        yield from ((home + colour + n * turn) % whole for turn in range(len(MARKERS)))


def _style(place: int) -> Style:
    row = place // len(COLOURS)
    fill = FILLS[(row + row // len(LINES)) % len(FILLS)]
    colour = COLOURS[place % len(COLOURS)]
    return Style(ink.ink() if colour == BLACK else colour, MARKERS[place % len(MARKERS)], LINES[row % len(LINES)], fill)


def line_look(style: Style) -> dict[str, Any]:
    """A style as properties of a line with markers."""
    return {"color": style.colour, "linestyle": style.line, **marker_look(style)}


def marker_look(style: Style) -> dict[str, Any]:
    """The marker of a style as properties of a line; the edge is white where that sets close markers apart."""
    edge = "white" if style.fill == "full" else style.colour
    look: dict[str, Any] = {"marker": style.marker, "fillstyle": style.fill, "markeredgecolor": edge}
    return look | {"markerfacecolor": style.colour, "markerfacecoloralt": "white"}
