"""How a layer of each kind stores its weight. Only this file says so; sites and layers read it. No torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

IN_FIRST = ("Conv1D", "Embedding")  # these kinds store (in, out); all others have the output first
INPUTS = {"Embedding": ("token",), "Conv2d": ("channel", "kh", "kw")}  # modes of layers that are not linear


def is_conv1d(module: Any) -> bool:
    """Whether a module is GPT-2's Conv1D, by its class name: comparing classes would make transformers a dependency."""
    return type(module).__name__ == "Conv1D" and getattr(getattr(module, "weight", None), "ndim", 0) == 2


def logical_shape(kind: str, shape: Sequence[int]) -> tuple[int, int]:
    """(out, in) of a weight stored in this shape; a convolution's channels and kernel are its inputs."""
    first, rest = shape[0], math.prod(shape[1:])
    return (rest, first) if kind in IN_FIRST else (first, rest)


def input_modes(kind: str, shape: Sequence[int]) -> tuple[tuple[str, int], ...]:
    """Modes of the inputs of a weight stored in this shape, for a kind of ``INPUTS``."""
    return tuple(zip(INPUTS[kind], shape[:1] if kind in IN_FIRST else shape[1:], strict=True))
