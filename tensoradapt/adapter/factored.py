"""A FactoredTensor has the numbers of one network, and gives the full tensor, its slices and their pairs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial, reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tensoradapt.adapter.draws import check_values, draw
from tensoradapt.adapter.factor_map import FactorMap
from tensoradapt.adapter.forward_pass import contracted
from tensoradapt.adapter.frozen import Bases, FrozenValues
from tensoradapt.adapter.places import Places
from tensoradapt.checks import (
    Check,
    check_arguments,
    flag,
    is_number,
    named,
    number,
    of_kind,
    one_of,
    optional,
    seed,
    shown,
    text,
)
from tensoradapt.errors import TensorAdaptError
from tensoradapt.habits import TENSOR, no_attribute
from tensoradapt.networks.contraction import Labels, compile_program
from tensoradapt.networks.layout import At
from tensoradapt.networks.network import MADE, Factor, Network
from tensoradapt.networks.slices import Half, halves, slice_program
from tensoradapt.networks.starts import OWN
from tensoradapt.planning import scale as scales


def _scale(value: Any, where: str) -> None:
    if isinstance(value, str):
        one_of(tuple(scales.SCALES), value, where)
    elif not is_number(value):
        raise TensorAdaptError(f"{where} is {shown(value)}; expected the name of a rule, or a finite number")


def _tensor(value: Any, where: str) -> None:
    if not isinstance(value, Tensor) or value.is_meta or not value.is_floating_point():
        raise TensorAdaptError(f"{where} is {shown(value)}; expected a tensor of floating point numbers")


CHECKS: Mapping[str, Check] = {
    "network": of_kind(Network),
    "seed": seed,
    "name": text,
    "scale": _scale,
    "alpha": optional(number),
    "bases": optional(of_kind(Bases)),
    "start": partial(one_of, OWN),
    "values": optional(partial(named, _tensor)),
    "empty": flag,
}


class FactoredTensor(nn.Module):
    """A tensor of weight updates over ``network.layout``, held in factored form.

    It starts at exactly zero, except with ``start="paper"`` where the paper does not; with ``start="subtract"`` the
    initial value is stored and subtracted. Laws: ``full()[at] == delta(at)``; ``B @ A == delta(at)`` with
    ``A, B = pair(at)``; ``apply(x, at) == x @ delta(at).T``.

    Args:
        network: factors, labels and sizes.
        seed: the seed of the draws.
        name: tells its draws from other tensors' with the same seed.
        scale: multiplies the tensor; "matched" and "paper" are solved from the draw.
        alpha: alpha of the scale; by default LoRA's 16 for "matched", the network's for "paper".
        bases: frozen matrices made together with those of other tensors; by default its own.
        start: zero, subtract, paper or gradient, as in ``plan``.
        values: factors that replace draws, frozen ones too; needed for factors of source "base".
        empty: make the factors on the meta device, with shapes and no values; the scale is then not a number.

    Raises TensorAdaptError for values, scales and positions that do not fit.

    >>> import tensoradapt as ta
    >>> tensor = ta.FactoredTensor(ta.plan("tiny-random-bert", "cp", rank=2).groups[0].network)
    >>> tensor.delta({"layer": 1, "proj": 0}).shape, tensor.full().abs().max().item()
    (torch.Size([24, 24]), 0.0)
    """

    def __init__(
        self,
        network: Network,
        *,
        seed: int = 0,
        name: str = "0",
        scale: str | float = "matched",
        alpha: float | None = None,
        bases: Bases | None = None,
        start: str = "zero",
        values: Mapping[str, Tensor] | None = None,
        empty: bool = False,
    ) -> None:
        super().__init__()
        check_arguments(locals(), **CHECKS)
        self.network = network = network.given(values or ())
        self.name = name
        self._slice = slice_program(network)
        self._halves = halves(network)
        self._places = Places()
        if bases is None:
            self.own_bases = bases = Bases([network], seed, empty, scales.is_matched(scale), [name])
        self._bases = (bases,)  # a tuple: shared with other tensors, so it must not be registered here
        self._mapped: tuple[FactorMap | None] = (None,)  # the same
        if empty:
            drawn = _empty(network)
            self.scale = math.nan
        else:
            drawn = {**draw(network, seed, name, scales.is_matched(scale), start, values or ()), **(values or {})}
            check_values(network, drawn)
            frozen = {f.name: bases.read(network, f, name) for f in network.frozen_draws}
            self.scale = scales.solve(scale, network, {**frozen, **drawn}, alpha)
        # contiguous: products of transposed factors round differently, and a loaded adapter must give the same bits
        stored = {key: value.to(torch.get_default_dtype()).contiguous() for key, value in drawn.items()}
        trained = {f.name: stored[f.name] for f in network.factors if f.trainable}
        self.trained = nn.ParameterDict({key: nn.Parameter(value.clone()) for key, value in trained.items()})
        fixed = [f.name for f in network.factors if f.source not in MADE and not f.trainable]
        self.fixed = FrozenValues({name: stored[name].clone() for name in fixed})  # the caller may keep theirs
        self.initial = FrozenValues(trained if start == "subtract" else {})

    def __getattr__(self, name: str) -> Any:
        if name in TENSOR:
            raise no_attribute("a FactoredTensor", name, TENSOR, ())
        return super().__getattr__(name)

    def made_by(self, mapped: FactorMap) -> None:
        """Let a map make the trained factors, of numbers that it holds for the tensor of this name; held are none."""
        self._mapped = (mapped,)
        self.trained, self.initial = nn.ParameterDict(), FrozenValues({})

    @property
    def factors(self) -> dict[str, Tensor]:
        """The raw factors by name, unscaled; frozen ones too."""
        return {factor.name: self._values(factor) for factor in self.network.factors}

    @property
    def stored(self) -> tuple[Tensor, ...]:
        """Every tensor that pairs depend on and that may change: trained factors, fixed ones, the initial ones."""
        parts = self.trained._parameters, self.fixed._buffers, self.initial._buffers  # values() would look each up
        numbers = self._leaves([f for f in self.network.factors if f.trainable]) if self._mapped[0] else ()
        held: Any = (value for part in parts for value in part.values())
        return (*numbers, *held)

    @property
    def held(self) -> dict[str, Tensor]:
        """Stored values besides the trained factors: those frozen and not drawn, and the subtracted initial ones."""
        parts = {"fixed": self.fixed, "initial": self.initial}
        return {f"{part}.{name}": value for part, module in parts.items() for name, value in module.named_buffers()}

    def _values(self, factor: Factor, initial: bool = False) -> Tensor:
        if factor.trainable and (mapped := self._mapped[0]):
            if initial:
                return mapped.initial(self.name, factor)
            return self._made([factor], self._leaves([factor]))[factor.name]
        if factor.trainable:
            return self.initial.get_buffer(factor.name) if initial else self.trained[factor.name]
        if factor.source not in MADE:
            return self.fixed.get_buffer(factor.name)
        return self._bases[0].read(self.network, factor, self.name)

    def _leaves(self, factors: Sequence[Factor]) -> list[Tensor]:
        """Return the parameters that trained factors are: themselves, or the numbers that a map makes them of."""
        names = [factor.name for factor in factors]
        mapped = self._mapped[0]
        return list(mapped.of(self.name, names).values()) if mapped else [self.trained[name] for name in names]

    def _made(self, factors: Sequence[Factor], leaves: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return trained factors from values of their ``_leaves``."""
        names = [factor.name for factor in factors]
        if (mapped := self._mapped[0]) is None:
            return dict(zip(names, leaves, strict=True))
        numbers = dict(zip(mapped.of(self.name, names), leaves, strict=True))
        return {f.name: mapped.value(self.name, f, numbers[mapped.key(self.name, f.name)]) for f in factors}

    @property
    def _subtracts(self) -> bool:
        mapped = self._mapped[0]
        return mapped.subtracts if mapped else next(self.initial.buffers(), None) is not None

    def full(self) -> Tensor:  # layout.shape
        """Return the dense tensor."""
        net = self.network
        program = compile_program([f.labels for f in net.factors], net.layout.names, net.sizes)
        return self._scaled(lambda initial: program.run([self._values(f, initial) for f in net.factors], _einsum))

    def delta(
        self,
        at: At,  # index modes -> int; row and column modes may carry a range
    ) -> Tensor:  # (out, in)
        """Return the dense slice, ``full()[at]`` as a matrix."""
        run = self._slice.run
        factors = self.network.factors
        dense = self._scaled(lambda initial: run(self._taken(at, factors, initial), _einsum))
        return dense.reshape(_widths(self.network, at))

    def _scaled(self, contracted: Callable[[bool], Tensor]) -> Tensor:
        """Multiply what the factors contract to, less what the initial ones do, by the scale."""
        return self.scale * (contracted(False) - contracted(True) if self._subtracts else contracted(False))

    def pair(self, at: At) -> tuple[Tensor, Tensor]:  # A: (R, in), B: (out, R)
        """Return A and B with ``B @ A == delta(at)``; R is the minimum cut times ``copies``."""
        return self.pairs_of([at])[0]

    @property
    def copies(self) -> int:
        """How often each rank component is in a pair: 2 where the start is subtracted and trains in both A and B."""
        return 2 if self._subtracts and all(_trains(half) for half in self._halves) else 1

    def pairs_of(self, positions: Sequence[At]) -> list[tuple[Tensor, Tensor]]:
        """Return the pair of each of several positions, contracted together; their ranges must be the same.

        A subtracted start is joined as ``B A - B0 A0 = B (A - A0) + (B - B0) A0``: both differences are exactly zero
        there, and so is every product with the pair, in whatever order a device sums it.
        """
        for at in positions:
            _check_at(self.network, at)
        out, in_ = _widths(self.network, positions[0])
        programs = self._halves if len(positions) == 1 else halves(self.network, len(positions))
        shapes = (-1, in_), (out, -1)

        def both(initial: bool) -> list[Tensor]:
            found = [self._half(positions, half, initial) for half in programs]
            return [x.reshape(*x.shape[: half.apart], *s) for x, half, s in zip(found, programs, shapes, strict=True)]

        a, b = self._less_initial(*both(False), *both(True)) if self._subtracts else both(False)
        b = b if self.scale == 1 else self.scale * b  # those of all positions at once
        each = (x.unbind() if half.apart else [x] * len(positions) for x, half in zip((a, b), programs, strict=True))
        return list(zip(*each, strict=True))

    def _less_initial(self, a: Tensor, b: Tensor, a0: Tensor, b0: Tensor) -> tuple[Tensor, Tensor]:
        """Return the pair of ``B A - B0 A0``; a half that nothing trains is its initial one, and is held once."""
        if self.copies == 2:
            return torch.cat([a - a0, a0], dim=-2), torch.cat([b, b - b0], dim=-1)
        return (a - a0, b) if _trains(self._halves[0]) else (a, b - b0)

    def _half(self, positions: Sequence[At], half: Half, initial: bool) -> Tensor:
        """Contract A or B at each position, unscaled, with the axes of its program."""
        pick = _picks(self.network, positions, self._places)
        factors = half.factors
        trained = [f for f in factors if f.trainable and not initial]
        eyes = self._eyes(positions[0], half.legs)

        def contract(*values: Tensor) -> Tensor:
            given = self._made(trained, values)
            taken = [given[f.name] if f.name in given else self._values(f, initial) for f in factors]
            operands = [pick(value, f.labels) for value, f in zip(taken, factors, strict=True)]
            return half.program.run([*operands, *eyes], _einsum)

        if not (factors or eyes):
            return self._like.new_ones(())
        values = self._leaves(trained)
        plain = len(factors) + len(eyes) == 1 and not half.apart  # nothing to keep for the backward pass
        plain = plain and not self._mapped[0]
        return contract(*values) if plain else contracted(contract, values)

    # nn.Module.apply maps a function over modules; the design's name wins here
    def apply(self, x: Tensor, at: At) -> Tensor:  # type: ignore[override]  # x: (*, in) -> (*, out)
        """Compute ``x @ delta(at).T`` without forming delta."""
        return apply_pair(x, self.pair(at))

    def _taken(self, at: At, factors: Iterable[Factor], initial: bool = False) -> list[Tensor]:
        """Return the factors at a position: index modes picked, ranges narrowed."""
        _check_at(self.network, at)
        pick = _picks(self.network, [at], self._places)
        return [pick(self._values(f, initial), f.labels) for f in factors]

    def _eyes(self, at: At, legs: Labels) -> list[Tensor]:
        dtype = self._like.dtype
        device = self._like.device
        return [torch.eye(_width(self.network, at, mode), dtype=dtype, device=device) for mode in legs]

    @property
    def _like(self) -> Tensor:
        return next(iter(self.stored))

    def extra_repr(self) -> str:
        return f"{self.network.layout}, rank {dict(self.network.bonds)}, scale {self.scale:.4g}"


def apply_pair(
    x: Tensor,  # (*, in)
    pair: tuple[Tensor, Tensor],  # A: (R, in), B: (out, R)
) -> Tensor:  # (*, out)
    """Compute ``x A^T B^T``, in the dtype of x."""
    a, b = pair
    return F.linear(F.linear(x, a.to(x)), b.to(x))


def _einsum(equation: str, *operands: Tensor) -> Tensor:
    """Apply torch's einsum in the widest dtype of the operands, of which it takes several in some equations alone."""
    if any(x.dtype is not operands[0].dtype for x in operands):
        widest = reduce(torch.promote_types, [x.dtype for x in operands])
        operands = tuple(x.to(widest) for x in operands)
    return torch.einsum(equation, *operands)


def _trains(half: Half) -> bool:
    return any(factor.trainable for factor in half.factors)


def _empty(network: Network) -> dict[str, Tensor]:
    """Make the stored factors with shapes and no values."""
    stored = [factor for factor in network.factors if factor not in network.frozen_draws]
    return {factor.name: torch.empty(network.shape(factor), device="meta") for factor in stored}


def _check_at(network: Network, at: At) -> None:
    needed = {mode.name: mode.size for mode in network.layout.index}
    sizes = network.layout.size_of
    for name, value in at.items():
        inside = isinstance(value, range) and value.step == 1 and 0 <= value.start < value.stop <= sizes.get(name, -1)
        if not inside and not (name in needed and isinstance(value, int) and 0 <= value < needed[name]):
            raise TensorAdaptError(
                f"position {name}={value!r} is not in layout {str(network.layout)!r} {network.layout.shape}"
            )
    if missing := [name for name in needed if not isinstance(at.get(name), int)]:
        raise TensorAdaptError(
            f"position {dict(at)} does not fix index mode {missing[0]!r} of layout {str(network.layout)!r}"
        )


def _picks(network: Network, positions: Sequence[At], kept: Places) -> Callable[[Tensor, Labels], Tensor]:
    """Return a function that takes a factor's values at positions: ranges narrowed, index modes picked."""
    # several positions get a new axis
    ranges = {label: slice(v.start, v.stop) for label, v in positions[0].items() if isinstance(v, range)}
    if len(positions) == 1:
        one = {**positions[0], **ranges}
        return lambda value, labels: value[tuple(one.get(label, slice(None)) for label in labels)]
    index: dict[str, tuple[Any, ...]] = {
        mode.name: tuple(at[mode.name] for at in positions) for mode in network.layout.index
    }

    def pick(value: Tensor, labels: Labels) -> Tensor:
        value = value[tuple(ranges.get(label, slice(None)) for label in labels)]
        over = [i for i, label in enumerate(labels) if label in index]
        if not over:
            return value
        rest = [i for i in range(len(labels)) if i not in over]
        places = tuple(kept.index(index[labels[i]], value.device) for i in over)
        return value.permute(*over, *rest)[places]

    return pick


def _width(network: Network, at: At, mode: str) -> int:
    value = at.get(mode)
    return len(value) if isinstance(value, range) else network.layout.size_of[mode]


def _widths(network: Network, at: At) -> tuple[int, int]:
    # lists: torch.compile cannot trace a generator here
    rows, cols = ([_width(network, at, m.name) for m in modes] for modes in (network.layout.rows, network.layout.cols))
    return math.prod(rows), math.prod(cols)
