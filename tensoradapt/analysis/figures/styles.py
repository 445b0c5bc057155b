"""Styles: one colour, marker, line and fill for each method by its name, over all figures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tensoradapt.analysis.figures import ink
from tensoradapt.analysis.names import BLACK, REFERENCES, first_word, known, place
from tensoradapt.analysis.names import COLOURS as COLOURS
from tensoradapt.analysis.names import MARKERS as MARKERS

Fill = Literal["full", "bottom"]
LINES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)))
FILLS: tuple[Fill, ...] = ("full", "bottom")


@dataclass(frozen=True)
class Style:
    """The look of a method: colour and marker, the dashes of its line, and which half of a marker is filled."""

    colour: str
    marker: str
    line: Any = "-"
    fill: Fill = "full"


def styles_of(labels: Iterable[str]) -> dict[str, Style]:
    """Return a style for each label: that of its place in ``names.TABLE``, where no other label of the figure has it.

    Up to eight labels have eight colours: of two whose colour is the same, the later in the table, or by name where it
    is in none, takes one that is free. Of more than eight, names of one first word share its colour. No two of 88
    labels are alike. References have greys of their own.
    """
    ordered = sorted(set(labels), key=lambda label: (known(label) is None, _place(label), label))
    grey = {label: _reference(label) for label in ordered if known(label) in REFERENCES}
    ordered = [label for label in ordered if label not in grey]
    colours, taken = _colours(ordered), dict[str, tuple[int, int]]()
    for label in ordered:
        near = _nearby(colours[label], place(label) // len(COLOURS))
        taken[label] = next((at for at in near if at not in taken.values()), (colours[label], 0))
    styles = {label: _style(*at) for label, at in taken.items()}
    return {label: (styles | grey)[label] for label in sorted((*styles, *grey))}


def _place(label: str) -> int:
    """Return a number that orders labels: known ones by the table; others have one number and go by their letters."""
    return place(label) if known(label) is not None else 0


def _colours(ordered: Sequence[str]) -> dict[str, int]:
    """Return the colour of each label: its own where it is the first to ask for it, else a free one where there is one.

    Known names choose before all others.
    """
    few = len(ordered) <= len(COLOURS)
    family = {
        label: label if few or known(label) is not None else known(first_word(label)) or label for label in ordered
    }
    found: dict[str, int] = {}
    for is_known in (True, False):
        own = [label for label in dict.fromkeys(family.values()) if (known(label) is not None) is is_known]
        for label in own:
            if (colour := place(label) % len(COLOURS)) not in found.values():
                found[label] = colour
        for label in own:
            if label not in found:
                found[label] = next(iter(_free(found.values())), place(label) % len(COLOURS))
    return {label: found[family[label]] for label in ordered}


def _free(taken: Iterable[int]) -> list[int]:
    """Return the colours that no label of a figure has, ink last."""
    left = [i for i in range(len(COLOURS)) if i not in set(taken)]
    return sorted(left, key=lambda i: COLOURS[i] == BLACK)


def _nearby(colour: int, row: int) -> Iterator[tuple[int, int]]:
    """Yield all colours and rows, those of the same colour first."""
    n, rows = len(COLOURS), len(MARKERS)
    return (((colour + i) % n, (row + j) % rows) for i in range(n) for j in range(rows))


def _style(colour: int, row: int) -> Style:
    fill = FILLS[(row + row // len(LINES)) % len(FILLS)]
    marker = MARKERS[(colour + len(COLOURS) * row) % len(MARKERS)]
    return Style(ink.ink() if COLOURS[colour] == BLACK else COLOURS[colour], marker, LINES[row % len(LINES)], fill)


def _reference(label: str) -> Style:
    head = known(label) == REFERENCES[0]
    return Style(ink.pale(), "d", ":") if head else Style(ink.grey(), "*", "--")


def line_look(style: Style) -> dict[str, Any]:
    """Return a style as properties of a line with markers."""
    return {"color": style.colour, "linestyle": style.line, **marker_look(style)}


def marker_look(style: Style) -> dict[str, Any]:
    """Return a style's marker as properties of a line; the edge is white where that sets close markers apart."""
    edge = "white" if style.fill == "full" else style.colour
    look: dict[str, Any] = {"marker": style.marker, "fillstyle": style.fill, "markeredgecolor": edge}
    return look | {"markerfacecolor": style.colour, "markerfacecoloralt": "white"}
