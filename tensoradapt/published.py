"""Published adapters by name, and their closed parameter counts. The rows are data: ``published_rows``."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from tensoradapt.errors import TensorAdaptError, did_you_mean
from tensoradapt.published_row import Published
from tensoradapt.published_rows import ROWS
from tensoradapt.recipes import Dims

__all__ = ["LETTERS", "ROWS", "Published", "closed_count", "get", "names"]
LETTERS = (
    "d width, f width of the MLP, H heads, h head dimension, L layers, M adapted matrices of a layer, T tasks, r rank, "
    "n the parts of the width, cores those of a train"
)


def names() -> tuple[str, ...]:
    """Names of all rows."""
    return tuple(row.name for row in ROWS)


def get(name: str) -> Published:
    """The row of that name."""
    rows = {row.name: row for row in ROWS}
    if name not in rows:
        raise TensorAdaptError(f"unknown published adapter {name!r}{did_you_mean(name, rows)}")
    return rows[name]


def closed_count(row: Published, dims: Dims, rank: int, n_tasks: int = 1) -> int:
    """The row's formula at a model's sizes; what the source trains of the base is not in it.

    >>> closed_count(get("lorta"), Dims(layers=12, width=768, heads=12, kv_heads=12, head_dim=64, ff=3072), rank=8)
    6880
    """
    letters = {"d": dims.width, "f": dims.ff, "H": dims.heads, "h": dims.head_dim, "L": dims.layers}
    parts = {
        "n": row.split.get("in", {}).get(dims.width, ()),
        "cores": row.options.get("cores", {}).get(dims.width, ()),
    }
    own = {"M": len(row.projections), "T": n_tasks, "r": rank}
    words = {"ceil": math.ceil, "train": _train, "mpo": _mpo, "gates": _gates}
    return int(eval(row.formula, {"__builtins__": {}}, {**letters, **parts, **own, **words}))  # our own text


def _train(sizes: Sequence[int], rank: int) -> int:
    """Numbers in a tensor-train of one rank."""
    return rank * (sizes[0] + sizes[-1]) + rank**2 * sum(sizes[1:-1])


def _mpo(sizes: Sequence[int], rank: int) -> int:
    """Numbers in a tensor-train of matrices with equal rows and columns."""
    return _train([n * n for n in sizes], rank)


def _gates(sizes: Sequence[int]) -> int:
    """Numbers in a gate for each pair of axes."""
    return sum((a * b) ** 2 for a, b in itertools.combinations(sizes, 2))
