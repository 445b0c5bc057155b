"""Published adapters by name. Their rows are data, in ``rows``."""

from __future__ import annotations

from tensoradapt.errors import TensorAdaptError, did_you_mean
from tensoradapt.published.row import Published
from tensoradapt.published.rows import ROWS

__all__ = ["LETTERS", "ROWS", "Published", "get", "names"]
LETTERS = (
    "d width, f width of the MLP, o outputs and i inputs of a matrix (both d where it is square), H heads, h head "
    "dimension, L layers, M adapted matrices of a layer, T tasks, r rank, n the parts of a width, cores a train's"
)


def names() -> tuple[str, ...]:
    """Names of all published adapters."""
    return tuple(row.name for row in ROWS)


def get(name: str) -> Published:
    """The published adapter of that name."""
    rows = {row.name: row for row in ROWS}
    if name not in rows:
        raise TensorAdaptError(f"unknown published adapter {name!r}{did_you_mean(name, rows)}")
    return rows[name]
