"""Compile programs for a network's slice at one or several positions: as a dense matrix, or as A and B."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from tensoradapt.networks.contraction import Labels, Program, compile_program
from tensoradapt.networks.network import Factor, Network

POSITIONS = "*"  # the axis of several positions that are contracted together; no mode is called so


@dataclass(frozen=True)
class Half:
    """The contraction of A or B: its factors, and the modes that enter it as identities.

    ``apart`` says whether several positions have values of their own, on a leading axis, or share one.
    """

    program: Program
    factors: tuple[Factor, ...]
    legs: Labels
    apart: bool = False


@lru_cache(maxsize=4096)
def slice_program(network: Network) -> Program:
    """Return the program that contracts all factors at one position to the dense slice there."""
    output = tuple(mode.name for mode in (*network.layout.rows, *network.layout.cols))
    return compile_program([_at(network, f.labels, 0) for f in network.factors], output, network.sizes)


@lru_cache(maxsize=4096)
def halves(network: Network, n_positions: int = 0) -> tuple[Half, Half]:
    """Return the contractions of A and of B, split at the minimum cut, at one position or at ``n_positions`` at once.

    A mode held by the other side's factor crosses the cut: it is renamed there, and an identity joins the two names.
    """
    cut, layout = network.cut, network.layout
    rows, cols = (tuple(m.name for m in modes) for modes in (layout.rows, layout.cols))
    sizes = {**network.sizes, **{f"{m}*": n for m, n in layout.size_of.items()}, POSITIONS: n_positions}
    crossing = tuple(f"{x}*" if x in layout.size_of else x for x in cut.crossing)

    def half(names: tuple[str, ...], side: Labels, other: Labels, output: Labels) -> Half:
        factors = tuple(f for f in network.factors if f.name in names)
        legs = tuple(m for m in cut.crossing if m in side)
        renamed = [tuple(f"{x}*" if x in other else x for x in _at(network, f.labels, n_positions)) for f in factors]
        inputs, apart = [*renamed, *((m, f"{m}*") for m in legs)], any(POSITIONS in labels for labels in renamed)
        output = (POSITIONS, *output) if apart else output
        program = compile_program(inputs, output, sizes) if inputs else Program((), (), ())
        return Half(program, factors, legs, apart)

    return half(cut.a, cols, rows, (*crossing, *cols)), half(cut.b, rows, cols, (*rows, *crossing))


def _at(network: Network, labels: Labels, n_positions: int) -> Labels:
    """Return the axes of a factor whose index modes are fixed, at one position or at several."""
    index = {mode.name for mode in network.layout.index}
    free = tuple(label for label in labels if label not in index)
    return (POSITIONS, *free) if n_positions and len(free) < len(labels) else free
