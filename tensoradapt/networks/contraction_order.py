"""Find the cheapest order of pairwise products: the one of opt_einsum's "optimal" search, in less time.

opt_einsum walks through every order. An order that has made the same products as an earlier one, at no lower cost,
cannot end cheaper, so it is not followed here. What remains is the first of the cheapest orders, as in opt_einsum.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from functools import cache

from opt_einsum.paths import ssa_to_linear

Costs = Mapping[tuple[int, int], int]  # the cost of multiplying two sets of operands, each an int with a bit for each


def cheapest_order(
    inputs: Sequence[Sequence[str]], output: Sequence[str], sizes: Mapping[str, int]
) -> Sequence[tuple[int, ...]] | None:
    """Return the positions to contract one after the other; None where opt_einsum has to be asked.

    opt_einsum remembers a product by the labels of its two operands. Where two products with the same labels differ in
    what they sum, its answer depends on which one it met first.
    """
    costs = _costs(inputs, output, sizes)
    return None if costs is None else ssa_to_linear(_search(len(inputs), costs))


def _costs(inputs: Sequence[Sequence[str]], output: Sequence[str], sizes: Mapping[str, int]) -> Costs | None:
    bits = {label: 1 << i for i, label in enumerate(sizes)}
    *given, wanted = (sum(bits[label] for label in set(labels)) for labels in (*inputs, output))
    every = (1 << len(given)) - 1
    inside = [0]  # labels of the operands in a set
    for labels in given:
        inside += [others | labels for others in inside]
    kept = [inside[s] if s & (s - 1) == 0 else inside[s] & (wanted | inside[every ^ s]) for s in range(every + 1)]

    @cache
    def volume(labels: int) -> int:
        return math.prod(size for label, size in sizes.items() if bits[label] & labels)

    costs: dict[tuple[int, int], int] = {}
    products: dict[tuple[int, int], tuple[int, bool]] = {}
    for first in range(1, every + 1):
        second = rest = every ^ first
        while second > first:
            a, b = kept[first], kept[second]
            sums = bool(a & b & ~(wanted | inside[rest ^ second]))
            product = kept[first | second], sums
            if products.setdefault((min(a, b), max(a, b)), product) != product:
                return None
            costs[first, second] = costs[second, first] = volume(a | b) * (1 + sums)
            second = (second - 1) & rest
    return costs


def _search(n: int, costs: Costs) -> tuple[tuple[int, int], ...]:
    """Return the first of the cheapest orders; products are numbered after the operands."""
    best: float = math.inf
    order: tuple[tuple[int, int], ...] = ()
    reached: dict[int, int] = {}

    def follow(path: tuple[tuple[int, int], ...], left: set[int], sets: tuple[int, ...], state: int, cost: int) -> None:
        nonlocal best, order
        if len(left) == 1:
            best, order = cost, path
            return
        for i, j in itertools.combinations(left, 2):
            a, b = sets[i], sets[j]
            total, next_state = cost + costs[a, b], state ^ (1 << a) ^ (1 << b) ^ (1 << (a | b))
            if total < best and total < reached.get(next_state, math.inf):
                reached[next_state] = total
                remaining = left - {i, j} | {len(sets)}  # built as in opt_einsum: its order decides between equals
                follow((*path, (min(i, j), max(i, j))), remaining, (*sets, a | b), next_state, total)

    alone = tuple(1 << i for i in range(n))
    follow((), set(range(n)), alone, sum(1 << s for s in alone), 0)
    return order
