"""The rules that a tensor's own factors are drawn by, matched or the paper's, from any source of random numbers."""

from __future__ import annotations

import math
import zlib
from collections import Counter
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from tensoradapt.networks.contraction import size
from tensoradapt.networks.network import PATTERNS, Factor, Network
from tensoradapt.networks.tree import bonds_to_zero, is_tree


class RandomNumbers(Protocol):
    """Random numbers in float64: standard normal ones, uniform ones from 0 to 1, and 0 or 1."""

    def normal(self, shape: Sequence[int]) -> Tensor: ...

    def uniform(self, shape: Sequence[int]) -> Tensor: ...

    def bits(self, shape: Sequence[int]) -> Tensor: ...


class Generated:
    """Numbers of torch's generator, for values that are trained and stored."""

    def __init__(self, seed: int, name: str) -> None:
        state = np.random.SeedSequence([seed, zlib.crc32(name.encode())]).generate_state(1, np.uint64)
        # independent of other factors, of their order and of torch's own generator
        self.generator = torch.Generator().manual_seed(int(state[0] >> np.uint64(1)))

    def normal(self, shape: Sequence[int]) -> Tensor:
        return torch.randn(tuple(shape), generator=self.generator, dtype=torch.float64)

    def uniform(self, shape: Sequence[int]) -> Tensor:
        return torch.rand(tuple(shape), generator=self.generator, dtype=torch.float64)

    def bits(self, shape: Sequence[int]) -> Tensor:
        return torch.randint(0, 2, tuple(shape), generator=self.generator, dtype=torch.float64)


class Computed:
    """Numbers from Philox words, for values that no file holds: a function of seed and name in every torch version."""

    def __init__(self, seed: int, name: str) -> None:
        self._words = np.random.Philox(key=np.array([seed, zlib.crc32(name.encode())], dtype=np.uint64))

    def normal(self, shape: Sequence[int]) -> Tensor:
        radius, angle = 1 - self.uniform(shape), self.uniform(shape)  # Box and Muller, 1958
        return (-2 * radius.log()).sqrt() * (2 * math.pi * angle).cos()

    def uniform(self, shape: Sequence[int]) -> Tensor:
        words = self._words.random_raw(math.prod(shape)) >> np.uint64(11)
        return torch.from_numpy(words.astype(np.float64) * 2.0**-53).reshape(tuple(shape))

    def bits(self, shape: Sequence[int]) -> Tensor:
        return (self.uniform(shape) < 0.5).double()


def pattern(shape: Sequence[int], kind: str, value: float) -> Tensor:  # float64
    """Return what a factor is set to; ``PATTERNS`` of networks names the kinds."""
    if kind == "constant":
        return torch.full(tuple(shape), value, dtype=torch.float64)
    places = [torch.arange(n).reshape([n, *(1 for _ in shape[k + 1 :])]) for k, n in enumerate(shape)]
    first, second, last = places[0], places[1], places[-1]
    hit = first == last if kind == "identity" else (first + second - last) % shape[0] == 0
    return hit.expand(*shape).double() * value


def matched(network: Network, factor: Factor, numbers: RandomNumbers) -> Tensor:
    """Draw orthonormal columns or rows (random signs on modes shorter than the bond) of the rule's entry size."""
    shape = network.shape(factor)
    bonds = set(network.bonds)
    last = _columns(network, factor)
    batch = _batch(network, factor, last)
    axes = [*batch, *(i for i in range(len(shape)) if i not in batch and i != last), last]
    n_batch = math.prod(shape[i] for i in batch)
    n_bond = shape[last]
    n_rest = math.prod(shape) // (n_batch * n_bond)
    inner = [label for i, label in enumerate(factor.labels) if i not in batch]
    signs = n_rest < n_bond and len(bonds.intersection(inner)) == 1
    rule = _signs if signs else _orthonormal
    flat = torch.stack([rule(n_rest, n_bond, numbers) for _ in range(n_batch)])
    drawn = flat.reshape([shape[i] for i in axes]).permute(*(axes.index(i) for i in range(len(shape)))).contiguous()
    return drawn * (entry_rms(network, factor) / drawn.square().mean().sqrt())


def _columns(network: Network, factor: Factor) -> int:
    """Return the axis of a factor's columns: the bond on the way to the zero factor in a tree, else the last bond."""
    towards = bonds_to_zero(network).get(factor) if is_tree(network) else None
    held = [i for i, label in enumerate(factor.labels) if label in ({towards[0]} if towards else network.bonds)]
    return max(held, default=len(factor.labels) - 1)


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
    drawn = [f for f in network.factors if (f.trainable or f.source == "own") and f.init != "zero"]
    inputs = [f for f in drawn if wide & set(f.labels)]
    return (3 * network.layout.in_) ** (-0.5 / len(inputs)) if factor in inputs else 1.0


def _orthonormal(n: int, m: int, numbers: RandomNumbers) -> Tensor:
    tall = numbers.normal((max(n, m), min(n, m)))
    q, r = torch.linalg.qr(tall)
    q = q * r.diagonal().sign()  # without it the draw is not uniform over orthonormal frames
    return q if n >= m else q.T


def _signs(n: int, m: int, numbers: RandomNumbers) -> Tensor:
    return numbers.bits((n, m)) * 2 - 1


def paper(network: Network, factor: Factor, numbers: RandomNumbers) -> Tensor:
    """Draw a factor as the paper's code does."""
    kind, value = factor.paper or ("normal", 1.0)
    shape = network.shape(factor)
    if kind in PATTERNS:
        return pattern(shape, kind, value)
    if kind == "orthogonal":
        return _orthonormal(math.prod(shape[:-1]), shape[-1], numbers).reshape(shape) * value
    if kind in ("normal", "xavier_normal", "unit"):
        drawn = numbers.normal(shape)
        return drawn * (value / drawn.norm() if kind == "unit" else value * _deviation(network, factor, kind))
    drawn = numbers.uniform(shape) * 2 - 1
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
