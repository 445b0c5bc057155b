"""Find the minimum cut of a network of many factors by maximum flow: there are 2^factors splits to search."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np

RESOLUTION = 2**16  # logarithms of sizes are rounded to whole numbers of this fraction
ENDLESS = 2**30  # more than the logarithms of all sizes together


def sides_by_flow(
    held: Sequence[Sequence[str]], rows: Mapping[str, int], cols: Mapping[str, int], bonds: Mapping[str, int]
) -> tuple[str, ...]:
    """Return the side, "A" or "B", of each factor for which the sizes of the cut labels have the least product.

    A bond is cut, once, where factors of both sides have it; a row mode where a factor of A has it, a column mode where
    a factor of B does; index modes never are. The flow goes from A to B, and each label is an edge of its own.

    Args:
        held: the labels of each factor.
        rows, cols, bonds: sizes of the row modes, the column modes and the bonds; other labels are index modes.

    >>> sides_by_flow([("r", "in"), ("out", "r")], {"out": 8}, {"in": 8}, {"r": 2})
    ('A', 'B')
    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import breadth_first_order, maximum_flow

    a, b, *factors = range(len(held) + 2)
    new = itertools.count(len(held) + 2)
    edges: dict[tuple[int, int], int] = {}
    for label, n in {**rows, **cols, **bonds}.items():
        holders = [node for node, labels in zip(factors, held, strict=True) if label in labels]
        into = a if label in cols else next(new)
        out = b if label in rows else next(new)
        edges[into, out] = round(math.log2(n) * RESOLUTION)
        edges |= {(holder, into): ENDLESS for holder in holders if into != a}
        edges |= {(out, holder): ENDLESS for holder in holders if out != b}
    nodes = next(new)
    ends = np.array(list(edges)).T
    capacity = csr_array((np.array(list(edges.values()), dtype=np.int32), (ends[0], ends[1])), shape=(nodes, nodes))
    left = capacity - maximum_flow(capacity, a, b).flow
    left.data[left.data < 0] = 0
    left.eliminate_zeros()
    reached = set(breadth_first_order(left, a, return_predecessors=False).tolist())
    return tuple("A" if node in reached else "B" for node in factors)
