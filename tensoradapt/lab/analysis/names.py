"""The one table of methods: the name that each is shown by, and its place in the colours and markers of figures.

Names are shown by ``display`` and never stored: tables, ids and folders have the name that a run was given.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Sequence, Set
from functools import lru_cache
from typing import Any, NamedTuple

from tensoradapt.checks import check_is
from tensoradapt.parameterizations import label_of

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


# Place i of this table has colour i modulo 8 and marker i modulo 11; line and fill change with every row of eight. A
# place may have several names, as of a paper and of what its method is made of; behind "=" are other spellings.
TABLE: tuple[tuple[str, ...], ...] = (
    *(("CP", "CP (LoRTA)", "LoRTA"), ("MetaTT-4D", "MetaTT"), ("Tensor-train = TT = TT (MetaTT)",), ("Tucker",)),
    *(("VeRA",), ("LoTR",), ("LoRA",), ("LoHa",)),
    *(("PiSSA",), ("FacT-TT",), ("TT-LoRA",), ("LoRETTA", "LoRETTA_rep"), ("RandLoRA",), ("FacT-TK",), ("rsLoRA",)),
    *(("CaRA",), ("LoRA-XS",), ("DoRA",), ("Tensor ring",), ("QuanTA",), ("Kronecker", "Kronecker (LoKr)", "LoKr")),
    *(("Block-term",), ("LoRA+",), ("Aurora",), ("LoRTA (lit-gpt) = lorta-litgpt",), ("MetaTT-5D",), ("TT-matrix",)),
    *(("FLoRA",), ("TinyLoRA",), ("DoTA",), ("Dense",), ("TensLoRA-att",), ("LoRTA (PEFT) = lorta-peft",)),
    *(("MetaTT-(4+1)D = metatt-4+1d",), ("TensLoRA-qkv",), ("TensLoRA-depth",), ("TensLoRA-att_qkv",), ("TensLoRA+",)),
    *(("TensLoRA-att_depth",), ("TensLoRA-qkv_depth",), ("TensLoRA-att_qkv_depth",), ("TensLoRA-CP-att",)),
    *(("TensLoRA-CP-qkv",), ("TensLoRA-CP-depth",), ("TensLoRA-CP-att_qkv",), ("TensLoRA-CP-att_depth",)),
    *(("TensLoRA-CP-qkv_depth",), ("TensLoRA-CP-att_qkv_depth",), ("HiRA",), ("GraLoRA", "Block low-rank"), ("MoRe",)),
    *(
        ("KRAdapter", "Khatri-Rao"),
        ("C3A", "Block circulant"),
        ("Compacter",),
        ("MiSS", "Shared block"),
        ("MiSS-mini",),
    ),
    *(("RaSA",), (), ()),  # RaSA stands in results; the two places keep what follows in its colours
    *(("KronA",), ("PHM",), ("LoRA-FA",), ("ShareLoRA-A",), ("ShareLoRA-B",), ("ShareLoRA-AB",), ("Tied-LoRA",)),
    *(("MiLoRA",), ("OLoRA",), ("CorDA-IPM",), ("CorDA-KPM",), ("MiCA",), ("EVA",), ("LoRA-SB",), ("ABBA",)),
    *(("PoLAR",), ("StelLA",), ("StelLA-diagonal",)),
    *(("Uni-LoRA",), ("NOLA",)),
)


def display(method: str) -> str:
    """Return the name to show for a method, as its paper writes it.

    Case, spaces, hyphens and underscores of the given name do not count.

    A name that is not in the table keeps its letters, but for a first word that is, or that is a plug-in's with a
    label.

    Raises:
        TensorAdaptError: for what is no text.

    >>> display("lotr"), display("tensor_train"), display("cp over layer proj : out : in"), display("My own")
    ('LoTR', 'Tensor-train', 'CP over layer proj : out : in', 'My own')
    """
    check_is("method", method, str)
    if (name := known(method)) is not None:
        return name
    word = first_word(method)
    name = known(word) or label_of(word)
    return method if name is None else method.replace(word, name, 1)


def displayed(methods: Iterable[str]) -> dict[str, str]:
    """Return the name to show for each method of a figure; methods that would be shown alike keep their letters."""
    names = {method: display(method) for method in methods}
    drawn_names = list(names.values())
    return {method: name if drawn_names.count(name) == 1 else method for method, name in names.items()}


def looks(methods: Iterable[str]) -> dict[str, Look]:
    """Return the look of each method of a figure; the same methods have the same looks in every figure.

    Each has the colour and marker of its place in the table, where no other method of the figure asks for them first:
    known names choose before others, and by their order in the table. Up to eight methods have eight colours; LoRA, to
    which all are compared, has the ink of the style sheet. Of more than eight, names of one first word share a colour,
    and differ by marker and line. No two of 88 are alike. References have the grey of ``tone``.

    >>> looks(["lora", "cp"])["cp"]
    Look(name='CP', colour='#0072B2', marker='s', line='-')
    """
    drawn_names = displayed(sorted(set(methods)))
    ordered = sorted(drawn_names, key=lambda m: (known(m) is None, number_of(m) if known(m) is not None else 0, m))
    ordered = [method for method in ordered if known(method) not in REFERENCES]
    colours, taken = _colours(ordered), dict[str, tuple[int, str]]()
    for method in ordered:
        taken[method] = _pair(method, colours[method], set(taken.values()))
    found = {
        method: Look(drawn_names[method], tone(0.42), "x") for method in drawn_names if known(method) in REFERENCES
    }
    for method, (colour, marker) in taken.items():
        alike = [look.colour for look in found.values()].count(colour_of(colour))
        found[method] = Look(drawn_names[method], colour_of(colour), marker, LINES[alike % len(LINES)])
    return {method: found[method] for method in drawn_names}


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


def known(method: str) -> str | None:
    """Return the name in the table that a name is a spelling of; None without one."""
    return _spellings().get(_spelling(method))


def first_word(method: str) -> str:
    """Return the start of a name up to a space, comma, colon or bracket."""
    return (re.findall(r"[^\s,:(]+", method) or [""])[0]


def number_of(method: str) -> int:
    """Return the place of a method in the table, a number below 88.

    An unknown name has one that its letters choose, in the colour of its first word where that is known.
    """
    if (name := known(method)) is not None:
        return _numbers()[name]
    n, drawn = len(COLOURS), zlib.crc32(method.encode(errors="replace"))
    first = known(first_word(method))
    if first is not None:
        return _numbers()[first] % n + n * (drawn // n % len(MARKERS))
    colour = drawn % (n - 1)
    return colour + (colour >= COLOURS.index(BLACK)) + n * (drawn // n % len(MARKERS))  # ink is left out


def colour_of(i: int) -> str:
    """Return a colour by its place; black is the ink of the style sheet."""
    return tone(0) if COLOURS[i] == BLACK else COLOURS[i]


def _colours(ordered: Sequence[str]) -> dict[str, int]:
    """Return the colour of each method: its own where it is the first to ask for it, else a free one, ink the last."""
    few = len(ordered) <= len(COLOURS)
    family = {m: m if few or known(m) is not None else known(first_word(m)) or m for m in ordered}
    found: dict[str, int] = {}
    for is_known in (True, False):
        own = [m for m in dict.fromkeys(family.values()) if (known(m) is not None) is is_known]
        for method in own:
            if (colour := number_of(method) % len(COLOURS)) not in found.values():
                found[method] = colour
        for method in own:
            if method not in found:
                left = [i for i in range(len(COLOURS)) if i not in found.values()]
                left.sort(key=lambda i: COLOURS[i] == BLACK)
                found[method] = left[0] if left else number_of(method) % len(COLOURS)
    return {method: found[family[method]] for method in ordered}


def _pair(method: str, colour: int, taken: Set[tuple[int, str]]) -> tuple[int, str]:
    """Return a colour and marker that no other method has; where it can, a marker that none has."""
    markers = [MARKERS[(number_of(method) + i) % len(MARKERS)] for i in range(len(MARKERS))]
    near = [((colour + i) % len(COLOURS), marker) for i in range(len(COLOURS)) for marker in markers]
    free = [pair for pair in near if pair not in taken] or near[:1]
    used = {marker for _, marker in taken}
    return next((pair for pair in free if pair[0] == colour and pair[1] not in used), free[0])


def _spelling(method: str) -> str:
    return re.sub(r"[\s_-]", "", method.lower())


@lru_cache(maxsize=1)
def _spellings() -> dict[str, str]:
    """Return the names in the table by each of their spellings."""
    entries = [entry.split(" = ") for names in TABLE for entry in names] + [[name] for name in REFERENCES]
    return {_spelling(spelled): name for name, *others in entries for spelled in (name, *others)}


@lru_cache(maxsize=1)
def _numbers() -> dict[str, int]:
    numbers = {entry.split(" = ")[0]: i for i, names in enumerate(TABLE) for entry in names}
    return numbers | dict.fromkeys(REFERENCES, COLOURS.index(BLACK))
