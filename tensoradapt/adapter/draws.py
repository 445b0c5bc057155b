"""Draw the values that trainable factors start with, and solve the matched scales of tensors drawn together."""

from __future__ import annotations

import math
import zlib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from tensoradapt.adapter.frozen import Bases, pattern
from tensoradapt.errors import TensorAdaptError
from tensoradapt.networks.contraction import size
from tensoradapt.networks.network import PATTERNS, Factor, Network
from tensoradapt.planning import scale as scales
from tensoradapt.planning.plan import Plan


def draw(
    network: Network, seed: int, name: str, matched: bool, start: str = "zero", given: Collection[str] = ()
) -> dict[str, Tensor]:
    """Draw the trainable factors but the given ones, by the matched rule or as the paper's code; float64, CPU.

    The zero factor is zero, except with ``start="subtract"``, and with ``start="paper"`` where the paper draws it.
    """
    rule = _matched if matched else _paper
    drawn = {}
    for factor in (f for f in network.factors if f.trainable and f.name not in given):
        generator = torch.Generator().manual_seed(_seed(seed, f"{name}/{factor.name}"))
        if starts_at_zero(factor, start):
            drawn[factor.name] = torch.zeros(network.shape(factor), dtype=torch.float64)
        elif factor.source == "draw":
            drawn[factor.name] = rule(network, factor, generator)
    return drawn


def drawn_together(
    plan: Plan, seed: int, bases: Bases, values: Sequence[Mapping[str, Tensor]]
) -> Iterator[tuple[int, dict[str, Tensor], float]]:
    """Yield number, factors and matched scale of a plan's tensors; those of one network are solved together.

    ``values`` has, for each tensor, factors from the base weights. A tensor whose factors all move, or whose trained
    ones are given, is left out: it is solved alone.
    """
    based = {f.name for g in plan.groups for f in g.network.factors if f.source == "base" and not f.trainable}
    if not scales.is_matched(plan.scale) or not all(based.issuperset(named) for named in values):
        return
    alike: dict[Network, list[int]] = {}
    for i, group in enumerate(plan.groups):
        if starts_at_zero(group.network.zero, plan.start):
            alike.setdefault(group.network, []).append(i)
    for network, numbers in alike.items():
        shared = {f.name: bases.read(network, f) for f in network.frozen_draws}
        n = scales.together(network)
        for part in (numbers[i : i + n] for i in range(0, len(numbers), n)):
            drawn = [{**draw(network, seed, str(i), True, plan.start), **values[i]} for i in part]
            squares = scales.mean_squares_of_zero(network, shared, drawn)
            for i, factors, square in zip(part, drawn, squares, strict=True):
                if square > 0:
                    yield i, factors, scales.scale_of(square, network, plan.spec.alpha)


def check_values(network: Network, values: Mapping[str, Tensor]) -> None:
    """Raise TensorAdaptError for a factor without a value, and for values of another shape or not finite."""
    for factor in network.factors:
        if factor.name not in values:
            if factor.source == "base":
                raise TensorAdaptError(
                    f"factor {factor.name!r} comes from the base weights, and none were given; "
                    "use attach(model, plan), or pass values="
                )
            continue
        needed = network.shape(factor)
        shape = tuple(values[factor.name].shape)
        if shape != needed or not torch.isfinite(values[factor.name]).all():
            what = f"shape {shape}" if shape != needed else "non-finite entries"
            axes = network.axes(factor)
            raise TensorAdaptError(f"factor {factor.name!r} has {what}; expected finite numbers {axes}")


def starts_at_zero(factor: Factor, start: str) -> bool:
    """Return whether a factor is zero with that start."""
    return factor.init == "zero" and not (start == "subtract" or (start == "paper" and factor.paper is not None))


def _matched(network: Network, factor: Factor, generator: torch.Generator) -> Tensor:
    """Draw orthonormal columns or rows (random signs on modes shorter than the bond) of the rule's entry size."""
    shape = network.shape(factor)
    bonds = set(network.bonds)
    last = max((i for i, label in enumerate(factor.labels) if label in bonds), default=len(shape) - 1)
    batch = _batch(network, factor, last)
    axes = [*batch, *(i for i in range(len(shape)) if i not in batch and i != last), last]
    n_batch = math.prod(shape[i] for i in batch)
    n_bond = shape[last]
    n_rest = math.prod(shape) // (n_batch * n_bond)
    inner = [label for i, label in enumerate(factor.labels) if i not in batch]
    signs = n_rest < n_bond and len(bonds.intersection(inner)) == 1
    rule = _signs if signs else _orthonormal
    flat = torch.stack([rule(n_rest, n_bond, generator) for _ in range(n_batch)])
    drawn = flat.reshape([shape[i] for i in axes]).permute(*(axes.index(i) for i in range(len(shape)))).contiguous()
    return drawn * (entry_rms(network, factor) / drawn.square().mean().sqrt())


def _batch(network: Network, factor: Factor, last: int) -> list[int]:
    """Return the axes whose every position is drawn apart.

    They are index modes beside a row or column mode, and a bond over terms (held by more than two factors) beside the
    bond of each term.
    """
    index = {mode.name for mode in network.layout.index}
    wide = bool(set(factor.labels) & set(network.layout.names) - index)
    holders = Counter(label for f in network.factors for label in f.labels)
    terms = {bond for bond in network.bonds if holders[bond] > 2}
    return [i for i, x in enumerate(factor.labels) if i != last and ((wide and x in index) or x in terms)]


def entry_rms(network: Network, factor: Factor) -> float:
    """Return 1 / sqrt(3 d_in) for the input side's drawn factor, split evenly over several; 1 for the rest."""
    wide = {mode.name for mode in network.layout.cols}
    inputs = [f for f in network.factors if f.trainable and f.init != "zero" and wide & set(f.labels)]
    return (3 * network.layout.in_) ** (-0.5 / len(inputs)) if factor in inputs else 1.0


def _orthonormal(n: int, m: int, generator: torch.Generator) -> Tensor:
    tall = torch.randn(max(n, m), min(n, m), generator=generator, dtype=torch.float64)
    q, r = torch.linalg.qr(tall)
    q = q * r.diagonal().sign()  # without it the draw is not uniform over orthonormal frames
    return q if n >= m else q.T


def _signs(n: int, m: int, generator: torch.Generator) -> Tensor:
    return torch.randint(0, 2, (n, m), generator=generator, dtype=torch.float64) * 2 - 1


def _paper(network: Network, factor: Factor, generator: torch.Generator) -> Tensor:
    kind, value = factor.paper or ("normal", 1.0)
    shape = network.shape(factor)
    if kind in PATTERNS:
        return pattern(shape, kind, value)
    if kind == "orthogonal":
        return _orthonormal(math.prod(shape[:-1]), shape[-1], generator).reshape(shape) * value
    if kind in ("normal", "xavier_normal", "unit"):
        drawn = torch.randn(shape, generator=generator, dtype=torch.float64)
        return drawn * (value / drawn.norm() if kind == "unit" else value * _deviation(network, factor, kind))
    drawn = torch.rand(shape, generator=generator, dtype=torch.float64) * 2 - 1
    return drawn * (value * _deviation(network, factor, kind))


def _deviation(network: Network, factor: Factor, kind: str) -> float:
    """Return torch's initialiser gain of the factor's shape, with fans as torch.nn.init counts them."""
    shape = network.shape(factor)
    if kind.startswith("xavier"):  # axes past the second count for both fans
        fans = (shape[0] + shape[1]) * math.prod(shape[2:])
        return math.sqrt((2 if kind == "xavier_normal" else 6) / fans)
    if kind == "kaiming_bond":
        return 1 / math.sqrt(shape[-1])
    modes = size(tuple(x for x in factor.labels if x not in network.bonds), network.sizes)
    return 1 / math.sqrt(modes) if kind == "kaiming" else 1.0


def _seed(seed: int, name: str) -> int:
    """Return a generator seed for one factor, independent of other factors, of their order and of torch."""
    state = np.random.SeedSequence([seed, zlib.crc32(name.encode())]).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))
