"""Compute how far a change of its factors moves an adapter's updates, as a function of the length of the change.

``|T(c) - T(0)|^2`` with factors ``f + c change`` is computed from the factors, and no dense tensor of all sites
is formed. Where each row and column mode is in one factor alone, it is ``<T(c), T(c)> - 2 <T(c), T(0)> + <T(0), T(0)>``
by networks that are contracted with a copy of themselves, in float64. Where two factors have one (VeRA, LoHa), the
change of each site is a polynomial in c, with the triangle of its QR in place of a wide frozen factor.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from tensoradapt.adapter.adapter import Adapter
from tensoradapt.adapter.factored import FactoredTensor
from tensoradapt.networks.contraction import Labels, Program, compile_program, size
from tensoradapt.networks.gram import primed
from tensoradapt.networks.layout import RUNTIME
from tensoradapt.networks.network import Factor, Network
from tensoradapt.planning.plan import Member
from tensoradapt.planning.scale import multiplier, triangle
from tensoradapt.training.step_length import Curve

Values = Mapping[str, Tensor]  # factors by name


TENSOR = "tensor*"  # the axis of stacked tensors
ENTRIES = 2**22  # the most entries that the factors in one stack have


class Distance:
    """The squared distance that a change moves all updates of an adapter, summed over the entries of its matrices."""

    def __init__(self, adapter: Adapter) -> None:
        self.networks = [tensor.network for tensor in adapter.factored]
        self._parts = _parts(adapter)

    def fits(self, adapter: Adapter) -> bool:
        """Say whether the adapter still has the networks it had."""
        return [id(tensor.network) for tensor in adapter.factored] == list(map(id, self.networks))

    def along(self, before: Sequence[Values], change: Sequence[Values]) -> Curve:
        """Return the squared distance between ``before`` and ``before + c change``, as a function of c."""
        curves = [part.along(before, change) for part in self._parts]
        return Curve(lambda c: sum(curve.at(c) for curve in curves), sum(curve.base for curve in curves))


@dataclass(frozen=True)
class Block:
    """The slices of a tensor that its sites read: ranges of modes, and the squared multiplier at each index position.

    ``mask`` has the multipliers; it is None where all are ``weight``.
    """

    ranges: tuple[tuple[str, int], ...]  # a mode and how many of its first entries
    weight: float
    mask: tuple[float, ...] | None = None


def _parts(adapter: Adapter) -> list[Any]:
    """Group the tensors into stacks of one network, or take their sites singly where the network needs it."""
    parts: list[Any] = []
    stacks: dict[tuple[Network, Block], list[int]] = {}
    for i, (tensor, group) in enumerate(zip(adapter.factored, adapter.plan.groups, strict=True)):
        squares = [multiplier(adapter.plan.scale, group.network, member.site.in_) ** 2 for member in group.members]
        if _entangled(tensor.network):
            parts.append(_Sites(tensor, i, group.members, squares))
        else:
            for block in _blocks(tensor.network, group.members, squares):
                stacks.setdefault((tensor.network, block), []).append(i)
    for (network, block), members in stacks.items():
        n = max(1, ENTRIES // sum(math.prod(network.shape(f)) for f in network.factors))
        for chosen in (members[at : at + n] for at in range(0, len(members), n)):
            parts.append(_Stack(network, block, chosen, [adapter.factored[i] for i in chosen]))
    return parts


@lru_cache(maxsize=1024)
def _entangled(network: Network) -> bool:
    """Say whether several factors have one row or column mode."""
    held = Counter(label for factor in network.factors for label in factor.labels)
    return any(held[mode.name] > 1 for mode in (*network.layout.rows, *network.layout.cols))


def _blocks(network: Network, members: Sequence[Member], squares: Sequence[float]) -> list[Block]:
    index = [mode for mode in network.layout.index if mode.name not in RUNTIME]
    grids: dict[Any, dict[tuple[Any, ...], float]] = {}
    for member, square in zip(members, squares, strict=True):
        ranges = tuple((name, len(v)) for name, v in member.at.items() if isinstance(v, range))
        grid = grids.setdefault(ranges, {})
        at = tuple(member.at[mode.name] for mode in index)
        grid[at] = grid.get(at, 0.0) + square
    blocks = []
    for ranges, grid in grids.items():
        values = tuple(grid.get(at, 0.0) for at in itertools.product(*(range(mode.size) for mode in index)))
        blocks.append(Block(ranges, values[0]) if len(set(values)) == 1 else Block(ranges, 1.0, values))
    return blocks


class _Stack:
    """Tensors of one network and block, which are contracted together."""

    def __init__(self, network: Network, block: Block, members: Sequence[int], tensors: Sequence[FactoredTensor]):
        self.network, self.block, self.members, self.tensors = network, block, members, tensors
        self.index = tuple(mode.name for mode in network.layout.index if mode.name not in RUNTIME)
        self.scheme = _scheme(network, block.ranges, block.mask is not None, len(members))
        self._still: dict[str, Tensor] = {}

    def along(self, before: Sequence[Values], change: Sequence[Values]) -> Curve:
        moving = {f.name for f in self.network.factors if f.trainable}
        old = {name: self._stacked([before[i][name] for i in self.members], name) for name in moving}
        step = {name: self._stacked([change[i][name] for i in self.members], name) for name in moving}
        grams = {name: self._grams(name, old, step) for name in self.scheme.grams}
        like = next(iter(old.values()))
        weights = like.new_tensor([self.block.weight * tensor.scale**2 for tensor in self.tensors])
        mask = []
        if self.block.mask is not None:
            mask = [like.new_tensor(self.block.mask).reshape([self.network.sizes[mode] for mode in self.index])]

        def inner(x: float, y: float) -> float:
            operands = []
            for factor in self.network.factors:
                name = factor.name
                if name in grams:
                    k, a, b, d = grams[name]
                    operands.append(k if a is None else k + y * a + x * b + x * y * d)
                elif name in moving:
                    operands += [old[name] + x * step[name], old[name] + y * step[name]]
                else:
                    operands += [self._frozen(name)] * 2
            return float(self.scheme.program.run([*operands, *mask], torch.einsum) @ weights)

        start = inner(0.0, 0.0)
        return Curve(lambda c: inner(c, c) - 2 * inner(c, 0.0) + start, start)

    def _grams(self, name: str, old: Values, step: Values) -> tuple[Tensor, Any, Any, Any]:
        program, swapped = self.scheme.grams[name]
        run, product = program.run, torch.einsum
        if name not in old:
            if name not in self._still:
                value = self._frozen(name)
                self._still[name] = run([value, value], product)
            return self._still[name], None, None, None
        f, d = old[name], step[name]
        mixed = run([f, d], product)
        return run([f, f], product), mixed, mixed.permute(swapped), run([d, d], product)

    def _frozen(self, name: str) -> Tensor:
        return self._stacked([tensor.factors[name] for tensor in self.tensors], name)

    def _stacked(self, values: Sequence[Tensor], name: str) -> Tensor:
        """Return (tensors, *shape) in float64, narrowed to the ranges of the block."""
        stacked = torch.stack([value.detach() for value in values]).double()
        labels = next(f.labels for f in self.network.factors if f.name == name)
        for mode, n in self.block.ranges:
            if mode in labels:
                stacked = stacked.narrow(1 + labels.index(mode), 0, n)
        return stacked


@dataclass(frozen=True)
class Scheme:
    """How a network is contracted with a copy: the Gram matrices of single factors first, then ``program``."""

    grams: Mapping[str, tuple[Program, tuple[int, ...]]]  # with the order of axes that exchanges the bonds of both
    program: Program


@lru_cache(maxsize=1024)
def _scheme(network: Network, ranges: tuple[tuple[str, int], ...], masked: bool, n: int) -> Scheme:
    """Find the contraction of a network with its copy, by way of Gram matrices where these are smaller.

    A Gram matrix takes the place of a factor whose own modes have no fewer entries than its bonds.
    """
    index = {mode.name for mode in network.layout.index if mode.name not in RUNTIME} if masked else set()
    held = Counter(label for factor in network.factors for label in factor.labels)
    sizes = {**network.sizes, **dict(ranges), TENSOR: n}
    sizes |= {f"{bond}'": k for bond, k in network.bonds.items()}
    grams: dict[str, tuple[Program, tuple[int, ...]]] = {}
    operands: list[Labels] = []
    for factor in network.factors:
        alone = {x for x in factor.labels if held[x] == 1 and x not in index}
        own, copy = (TENSOR, *factor.labels), (TENSOR, *primed(network, factor))
        bonds = tuple(x for x in factor.labels if x in network.bonds)
        if alone and size(bonds, sizes) <= size(tuple(alone), sizes):
            kept = tuple(dict.fromkeys(x for x in (*own, *copy) if x not in alone))
            other = {x: y for pair in zip(own, copy, strict=True) for x, y in (pair, pair[::-1])}
            swapped = tuple(kept.index(other[x]) for x in kept)
            grams[factor.name] = compile_program([own, copy], kept, sizes), swapped
            operands.append(kept)
        else:
            operands += [own, copy]
    mask = [tuple(m.name for m in network.layout.index if m.name in index)] if masked else []
    return Scheme(grams, compile_program([*operands, *mask], (TENSOR,), sizes))


class _Sites:
    """A tensor whose sites are taken one after the other: their updates are polynomials in the length."""

    def __init__(self, tensor: FactoredTensor, i: int, members: Sequence[Member], squares: Sequence[float]) -> None:
        self.tensor, self.i, self.members, self.squares = tensor, i, members, squares
        self._triangles: dict[Any, Tensor] = {}

    def along(self, before: Sequence[Values], change: Sequence[Values]) -> Curve:
        squared = sum(
            square * self._site(member, before[self.i], change[self.i])
            for member, square in zip(self.members, self.squares, strict=True)
        )
        coefficients = (self.tensor.scale**2 * squared).tolist()  # type: ignore[union-attr]
        return Curve(lambda c: sum(a * c**k for k, a in enumerate(coefficients)))

    def _site(self, member: Member, before: Values, change: Values) -> Tensor:  # (2 * degree + 1,)
        """Return the coefficients of the squared change of a site, over all its tasks, in powers of the length."""
        network = self.tensor.network
        at = {name: value for name, value in member.at.items() if isinstance(value, int)}
        ranges = tuple((name, len(value)) for name, value in member.at.items() if isinstance(value, range))
        polynomials, labels = [], []
        dtype = torch.promote_types(next(iter(before.values())).dtype, torch.float32)
        for factor in network.factors:
            if factor.trainable:
                values = [_picked(factor, v[factor.name], at, ranges) for v in (before, change)]
                labels.append((*(x for x in factor.labels if x not in at), f"{factor.name}*"))
            else:
                values = [self._reduced(factor, at, ranges)]
                labels.append(_reduced_labels(network, factor, at))
            polynomials.append([value.to(dtype) for value in values])
        terms = tuple(f"{factor.name}*" for factor in network.factors if factor.trainable)  # old value and change
        shaped = [(of, (*p[0].shape, 2)) for of, p in zip(labels, polynomials, strict=True)]
        sizes = {x: n for of, shape in shaped for x, n in zip(of, shape, strict=False)}
        output = tuple(x for x in sizes if x not in network.bonds)
        program = compile_program(labels, output, sizes, terms)
        _, *powers = program.run(polynomials, _polynomial_einsum)
        flat = torch.stack([power.flatten() for power in powers])
        table, n = (flat @ flat.mT).double(), len(powers)
        sums = table.new_zeros(2 * n + 1)
        for i, j in itertools.product(range(n), repeat=2):
            sums[i + j + 2] += table[i, j]
        return sums

    def _reduced(self, factor: Factor, at: Mapping[str, int], ranges: tuple[tuple[str, int], ...]) -> Tensor:
        """Return a frozen factor at a site: the triangle over its own modes, made once where all sites share it."""
        network = self.tensor.network
        key = (factor.name, ranges, tuple(at[x] for x in factor.labels if x in at))
        if key not in self._triangles:
            value = _picked(factor, self.tensor.factors[factor.name], at, ranges)
            labels = tuple(x for x in factor.labels if x not in at)
            alone = _alone(network, factor, at)
            value = triangle(labels, value.double(), alone) if alone else value
            self._triangles[key] = value.to(self.tensor.factors[factor.name].dtype)
        return self._triangles[key]


def _alone(network: Network, factor: Factor, at: Mapping[str, int]) -> Labels:
    held = Counter(label for f in network.factors for label in f.labels)
    return tuple(x for x in factor.labels if held[x] == 1 and x not in at)


def _reduced_labels(network: Network, factor: Factor, at: Mapping[str, int]) -> Labels:
    alone = _alone(network, factor, at)
    rest = tuple(x for x in factor.labels if x not in at and x not in alone)
    return (alone[0], *rest) if alone else rest


def _picked(factor: Factor, value: Tensor, at: Mapping[str, int], ranges: tuple[tuple[str, int], ...]) -> Tensor:
    pick: dict[str, Any] = {**at, **{mode: slice(n) for mode, n in ranges}}
    return value[tuple(pick.get(x, slice(None)) for x in factor.labels)]


def _polynomial_einsum(equation: str, *operands: Sequence[Tensor]) -> list[Tensor]:
    """Apply ``einsum`` to polynomials, each the list of its coefficients from the constant up."""
    result: dict[int, Tensor] = {}
    for powers in itertools.product(*(range(len(p)) for p in operands)):
        term = torch.einsum(equation, *(p[k] for p, k in zip(operands, powers, strict=True)))
        result[sum(powers)] = result[sum(powers)] + term if sum(powers) in result else term
    return [result[k] for k in range(len(result))]
