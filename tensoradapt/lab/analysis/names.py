"""How figures and tables show methods: the label, colour and marker that each says itself, no two of a figure alike.

Labels are shown by ``display`` and never stored: tables, ids and folders have the name that a run was given.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Collection, Iterable
from typing import Any, NamedTuple

from tensoradapt.checks import check_is
from tensoradapt.parameterizations import spelling
from tensoradapt.published import registry

# Okabe and Ito's colours, told apart with any colour vision, and Tol's wine in place of their yellow, which white paper
# swallows.
BLACK = "#000000"  # LoRA, which all are compared with; drawn in the ink of the style sheet
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", BLACK, "#882255")
MARKERS = ("s", "p", "^", "D", "v", "P", "o", "h", "<", ">", "X")  # 11 and 8 are coprime: 88 pairs before one repeats
LINES = ("-", "--", ":", "-.")  # methods of one colour differ by them
REFERENCES = ("frozen base + head", "full fine-tuning", "BitFit")  # drawn in greys of their own


class Look(NamedTuple):
    """How a figure shows a method: its name, colour, marker, and the dashes of its line."""

    name: str
    colour: str
    marker: str
    line: str = "-"


def display(method: str) -> str:
    """Return the name to show for a method, as its paper writes it.

    Case, spaces, hyphens and underscores of the given name do not count.

    A name that is no method's keeps its letters, but for a first word that is.

    Raises:
        TensorAdaptError: for what is no text.

    >>> display("lotr"), display("tensor_train"), display("cp over layer proj : out : in"), display("My own")
    ('LoTR', 'Tensor-train', 'CP over layer proj : out : in', 'My own')
    """
    check_is("method", method, str)
    if (name := _reference(method)) is not None:
        return name
    if (parts := re.fullmatch(r"([^(]+?)\s*\((.+)\)", method)) and registry.known(parts[1]):
        return f"{display(parts[1])} ({display(parts[2])})"
    word = method if "(" not in method and registry.known(method) else _first_word(method)
    found = registry.known(word)
    return method.replace(word, found.label, 1) if found else method


def displayed(methods: Iterable[str]) -> dict[str, str]:
    """Return the name to show for each method of a figure; methods that would be shown alike keep their letters."""
    names = {method: display(method) for method in methods}
    drawn_names = list(names.values())
    return {method: name if drawn_names.count(name) == 1 else method for method, name in names.items()}


def looks(methods: Iterable[str]) -> dict[str, Look]:
    """Return the look of each method of a figure; the same methods have the same looks in every figure.

    Each has the colour and marker that it says, where no other method of the figure asks for them first, and else those
    that its letters choose: methods choose before other names, and parameterizations before published adapters. Up to
    eight methods have eight colours; LoRA, to which all are compared, has the ink of the style sheet. Of more than
    eight, names of one first word share a colour, and differ by marker and line. No two of 88 are alike. References
    have the grey of ``tone``.

    >>> looks(["lora", "cp"])["cp"]
    Look(name='CP', colour='#0072B2', marker='s', line='-')
    """
    shown = displayed(sorted(set(methods)))
    found = {method: Look(name, tone(0.42), "x") for method, name in shown.items() if _reference(method)}
    places = {name: i for i, name in enumerate(registry.names())}
    known = {method: registry.known(method) for method in shown if method not in found}
    ordered = sorted(known, key=lambda m: (not (it := known[m]), not (it and it.look), places[it.name] if it else 0, m))
    taken: list[tuple[str, str]] = []
    for method in ordered:
        colour, marker = pair = _free(_wish(method), taken, few=len(ordered) <= len(COLOURS))
        alike = [colour for colour, _ in taken].count(colour)
        found[method] = Look(shown[method], ink(colour), marker, LINES[alike % len(LINES)])
        taken.append(pair)
    return {method: found[method] for method in shown}


def tone(share: float, colour: Any = None, ink: bool = False) -> str:
    """Return the text's colour with a share of the paper's: 0 is ink, 1 paper, whatever the style sheet in force.

    With a colour, so much of it with the rest of paper, or of ``ink``, as text in a pale colour needs.
    """
    import matplotlib as mpl
    from matplotlib.colors import to_hex, to_rgb, to_rgba

    faces = (mpl.rcParams["axes.facecolor"], mpl.rcParams["figure.facecolor"])
    paper = next((face for face in faces if to_rgba(face)[3] > 0), "white")  # the first that is not transparent
    text = mpl.rcParams["text.color"]
    first, second = (text, paper) if colour is None else (text if ink else paper, colour)
    red, green, blue = ((1 - share) * a + share * b for a, b in zip(to_rgb(first), to_rgb(second), strict=True))
    return to_hex((red, green, blue))


def _first_word(method: str) -> str:
    """Return the start of a name up to a space, comma, colon or bracket."""
    return (re.findall(r"[^\s,:(]+", method) or [""])[0]


def _wish(method: str) -> tuple[str, str]:
    """Return the colour and marker that a method says, or else that its letters choose, in its first word's colour."""
    found = registry.known(method)
    if found and found.look:
        return found.look
    family = found or registry.known(_first_word(method))
    colour, marker = (
        zlib.crc32(text.encode(errors="replace"))
        for text in (family.name if family else _first_word(method), found.name if found else method)
    )
    free = [each for each in COLOURS if each != BLACK]
    own = family.look[0] if family and family.look else free[colour % len(free)]
    return own, MARKERS[marker // len(COLOURS) % len(MARKERS)]


def ink(colour: str) -> str:
    """Return a colour; black is the ink of the style sheet."""
    return tone(0) if colour == BLACK else colour


def _reference(method: str) -> str | None:
    """Return the reference that a name is a spelling of; None where it is none."""
    return {spelling(name): name for name in REFERENCES}.get(spelling(method))


def _free(wished: tuple[str, str], taken: Collection[tuple[str, str]], few: bool) -> tuple[str, str]:
    """Return the colour and marker nearest to those wished for that are free: of few methods another colour."""
    colours = sorted(dict.fromkeys((wished[0], *COLOURS)), key=lambda colour: (colour != wished[0], colour == BLACK))
    pairs = [(colour, marker) for colour in colours for marker in dict.fromkeys((wished[1], *MARKERS))]
    used, markers = {colour for colour, _ in taken}, {marker for _, marker in taken}
    free = [pair for pair in pairs if pair not in taken] or pairs[:1]
    return min(free, key=lambda pair: (few and pair[0] in used, colours.index(pair[0]), pair[1] in markers))
