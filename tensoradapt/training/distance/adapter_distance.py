"""Compute how far a change of its factors moves an adapter's updates, as a polynomial in the length of the change.

``|T(c) - T(0)|^2`` with factors ``f + c change`` is computed from the factors, and no dense tensor of all sites
is formed. Where each row and column mode is in one factor alone, it is ``<T(c), T(c)> - 2 <T(c), T(0)> + <T(0), T(0)>``
by networks that are contracted with a copy of themselves, in float64. Where two factors have one (VeRA, LoHa), the
change of each site is a polynomial in c, with the triangle of its QR in place of a wide frozen factor. Coefficients are
exact but for rounding, those of all tensors are read from the device at once, and tensors of one network are stacked.
Only a large core is contracted at each length that is tried, as the products of its powers would take more.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from tensoradapt.adapter.adapter import Adapter
from tensoradapt.adapter.factored import FactoredTensor
from tensoradapt.networks.contraction import Labels, Program, compile_program, size
from tensoradapt.networks.gram import primed
from tensoradapt.networks.network import Factor, Network
from tensoradapt.planning.scale import triangle
from tensoradapt.training.distance import mode_products, polynomials
from tensoradapt.training.distance.blocks import Block, Ranges, blocks_of, index_modes, ranges_of, squares_of

Values = Mapping[str, Tensor]  # factors by name


TENSOR = "tensor*"  # the axis of stacked tensors
ENTRIES = 2**22  # the most entries that the factors in one stack have
CACHED = 2**19  # the same on a processor for sites of entangled tensors, whose arrays then stay in its cache
CORE = 2**12  # entries of a core from which a processor contracts at each length rather than all powers


Curve = Tensor | Callable[[float], float]


class DistancePart(Protocol):
    """Tensors, or sites of them, that are contracted together."""

    def along(self, before: Sequence[Values], change: Sequence[Values]) -> Curve:
        """Return the squared distance: its coefficients, from the constant up (powers,), or as a function."""


class Distance:
    """The squared distance that a change moves all updates of an adapter, summed over the entries of its matrices."""

    def __init__(self, adapter: Adapter) -> None:
        self.networks = [tensor.network for tensor in adapter.factored]
        self._values, self._writes = _values(adapter), _writes(adapter)
        self._parts = _parts(adapter)

    def fits(self, adapter: Adapter) -> bool:
        """Say whether the adapter has the networks that it had, where they were, and the same frozen values."""
        same = [id(tensor.network) for tensor in adapter.factored] == list(map(id, self.networks))
        return (
            same
            and list(map(id, _values(adapter))) == list(map(id, self._values))
            and (_writes(adapter) == self._writes)
        )

    def along(self, before: Sequence[Values], change: Sequence[Values]) -> Callable[[float], float]:
        """Return the squared distance between ``before`` and ``before + c change``, as a function of c."""
        curves = [part.along(before, change) for part in self._parts]
        functions = [curve for curve in curves if not isinstance(curve, Tensor)]
        coefficients = _sum([curve for curve in curves if isinstance(curve, Tensor)])

        def at(c: float) -> float:
            value = 0.0
            for coefficient in reversed(coefficients):
                value = value * c + coefficient
            return value + sum(function(c) for function in functions)

        return at


def _sum(found: Sequence[Tensor]) -> list[float]:
    """Return the sum of polynomials."""
    read = iter(torch.cat(list(found)).tolist() if found else ())  # once: each read waits for the device
    rows = [list(itertools.islice(read, len(one))) for one in found]
    return [sum(column) for column in itertools.zip_longest(*rows, fillvalue=0.0)]


def _values(adapter: Adapter) -> list[Tensor]:
    """Return the frozen values of an adapter."""
    return [*adapter.bases.buffers(), *(value for tensor in adapter.factored for value in tensor.fixed.buffers())]


def _writes(adapter: Adapter) -> list[Any]:
    """Return what changes when an adapter is moved or cast, or its frozen values are written to."""
    first = next(adapter.parameters())
    return [first.device, first.dtype, *(0 if v.is_inference() else v._version for v in _values(adapter))]


@dataclass(frozen=True)
class Place:
    """A site of an entangled tensor: the number of the tensor, index positions, and the squared multiplier."""

    number: int
    at: Mapping[str, int]
    square: float


def _parts(adapter: Adapter) -> list[DistancePart]:
    """Group the tensors into stacks of one network, or their sites where the network needs it."""
    stacks: dict[tuple[Network, Block], list[int]] = {}
    places: dict[tuple[Network, Ranges], list[Place]] = {}
    for i, (tensor, group) in enumerate(zip(adapter.factored, adapter.plan.groups, strict=True)):
        squares = squares_of(adapter.plan, group)
        if _entangled(tensor.network):
            for member, square in zip(group.members, squares, strict=True):
                at = {name: value for name, value in member.at.items() if isinstance(value, int)}
                places.setdefault((tensor.network, ranges_of(member)), []).append(Place(i, at, square))
        else:
            for block in blocks_of(tensor.network, group.members, squares):
                stacks.setdefault((tensor.network, block), []).append(i)
    parts: list[DistancePart] = []
    shared: dict[Any, Tensor] = {}
    most = CACHED if next(adapter.parameters()).device.type == "cpu" else ENTRIES
    for (network, block), members in stacks.items():
        n = sum(math.prod(network.shape(f)) for f in network.factors)
        parts += [_Stack(network, block, few, adapter.factored) for few in _chunks(members, n)]
    for (network, ranges), sites in places.items():
        chunks = _chunks(sites, _products(network, ranges), most)
        parts += [_Sites(network, ranges, few, adapter.factored, shared) for few in chunks]
    return parts


def _chunks(items: Sequence[Any], entries: int, most: int = ENTRIES) -> Iterable[Sequence[Any]]:
    """Divide what has so many entries each into pieces that have at most ``most``, or one item."""
    n = max(1, most // entries)
    return (items[at : at + n] for at in range(0, len(items), n))


@lru_cache(maxsize=1024)
def _entangled(network: Network) -> bool:
    """Say whether several factors have one row or column mode."""
    held = _held(network)
    return any(held[mode.name] > 1 for mode in (*network.layout.rows, *network.layout.cols))


def _held(network: Network) -> Counter[str]:
    """Return how many factors have each label."""
    return Counter(label for factor in network.factors for label in factor.labels)


class _Weights:
    """The squared multipliers of a part, which are copied to its device again only once a scale has changed."""

    def __init__(self, tensors: Sequence[FactoredTensor], squares: Sequence[float]) -> None:
        self.tensors, self.squares = tensors, squares
        self._scales: list[float] = []
        self._value = torch.empty(0)

    def on(self, like: Tensor) -> Tensor:  # (tensors,)
        """Return the weights, in float64 on the device of a tensor."""
        scales = [tensor.scale for tensor in self.tensors]
        if scales != self._scales:
            squares = [square * scale**2 for square, scale in zip(self.squares, scales, strict=True)]
            self._scales, self._value = scales, torch.tensor(squares, dtype=torch.float64, device=like.device)
        return self._value


class _Stack:
    """Tensors of one network and block, which are contracted together."""

    def __init__(self, network: Network, block: Block, members: Sequence[int], tensors: Sequence[FactoredTensor]):
        self.network, self.block, self.members = network, block, members
        self.tensors = [tensors[i] for i in members]
        self.scheme = _scheme(network, block.ranges, block.mask is not None, len(members))
        self.weights = _Weights(self.tensors, [block.weight] * len(members))
        self._still: dict[str, Tensor] = {}

    def along(self, before: Sequence[Values], change: Sequence[Values]) -> Curve:
        moving = [f.name for f in self.network.factors if f.trainable]
        both = {name: [v[i][name] for i in self.members for v in (before, change)] for name in moving}
        values = {name: self._stacked(both[name], name) for name in moving}
        grams = {name: self._gram(name, values) for name in self.scheme.grams}
        weights = self.weights.on(next(iter(values.values())))
        cores = [value[0].numel() for name, value in values.items() if name not in grams]
        if weights.device.type == "cpu" and max(cores, default=0) > CORE:
            return self._by_length(values, grams, weights)
        moved = self._inner(values, values, {name: polynomials.folded(gram) for name, gram in grams.items()})
        still = {name: value[:1] for name, value in values.items()}
        mixed = self._inner(values, still, {name: gram[:, 0] for name, gram in grams.items()})
        coefficients = moved @ weights
        coefficients[: len(mixed)] -= 2 * (mixed @ weights)
        coefficients[0] = 0  # at length 0 nothing has moved
        return coefficients

    def _by_length(self, values: Values, grams: Values, weights: Tensor) -> Callable[[float], float]:
        """Return the squared distance as a function, which contracts the tensors at each length."""
        free = {name: value for name, value in values.items() if name not in grams}

        def inner(x: float, y: float) -> float:
            own, copy = ({name: torch.add(*value, alpha=c)[None] for name, value in free.items()} for c in (x, y))
            mixed = {name: polynomials.at(polynomials.at(gram, x), y)[None] for name, gram in grams.items()}
            operands = [operand[0] for operand in self._operands(own, copy, mixed)]
            return float(self.scheme.program.run(operands, mode_products.einsum) @ weights)

        start = inner(0.0, 0.0)
        return lambda c: inner(c, c) - 2 * inner(c, 0.0) + start

    def _inner(self, values: Values, copy: Values, grams: Values) -> Tensor:  # (powers, tensors)
        """Return <T(c), T'(c)> of the tensors and of those with the factors ``copy``."""
        return self.scheme.program.run(self._operands(values, copy, grams), polynomials.einsum)

    def _operands(self, values: Values, copy: Values, grams: Values) -> list[Tensor]:
        operands = []
        for factor in self.network.factors:
            name = factor.name
            if name in grams:
                operands.append(grams[name])
            elif name in values:
                operands += [values[name], copy[name]]
            else:
                operands += [self._frozen(name)] * 2
        return [*operands, *self._mask(operands[0])]

    def _gram(self, name: str, values: Values) -> Tensor:  # (powers, powers of the copy, tensors, *bonds, *bonds)
        program = self.scheme.grams[name]
        if name in values:
            return program.run([values[name]] * 2, torch.einsum)
        key = f"{name}*"
        if key not in self._still:
            self._still[key] = program.run([self._frozen(name)] * 2, torch.einsum)
        return self._still[key]

    def _mask(self, like: Tensor) -> list[Tensor]:
        if self.block.mask is None:
            return []
        if "mask*" not in self._still:
            shape = [1, *(self.network.sizes[mode] for mode in index_modes(self.network))]
            self._still["mask*"] = like.new_tensor(self.block.mask).reshape(shape)
        return [self._still["mask*"]]

    def _frozen(self, name: str) -> Tensor:
        if name not in self._still:
            self._still[name] = self._stacked([tensor.factors[name] for tensor in self.tensors], name)
        return self._still[name]

    def _stacked(self, values: Sequence[Tensor], name: str) -> Tensor:
        """Return (powers, tensors, *shape) in float64, narrowed to the ranges of the block."""
        stacked = torch.stack([value.detach() for value in values]).double()
        labels = next(f.labels for f in self.network.factors if f.name == name)
        for mode, n in self.block.ranges:
            if mode in labels:
                stacked = stacked.narrow(1 + labels.index(mode), 0, n)
        # tensors first in memory, as a batch of products needs them
        return stacked.unflatten(0, (len(self.members), -1)).transpose(0, 1)


@dataclass(frozen=True)
class Scheme:
    """How a network is contracted with a copy: the Gram matrices of single factors first, then ``program``.

    The program is of polynomials; those of the Gram matrices name the powers of a factor and of its copy.
    """

    grams: Mapping[str, Program]
    program: Program


@lru_cache(maxsize=1024)
def _scheme(network: Network, ranges: Ranges, masked: bool, n: int) -> Scheme:
    """Find the contraction of a network with its copy, by way of Gram matrices where these are smaller.

    A Gram matrix takes the place of a factor whose own modes have no fewer entries than its bonds.
    """
    index = set(index_modes(network)) if masked else set()
    held = _held(network)
    sizes = {**network.sizes, **dict(ranges), TENSOR: n, "power*": 2, "copy*": 2}
    sizes |= {f"{bond}'": k for bond, k in network.bonds.items()}
    grams: dict[str, Program] = {}
    operands: list[Labels] = []
    powers: dict[str, int] = {}  # axes that count in the cost, and that the program does not name
    for factor in network.factors:
        alone = {x for x in factor.labels if held[x] == 1 and x not in index}
        own, copy = (TENSOR, *factor.labels), (TENSOR, *primed(network, factor))
        bonds = tuple(x for x in factor.labels if x in network.bonds)
        if alone and size(bonds, sizes) <= size(tuple(alone), sizes):
            kept = tuple(dict.fromkeys(x for x in (*own, *copy) if x not in alone))
            both = ("power*", "copy*", *kept)
            grams[factor.name] = compile_program([("power*", *own), ("copy*", *copy)], both, sizes)
            found = {f"{factor.name}*": kept}
        else:
            found = {f"{factor.name}*": own, f"{factor.name}*'": copy}
        powers |= {power: 4 - len(found) for power in found if factor.trainable}
        operands += [(power, *labels) if factor.trainable else labels for power, labels in found.items()]
    mask = [index_modes(network)] if masked else []
    program = compile_program([*operands, *mask], (*powers, TENSOR), {**sizes, **powers}, tuple(powers))
    return Scheme(grams, program)


class _Sites:
    """Sites of one entangled network: their updates are polynomials in the length."""

    def __init__(
        self, network: Network, ranges: Ranges, places: Sequence[Place], tensors: Sequence[FactoredTensor],
        shared: dict[Any, Tensor],
    ) -> None:  # fmt: skip
        self.network, self.ranges, self.places = network, ranges, places
        self.tensors = [tensors[place.number] for place in places]
        self.weights = _Weights(self.tensors, [place.square for place in places])
        self.dtype = torch.promote_types(self.tensors[0].stored[0].dtype, torch.float32)
        self._shared = shared  # frozen factors that all parts of a network have
        self._still: dict[str, Tensor] = {}

    def along(self, before: Sequence[Values], change: Sequence[Values]) -> Tensor:
        network, at = self.network, self.places[0].at
        labels, operands = [], []
        for factor in network.factors:
            if factor.trainable:
                values = [
                    self._picked(factor, v[p.number][factor.name], p) for v in (before, change) for p in self.places
                ]
                operands.append(torch.stack(values).to(self.dtype).unflatten(0, (2, -1)))
                labels.append((f"{factor.name}*", TENSOR, *(x for x in factor.labels if x not in at)))
            else:
                operands.append(self._frozen(factor)[None])
                labels.append((*self._stacked(factor), *_reduced_labels(network, factor, at)))
        powers = tuple(f"{factor.name}*" for factor in network.factors if factor.trainable)
        shapes = [
            value.shape if of[0] in powers else value.shape[1:] for of, value in zip(labels, operands, strict=True)
        ]
        sizes = {x: n for of, shape in zip(labels, shapes, strict=True) for x, n in zip(of, shape, strict=True)}
        modes = (x for x in sizes if x not in network.bonds and x not in powers and x != TENSOR)
        program = compile_program(labels, (*powers, TENSOR, *modes), sizes, powers)
        moved = program.run(operands, polynomials.einsum)[1:].flatten(2).transpose(0, 1)  # (tensors, powers, entries)
        moved = moved.double()  # or a square could be below zero where its powers cancel
        tables = moved @ moved.mT
        table = (self.weights.on(tables) @ tables.flatten(1)).view(tables.shape[1:])
        return F.pad(polynomials.folded(table), (2, 0))

    def _frozen(self, factor: Factor) -> Tensor:
        """Return a frozen factor at the sites: the triangle over its own modes, once where they all have the same."""
        stacked = self._stacked(factor)
        kept: dict[Any, Tensor] = self._still if stacked else self._shared
        key = factor.name if stacked else (self.network, self.ranges, factor.name)
        if key not in kept:
            few = list(zip(self.tensors, self.places, strict=True))[: None if stacked else 1]
            values = [self._reduced(factor, tensor.factors[factor.name], place) for tensor, place in few]
            kept[key] = torch.stack(values) if stacked else values[0]
        return kept[key]

    def _stacked(self, factor: Factor) -> Labels:
        """Return the axis of tensors, if each site has values of its own."""
        drawn = factor in self.network.frozen_draws and factor.source != "own"
        shared = drawn and not any(x in self.places[0].at for x in factor.labels)
        return () if shared else (TENSOR,)

    def _reduced(self, factor: Factor, value: Tensor, place: Place) -> Tensor:
        picked, alone = self._picked(factor, value, place), _alone(self.network, factor, place.at)
        labels = tuple(x for x in factor.labels if x not in place.at)
        return (triangle(labels, picked.double(), alone) if alone else picked).to(self.dtype)

    def _picked(self, factor: Factor, value: Tensor, place: Place) -> Tensor:
        pick: dict[str, Any] = {**place.at, **{mode: slice(n) for mode, n in self.ranges}}
        return value[tuple(pick.get(x, slice(None)) for x in factor.labels)]


def _products(network: Network, ranges: Ranges) -> int:
    """Return how many entries the largest array of a site has."""
    sizes, index = {**network.sizes, **dict(ranges)}, dict.fromkeys(index_modes(network), 0)
    frozen = [factor for factor in network.factors if not factor.trainable]
    alone = {x for factor in frozen for x in _alone(network, factor, index)}
    entries = size(tuple(m.name for m in (*network.layout.rows, *network.layout.cols) if m.name not in alone), sizes)
    for factor in frozen:
        own = _alone(network, factor, index)
        entries *= min(size(own, sizes), size(tuple(x for x in factor.labels if x not in own), sizes)) if own else 1
    return entries * 2 ** (len(network.factors) - len(frozen))


def _alone(network: Network, factor: Factor, at: Mapping[str, int]) -> Labels:
    held = _held(network)
    return tuple(x for x in factor.labels if held[x] == 1 and x not in at)


def _reduced_labels(network: Network, factor: Factor, at: Mapping[str, int]) -> Labels:
    alone = _alone(network, factor, at)
    rest = tuple(x for x in factor.labels if x not in at and x not in alone)
    return (alone[0], *rest) if alone else rest
