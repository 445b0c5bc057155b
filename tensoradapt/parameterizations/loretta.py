"""LoRETTA: ``delta = B A`` through a bottleneck, where A and B are each a tensor-train over their entries in row order.

Yang et al., arXiv 2402.11417, the reparameterized variant as released: A is (d_in, bottleneck) and B (bottleneck,
d_out), flattened row by row and cut into cores of one rank. A core may hold modes and a piece of the bottleneck, and
every mode and piece must lie inside one core. At width 4096 with bottleneck 8 the released cores 16, 16, 8, 4, 4 of A
hold in1 = 16, in2 = 16, in3 = 8, in4 = 2 with a piece of 2, and a piece of 4; those of B hold the bottleneck with
out1 = 2, then 16, 8, 4 and 4. Choose it for LoRA's form at a fraction of its parameters.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorly

from tensoradapt.checks import check_whole
from tensoradapt.errors import TensorAdaptError
from tensoradapt.networks.layout import Layout
from tensoradapt.networks.network import Factor, Network

layouts = (": out* : in*",)
label = "LoRETTA"
look = ("#CC79A7", "s")
Cores = Mapping[Any, Sequence[int]]
Group = tuple[str, ...]


def build(layout: Layout, rank: Any, bottleneck: int = 8, cores: Cores | None = None) -> Network:
    """Chain cores A1, A2, ... and B1, B2, ... by bonds of one rank; the last core of B starts at zero.

    There is a chain for every position of the index modes. The paper's multiplier is alpha / bottleneck. ``cores`` has
    the flat sizes of cores under "in" and "out", or under widths; by default there is one core per mode and one for
    the bottleneck. The paper does not start at zero: a core is normal with standard deviation
    (1/sqrt(rows + columns))^(1/order) / sqrt(right bond).
    """
    sizes, pieces = _sizes(layout, bottleneck, cores), _pieces(layout, bottleneck, cores)
    held = {side: _groups(layout, side, sizes[side], pieces) for side in ("in", "out")}
    names = iter(_bond_names(sizes))
    bonds = dict(pieces)
    factors = []
    for letter, side, width in (("A", "in", layout.in_), ("B", "out", layout.out)):
        inner = list(itertools.islice(names, len(held[side]) - 1))
        bonds |= dict.fromkeys(inner, rank)
        std = (bottleneck + width) ** (-0.5 / len(held[side]))
        for k, (left, group, right) in enumerate(zip(("", *inner), held[side], (*inner, ""), strict=True)):
            labels = (*(m.name for m in layout.index), *filter(None, (left, *group, right)))
            last = letter == "B" and not right
            paper = ("normal", std / math.sqrt(bonds.get(right, 1)))
            factors.append(Factor(f"{letter}{k + 1}", labels, "zero" if last else "normal", paper))  # type: ignore[arg-type]
    derived = tuple(name for name in bonds if name != "r")
    return Network(layout, tuple(factors), bonds, alpha=16, divisor=bottleneck, derived=derived)


def count(layout: Layout, rank: Any, bottleneck: int = 8, cores: Cores | None = None) -> int:
    """Return the sum of r_{k-1} n_k r_k over the cores of both trains, for every position of the index modes."""
    total = 0
    for train in _sizes(layout, bottleneck, cores).values():
        bonds = (1, *(rank for _ in train[1:]), 1)
        total += sum(left * n * right for n, (left, right) in zip(train, itertools.pairwise(bonds), strict=True))
    return math.prod(m.size for m in layout.index) * total


def oracle(layout: Layout, factors: Mapping[str, np.ndarray]) -> np.ndarray:
    """Reshape TensorLy's two trains to A (d_in, bottleneck) and B (bottleneck, d_out), and return (A B)^T."""

    def train(letter: str, position: tuple[int, ...]) -> np.ndarray:
        cores = [factor[position] for name, factor in factors.items() if name[0] == letter]
        ends = [(1, *(core.shape[0] for core in cores[1:])), (*(core.shape[-1] for core in cores[:-1]), 1)]
        shaped = [core.reshape(left, -1, right) for core, left, right in zip(cores, *ends, strict=True)]
        return tensorly.tt_to_tensor(shaped)

    positions = np.ndindex(*(m.size for m in layout.index))
    matrices = [(train("A", i).reshape(layout.in_, -1) @ train("B", i).reshape(-1, layout.out)).T for i in positions]
    return np.stack(matrices).reshape(layout.shape)


def _sizes(layout: Layout, bottleneck: int, cores: Cores | None) -> dict[str, tuple[int, ...]]:
    """Return the flat sizes of A's and B's cores."""
    check_whole("bottleneck", bottleneck)
    rows, cols = (tuple(m.size for m in modes) for modes in (layout.rows, layout.cols))
    usual = {"in": (*cols, bottleneck), "out": (bottleneck, *rows)}
    asked, sizes = cores or {}, {}
    for side, width in (("in", layout.in_), ("out", layout.out)):
        given = tuple(asked.get(side, asked.get(width, () if usual.keys() & asked else usual[side])))
        if not given or math.prod(given) != width * bottleneck:
            raise TensorAdaptError(
                f"cores of {side!r} are {given or 'not given'}; expected sizes with the product {width} x {bottleneck} "
                f"of the width and the bottleneck, as in cores={{{side!r}: {usual[side]}}}"
            )
        sizes[side] = given
    return sizes


def _pieces(layout: Layout, bottleneck: int, cores: Cores | None) -> dict[str, int]:
    """Return the sizes of the pieces of the bottleneck that no core of A or B cuts, outermost first."""
    sizes = _sizes(layout, bottleneck, cores)
    ends = {side: list(itertools.accumulate(sizes[side], lambda a, b: a * b)) for side in sizes}
    cuts = {end // layout.in_ for end in ends["in"] if end >= layout.in_} | {n for n in ends["out"] if n < bottleneck}
    bounds = sorted({1, bottleneck, *cuts})
    if uneven := [(a, b) for a, b in itertools.pairwise(bounds) if b % a]:
        (a, b), *_ = uneven
        raise TensorAdaptError(
            f"cores {sizes['in']} of 'in' and {sizes['out']} of 'out' cut the bottleneck {bottleneck} after {a} and "
            f"after {b}, and {a} does not divide {b}; choose cores that cut it alike, or leave it whole in one core"
        )
    return {f"b{k + 1}": b // a for k, (a, b) in enumerate(itertools.pairwise(bounds))} or {"b1": 1}


def _groups(layout: Layout, side: str, sizes: tuple[int, ...], pieces: Mapping[str, int]) -> list[Group]:
    """Return what each core of one side holds: modes and pieces of the bottleneck, in reading order."""
    modes = [(m.name, m.size) for m in (layout.cols if side == "in" else layout.rows)]
    left, groups = [*modes, *pieces.items()] if side == "in" else [*pieces.items(), *modes], []
    for n in sizes:
        group: list[str] = []
        held = 1
        while left and (not group or held < n):
            name, size = left.pop(0)
            group, held = [*group, name], held * size
        if held != n:
            parts = _fitting(side, sizes, pieces)
            raise TensorAdaptError(
                f"cores {sizes} of {side!r} cut {'the bottleneck' if group[-1] in pieces else group[-1]}, for layout "
                f"{str(layout)!r} {layout.shape}; every mode has to lie inside one core: use "
                + (f"split={{{side!r}: {parts}}}" if parts else "other cores, or none given")
            )
        groups.append(tuple(group))
    return [*groups[:-1], (*groups[-1], *(name for name, _ in left))]  # left over: modes of size 1


def _fitting(side: str, sizes: tuple[int, ...], pieces: Mapping[str, int]) -> tuple[int, ...]:
    """Return the split of the width that fits the cores: sizes without the bottleneck's share; empty if none fits."""
    rest, parts = math.prod(pieces.values()), []
    for n in reversed(sizes) if side == "in" else sizes:
        common = math.gcd(n, rest)
        rest //= common
        if rest > 1 and common < n:
            return ()
        parts.append(n // common)
    return tuple(n for n in (reversed(parts) if side == "in" else parts) if n > 1)


def _bond_names(sizes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Return the names of the bonds between neighbours, first A's and then B's.

    The bond called "r" is the one that fits the largest rank; the sizes of the others follow from it.
    """
    fits = []
    for train in sizes.values():
        free = [k in (0, len(train) - 1) for k in range(len(train))]
        for k in range(len(train) - 1):
            fits.append(min(train[i] if free[i] else math.inf for i in (k, k + 1)))
    first = fits.index(max(fits)) if fits else 0
    return ["r" if k == first else f"r{k + 2 if k < first else k + 1}" for k in range(len(fits))]
