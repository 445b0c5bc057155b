"""Contraction programs fix the order of pairwise products, which is searched once from the shapes.

``torch.einsum`` searches for a path on every call with three or more operands, which takes 60 times as long as the
products of a small adapter; a product of two operands needs no search.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import opt_einsum

from tensoradapt.networks.contraction_order import cheapest_order

Labels = tuple[str, ...]
LETTERS = 52  # as many names of axes as torch's einsum knows
SEARCHED = 7  # every order is searched for up to this many operands


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
    """Return the program that contracts ``inputs`` to ``output``, with ``sizes`` of all labels.

    ``unwritten`` are the labels of axes that the caller loops over: they count in the cost and are in no equation.
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
        if len(sizes) > LETTERS:  # letters of this product alone
            symbol = {x: opt_einsum.get_symbol(i) for i, x in enumerate(dict.fromkeys(itertools.chain(*taken)))}
        product = output if not stack else tuple(dict.fromkeys(x for labels in taken for x in labels if x in kept))
        text = ["".join(symbol[x] for x in labels if x not in unwritten) for labels in (*taken, product)]
        steps.append((positions, f"{','.join(text[:-1])}->{text[-1]}"))
        stack.append(product)
    return Program(inputs, output, tuple(steps))


def _path(
    inputs: tuple[Labels, ...], output: Labels, sizes: Mapping[str, int], symbol: Mapping[str, str]
) -> list[tuple[int, ...]]:
    """Return the positions to pop at each step, highest first so that popping one moves no other."""
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
    """Return the number of entries of an array with these axes."""
    return math.prod(sizes[label] for label in labels)
