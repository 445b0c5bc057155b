"""Frozen values are bases that tensors share, and stored factors that are not trained; both are buffers.

Random frozen entries are a pure function of (seed, name, row, column): Philox words mapped to uniforms, so no torch
version changes them and a smaller site reads a slice of a larger one. Set ones are a pattern of their shape.
"""

from __future__ import annotations

import math
import weakref
import zlib
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

from tensoradapt.networks.network import Factor, Network


def frozen_uniform(seed: int, name: str, n_rows: int, n_cols: int) -> np.ndarray:  # (n_rows, n_cols)
    """Draw uniform entries of unit variance; each depends on (seed, name, its row, its column) alone."""
    key = np.array([seed, zlib.crc32(name.encode())], dtype=np.uint64)
    half = math.sqrt(3)
    entries = np.empty((n_rows, n_cols))
    for i in range(n_rows):
        words = np.random.Philox(key=key, counter=np.array([0, i, 0, 0], dtype=np.uint64)).random_raw(n_cols)
        entries[i] = ((words >> np.uint64(11)).astype(np.float64) * 2.0**-53 * 2 - 1) * half
    return entries


def pattern(shape: Sequence[int], kind: str, value: float) -> Tensor:  # float64
    """Return what a factor is set to; ``PATTERNS`` of networks names the kinds."""
    if kind == "constant":
        return torch.full(tuple(shape), value, dtype=torch.float64)
    places = [torch.arange(n).reshape([n, *(1 for _ in shape[k + 1 :])]) for k, n in enumerate(shape)]
    first, second, last = places[0], places[1], places[-1]
    hit = first == last if kind == "identity" else (first + second - last) % shape[0] == 0
    return hit.expand(*shape).double() * value


# what a frozen matrix became when the first of the adapters that share it was moved
_MOVED: MutableMapping[Tensor, weakref.ref[Tensor]] = WeakIdKeyDictionary()


class Bases(nn.Module):
    """Random frozen matrices, one for each factor name, as large as the largest network needs; never saved.

    Set factors are held too, one for each name and shape.
    Adapters of one model hold the same matrices once, also after the model was moved or cast.
    """

    def __init__(self, networks: Iterable[Network], seed: int, empty: bool = False) -> None:
        super().__init__()
        self.seed = seed
        networks = tuple(networks)
        self._set = {_set_name(n, f): (n.shape(f), f.paper) for n in networks for f in n.frozen_draws if _is_set(f)}
        for name, shape in base_shapes(networks).items():
            values = torch.empty(shape, device="meta" if empty else "cpu")
            self.register_buffer(name, values, persistent=False)
        if not empty:
            self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw or set the entries, in place."""
        for name, values in self.named_buffers():
            if name in self._set:
                shape, paper = self._set[name]
                values.copy_(pattern(shape, *paper))  # type: ignore[misc]  # the network checked that it has one
            else:
                values.copy_(torch.from_numpy(frozen_uniform(self.seed, name, *values.shape)))

    def share(self, name: str, others: Iterable[Tensor | None]) -> None:
        """Hold a matrix of others, the first that equals mine in numbers, dtype and place."""
        mine = self.get_buffer(name)
        alike = (one for one in others if one is not None and (one.dtype, one.device) == (mine.dtype, mine.device))
        setattr(self, name, next((one for one in alike if torch.equal(one, mine)), mine))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        """Move or cast the matrices; those that were shared stay so, as each adapter of a model is moved in turn."""
        before = dict(self.named_buffers())
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, old in before.items():
            moved = _MOVED.get(old)
            self.share(name, [moved() if moved else None])
            if (new := self.get_buffer(name)) is not old:
                _MOVED[old] = weakref.ref(new)
        return self

    def read(self, network: Network, factor: Factor) -> Tensor:
        """Return one network's slice, in the factor's shape."""
        if _is_set(factor):
            return self.get_buffer(_set_name(network, factor))
        rows, cols = _matrix_shape(network, factor)
        return self.get_buffer(factor.name)[:rows, :cols].reshape(network.shape(factor))


def base_shapes(networks: Iterable[Network]) -> dict[str, tuple[int, ...]]:
    """Return the shape of each frozen array that is made: for each name the largest drawn, and all that are set."""
    shapes: dict[str, tuple[int, ...]] = {}
    for network in networks:
        for factor in network.frozen_draws:
            if _is_set(factor):
                shapes[_set_name(network, factor)] = network.shape(factor)
                continue
            known = shapes.get(factor.name, (0, 0))
            needed = _matrix_shape(network, factor)
            shapes[factor.name] = (max(known[0], needed[0]), max(known[1], needed[1]))
    return shapes


def _is_set(factor: Factor) -> bool:
    return factor.source == "set"


def _set_name(network: Network, factor: Factor) -> str:
    """Return the name of the buffer of a set factor; no other factor's has a space."""
    kind, value = factor.paper or ("constant", 1.0)
    return f"{factor.name} {kind} {value:g} {'x'.join(map(str, network.shape(factor)))}"


class FrozenValues(nn.Module):
    """Numbers that are stored but not trained, by factor name."""

    def __init__(self, values: Mapping[str, Tensor]) -> None:
        super().__init__()
        for name, value in values.items():
            self.register_buffer(name, value)


def _matrix_shape(network: Network, factor: Factor) -> tuple[int, int]:
    """Return the shape of a frozen factor as a matrix: its bond against all its modes, in stored order."""
    shape = network.shape(factor)
    cut = 1 if factor.labels[0] in network.bonds else len(shape) - 1
    return math.prod(shape[:cut]), math.prod(shape[cut:])
