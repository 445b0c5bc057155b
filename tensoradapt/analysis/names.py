"""The one table of methods: the name that each is shown by, and its place in the colours and markers of figures.

Names are shown by ``display`` and never stored: tables, ids and folders have the name that a run was given.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable
from functools import lru_cache

from tensoradapt.checks import check_is

# Okabe and Ito's colours, told apart with any colour vision, and Tol's wine in place of their yellow, which white paper
# swallows.
BLACK = "#000000"  # LoRA, which all are compared with; drawn in the ink of the style sheet
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", BLACK, "#882255")
MARKERS = ("s", "p", "^", "D", "v", "P", "o", "h", "<", ">", "X")  # 11 and 8 are coprime: 88 pairs before one repeats
REFERENCES = ("frozen base + head", "full fine-tuning")  # drawn in greys of their own
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
    *(("TensLoRA-CP-qkv_depth",), ("TensLoRA-CP-att_qkv_depth",)),
)


def display(method: str) -> str:
    """Return the name to show for a method, as its paper writes it.

    Case, spaces, hyphens and underscores of the given name do not count.

    A name that is not in the table keeps its letters, but for a first word that is.

    Raises:
        TensorAdaptError: for what is no text.

    >>> display("lotr"), display("tensor_train"), display("cp over layer proj : out : in"), display("My own")
    ('LoTR', 'Tensor-train', 'CP over layer proj : out : in', 'My own')
    """
    check_is("method", method, str)
    if (name := known(method)) is not None:
        return name
    word = first_word(method)
    name = known(word)
    return method if name is None else method.replace(word, name, 1)


def displayed(methods: Iterable[str]) -> dict[str, str]:
    """Return the name to show for each method of a figure; methods that would be shown alike keep their letters."""
    names = {method: display(method) for method in methods}
    shown = list(names.values())
    return {method: name if shown.count(name) == 1 else method for method, name in names.items()}


def known(method: str) -> str | None:
    """Return the name in the table that a name is a spelling of; None without one."""
    return _spellings().get(_spelling(method))


def first_word(method: str) -> str:
    """Return the start of a name up to a space, comma, colon or bracket."""
    return (re.findall(r"[^\s,:(]+", method) or [""])[0]


def place(method: str) -> int:
    """Return the place of a method in the table, a number below 88.

    An unknown name has one that its letters choose, in the colour of its first word where that is known.
    """
    if (name := known(method)) is not None:
        return _places()[name]
    n, drawn = len(COLOURS), zlib.crc32(method.encode(errors="replace"))
    first = known(first_word(method))
    if first is not None:
        return _places()[first] % n + n * (drawn // n % len(MARKERS))
    colour = drawn % (n - 1)
    return colour + (colour >= COLOURS.index(BLACK)) + n * (drawn // n % len(MARKERS))  # ink is left out


def _spelling(method: str) -> str:
    return re.sub(r"[\s_-]", "", method.lower())


@lru_cache(maxsize=1)
def _spellings() -> dict[str, str]:
    """Return the names in the table by each of their spellings."""
    entries = [entry.split(" = ") for names in TABLE for entry in names] + [[name] for name in REFERENCES]
    return {_spelling(spelled): name for name, *others in entries for spelled in (name, *others)}


@lru_cache(maxsize=1)
def _places() -> dict[str, int]:
    places = {entry.split(" = ")[0]: i for i, names in enumerate(TABLE) for entry in names}
    return places | dict.fromkeys(REFERENCES, COLOURS.index(BLACK))
