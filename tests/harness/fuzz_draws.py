"""What fuzzing draws: damage to bytes, texts and JSON, and names of every kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from harness.hostile_files import ESCAPE, ODD_VALUES

Rng = np.random.Generator
CUTS = (
    "", " ", "\n", '"', "'", ",", "\t", "{", "}", "[", "]", "\\", "=", "#", "\x00", "\ufeff", "é", "\u2028", "9" * 400,
)  # fmt: skip
FRAGMENTS = (
    "layer", "a", "LoRA", " ", "\t", "\n", "\r", "\x00", "\x1b[31m", "\x07", "\x7f", "\x85", "\u2028", "\u202e",
    "\u200b", "\u200d", "\ufeff", "é", "e\u0301", "ß", "漢字", "🙂", "👩\u200d👧", "\ud800", "\udfff", "ﬁ", "İ", "ſ",
    "０", "½", "=1+1", "+1", "-1", "@SUM(A1)", "=HYPERLINK(\"x\")", "\t=1", "|cmd", "<script>", "</td>", "&amp;",
    "<!--", "]]>", "{{x}}", "{%x%}", "[/b]", "[red]", "**", "`", "|", "$x$", "$", "\\frac{", "\\", "_", "^", "%s", "{}",
    "{0}", "#", "---", ": ", "'", '"', "../", "/", "a/b", "C:", "con", ".", "..", "-", "--rank", "~", "*", "?",
    "null", "true", "1e5", "nan", "0x1", "1_0", "default", "weight", "data", "keys", "__class__", "x" * 300,
)  # fmt: skip
LIGHT_ODD = [value for value in ODD_VALUES if not (isinstance(value, str) and len(value) > 10**5)]


def one(rng: Rng, values: Sequence[Any]) -> Any:
    return values[int(rng.integers(len(values)))]


def name(rng: Rng) -> str:
    """A name of one to four fragments."""
    return "".join(one(rng, FRAGMENTS) for _ in range(int(rng.integers(1, 5))))


def damaged_text(rng: Rng, text: str, tokens: Sequence[str] = CUTS) -> str:
    """A text with one to three pieces cut out, doubled or replaced by a token."""
    for _ in range(int(rng.integers(1, 4))):
        begin, end = np.sort(rng.integers(0, len(text) + 1, 2))
        end = min(int(end), int(begin) + int(rng.integers(0, 20)))
        piece = one(rng, ("", text[begin:end] * 2, one(rng, tokens), one(rng, tokens) + text[begin:end]))
        text = text[:begin] + piece + text[end:]
    return text


def damaged_bytes(rng: Rng, data: bytes) -> bytes:
    """Bytes with flipped bits, cut off, or with a piece that is removed, doubled or random."""
    begin, n = int(rng.integers(0, len(data) + 1)), int(rng.integers(1, 17))
    kind = int(rng.integers(5))
    if kind == 0:
        flipped = bytearray(data)
        for place in rng.integers(0, max(1, len(data)), n):
            flipped[place : place + 1] = bytes(
                byte ^ (1 << int(rng.integers(8))) for byte in flipped[place : place + 1]
            )
        return bytes(flipped)
    middle = (b"", data[begin : begin + n] * 2, rng.bytes(n), b"")[kind - 1]
    return data[:begin] + middle + (b"" if kind == 4 else data[begin + n :])


def damaged_json(rng: Rng, document: Any) -> Any:
    """A document in which one to three values are replaced, removed or doubled; shares what it does not change."""
    for _ in range(int(rng.integers(1, 4))):
        document = _edited(rng, document, depth=int(rng.integers(1, 8)))
    return document


def _edited(rng: Rng, value: Any, depth: int) -> Any:
    if not depth or not isinstance(value, dict | list) or not value:
        return odd_value(rng, value)
    keys = list(value) if isinstance(value, dict) else range(len(value))
    key, new = one(rng, keys), value.copy()
    if rng.random() < 0.1:
        del new[key]
    elif rng.random() < 0.1 and isinstance(new, list):
        new.insert(int(key), new[key])
    elif rng.random() < 0.1 and isinstance(new, dict):
        new[name(rng)] = new.pop(key)
    else:
        new[key] = _edited(rng, value[key], depth - 1)
    return new


def odd_value(rng: Rng, value: Any) -> Any:
    """A value near the given one, or of another type."""
    if isinstance(value, bool) or rng.random() < 0.4:
        return one(rng, LIGHT_ODD)
    if isinstance(value, int | float) and abs(value) < 1e300:
        return one(rng, (value + 1, -value, value * 2, 0, value * 10**9, str(value), float(value), [value]))
    if isinstance(value, str):
        return one(rng, (damaged_text(rng, value), name(rng), value + ESCAPE, value * 2, [value], ""))
    return one(rng, LIGHT_ODD)
