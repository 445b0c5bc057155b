"""How a layer of each kind orders its stored weight. Only this file says so; sites and layers read it. No torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

IN_FIRST = ("Conv1D", "Embedding")  # these kinds store (in, out); all others have the output first


def is_conv1d(module: Any) -> bool:
    """Whether a module is GPT-2's Conv1D, by its class name: comparing classes would make transformers a dependency."""
    return type(module).__name__ == "Conv1D" and getattr(getattr(module, "weight", None), "ndim", 0) == 2


def logical_shape(kind: str, shape: Sequence[int]) -> tuple[int, int]:
    """(out, in) of a weight stored in this shape; a convolution's channels and kernel are its inputs."""
    first, rest = shape[0], math.prod(shape[1:])
    return (rest, first) if kind in IN_FIRST else (first, rest)
