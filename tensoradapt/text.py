"""Text: how ranks, tables and columns are written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def align(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Lines of a table whose columns are as wide as their widest cell."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def rank_text(rank: int | Mapping[str, int]) -> str:
    """A rank, or those of each bond, in the space of a column.

    >>> rank_text(8), rank_text({"layer": 2, "out": 4})
    ('r=8', 'r=2 4')
    """
    return f"r={' '.join(map(str, rank.values())) if isinstance(rank, Mapping) else rank}"
