"""Contraction programs: the order of pairwise products, searched once from the shapes.

``torch.einsum`` searches for a path on every call with three or more operands, which takes 60 times as long as the
products of a small adapter; a product of two operands needs no search.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import opt_einsum

from tensoradapt.networks.contraction_order import cheapest_order

if TYPE_CHECKING:
    from tensoradapt.networks.network import Factor, Network

Labels = tuple[str, ...]
PLACES = "*"  # the axis of several positions that are contracted together; no mode is called so
SEARCHED = 7  # operands at most for which every order is searched


@dataclass(frozen=True)
class Program:
    """A fixed sequence of products. Each step pops the operands at its positions and appends their product."""

    inputs: tuple[Labels, ...]
    output: Labels
    steps: tuple[tuple[tuple[int, ...], str], ...]

    def run(self, operands: Sequence[Any], einsum: Callable[..., Any]) -> Any:
        """Contract ``operands``, arrays with the axes ``inputs``, to one with the axes ``output``."""
        stack = list(operands)
        for positions, equation in self.steps:
            stack.append(einsum(equation, *(stack.pop(i) for i in positions)))
        return stack[0]

    def __str__(self) -> str:
        return "; ".join(equation for _, equation in self.steps)


def compile_program(
    inputs: Sequence[Labels], output: Labels, sizes: Mapping[str, int], unwritten: Labels = ()
) -> Program:
    """The program that contracts ``inputs`` to ``output``, with ``sizes`` of all labels.

    ``unwritten``: labels that count in the cost of an order and are in no equation, of axes the caller runs through.
    """
    key = tuple(sorted({(label, sizes[label]) for labels in (*inputs, output) for label in labels}))
    return _compile(tuple(map(tuple, inputs)), tuple(output), key, tuple(unwritten))


@lru_cache(maxsize=4096)
def _compile(
    inputs: tuple[Labels, ...], output: Labels, key: tuple[tuple[str, int], ...], unwritten: Labels
) -> Program:
    sizes = dict(key)
    symbol = {label: opt_einsum.get_symbol(i) for i, label in enumerate(sizes)}
    stack, steps = list(inputs), []
    for positions in _path(inputs, output, sizes, symbol):
        taken = [stack.pop(i) for i in positions]
        kept = {label for labels in (*stack, output) for label in labels}
        product = output if not stack else tuple(dict.fromkeys(x for labels in taken for x in labels if x in kept))
        text = ["".join(symbol[x] for x in labels if x not in unwritten) for labels in (*taken, product)]
        steps.append((positions, f"{','.join(text[:-1])}->{text[-1]}"))
        stack.append(product)
    return Program(inputs, output, tuple(steps))


def _path(
    inputs: tuple[Labels, ...], output: Labels, sizes: Mapping[str, int], symbol: Mapping[str, str]
) -> list[tuple[int, ...]]:
    """Positions to pop at each step, highest first so that popping one moves no other."""
    if len(inputs) == 1:
        return [(0,)]
    path = cheapest_order(inputs, output, sizes) if len(inputs) <= SEARCHED else None
    if path is None:
        equation = ",".join("".join(symbol[x] for x in labels) for labels in inputs)
        shapes = [tuple(sizes[x] for x in labels) for labels in inputs]
        search = "optimal" if len(inputs) <= SEARCHED else "auto"
        path, _ = opt_einsum.contract_path(
            f"{equation}->{''.join(symbol[x] for x in output)}", *shapes, shapes=True, optimize=search
        )
    return [tuple(sorted(step, reverse=True)) for step in path]


def size(labels: Labels, sizes: Mapping[str, int]) -> int:
    """Number of entries of an array with these axes."""
    return math.prod(sizes[label] for label in labels)


@dataclass(frozen=True)
class Half:
    """The contraction of A or B: its factors, and the modes that enter it as identities.

    ``apart``: whether several positions have values of their own, on a leading axis, or share one.
    """

    program: Program
    factors: tuple[Factor, ...]
    legs: Labels
    apart: bool = False


@lru_cache(maxsize=4096)
def slice_program(network: Network) -> Program:
    """The contraction of all factors at one position to its dense slice."""
    output = tuple(mode.name for mode in (*network.layout.rows, *network.layout.cols))
    return compile_program([_at(network, f.labels, 0) for f in network.factors], output, network.sizes)


@lru_cache(maxsize=4096)
def halves(network: Network, places: int = 0) -> tuple[Half, Half]:
    """The contractions of A and B of the minimum cut, at one position or at several at once.

    A mode held by the other side's factor crosses the cut: it is renamed there, and an identity joins the two names.
    """
    cut, layout = network.cut, network.layout
    rows, cols = (tuple(m.name for m in modes) for modes in (layout.rows, layout.cols))
    sizes = {**network.sizes, **{f"{m}*": n for m, n in layout.size_of.items()}, PLACES: places}
    crossing = tuple(f"{x}*" if x in layout.size_of else x for x in cut.crossing)

    def half(names: tuple[str, ...], side: Labels, other: Labels, output: Labels) -> Half:
        factors = tuple(f for f in network.factors if f.name in names)
        legs = tuple(m for m in cut.crossing if m in side)
        renamed = [tuple(f"{x}*" if x in other else x for x in _at(network, f.labels, places)) for f in factors]
        inputs, apart = [*renamed, *((m, f"{m}*") for m in legs)], any(PLACES in labels for labels in renamed)
        output = (PLACES, *output) if apart else output
        program = compile_program(inputs, output, sizes) if inputs else Program((), (), ())
        return Half(program, factors, legs, apart)

    return half(cut.a, cols, rows, (*crossing, *cols)), half(cut.b, rows, cols, (*rows, *crossing))


def _at(network: Network, labels: Labels, places: int) -> Labels:
    """The axes of a factor whose index modes are fixed, at one position or at several."""
    index = {mode.name for mode in network.layout.index}
    free = tuple(label for label in labels if label not in index)
    return (PLACES, *free) if places and len(free) < len(labels) else free
