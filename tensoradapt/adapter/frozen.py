"""Frozen values are bases that tensors share, and stored factors that are not trained; both are buffers.

Random frozen entries are a pure function of (seed, name, row, column): Philox words mapped to uniforms, so no torch
version changes them and a smaller site reads a slice of a larger one. Set ones are a pattern of their shape. Those of
one tensor alone are drawn as its trained factors are, from such words too.
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

from tensoradapt.adapter import rules
from tensoradapt.errors import TensorAdaptError, did_you_mean
from tensoradapt.networks.network import Factor, Network


def frozen_uniform(seed: int, name: str, n_rows: int, n_cols: int, first: int = 0) -> np.ndarray:  # (n_rows, n_cols)
    """Draw uniform entries of unit variance; each depends on (seed, name, its row, its column) alone.

    ``first`` is the number of the first row.
    """
    key = np.array([seed, zlib.crc32(name.encode())], dtype=np.uint64)
    half = math.sqrt(3)
    entries = np.empty((n_rows, n_cols))
    for i in range(n_rows):
        words = np.random.Philox(key=key, counter=np.array([0, first + i, 0, 0], dtype=np.uint64)).random_raw(n_cols)
        entries[i] = ((words >> np.uint64(11)).astype(np.float64) * 2.0**-53 * 2 - 1) * half
    return entries


# what a frozen matrix became when the first of the adapters that share it was moved
_MOVED: MutableMapping[Tensor, weakref.ref[Tensor]] = WeakIdKeyDictionary()


class Bases(nn.Module):
    """Random frozen matrices, one for each factor name, as large as the largest network needs; never saved.

    Set factors are held too, one for each name and shape, and for each tensor those that it draws by itself.
    ``tensors`` are the names of the networks' tensors, by default their numbers; ``matched`` says by which rule these
    draw.

    Adapters of one model hold the same matrices once, also after the model was moved or cast.
    """

    def __init__(
        self,
        networks: Iterable[Network],
        seed: int,
        empty: bool = False,
        matched: bool = True,
        tensors: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        self.seed = seed
        self.matched = matched
        networks = tuple(networks)
        self.tensors = tuple(map(str, range(len(networks))) if tensors is None else tensors)
        self._set = {_set_name(n, f): (n.shape(f), f.paper) for n in networks for f in n.frozen_draws if _is_set(f)}
        self._own = {_own_name(f, i): (n, f, i) for i, n in enumerate(networks) for f in n.own_draws}
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
                values.copy_(rules.pattern(shape, *paper))  # type: ignore[misc]  # the network checked that it has one
            elif name in self._own:
                network, factor, number = self._own[name]
                numbers = rules.Computed(self.seed, f"{self.tensors[number]}/{factor.name}")
                values.copy_((rules.matched if self.matched else rules.paper)(network, factor, numbers))
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

    def read(self, network: Network, factor: Factor, tensor: str = "0") -> Tensor:
        """Return one network's slice, in the factor's shape; ``tensor`` names whose it is where each has its own."""
        if _is_set(factor):
            return self.get_buffer(_set_name(network, factor))
        if factor.source == "own":
            return self.get_buffer(_own_name(factor, self._number(factor, tensor)))
        rows, cols = _matrix_shape(network, factor)
        return self.get_buffer(factor.name)[:rows, :cols].reshape(network.shape(factor))

    def _number(self, factor: Factor, tensor: str) -> int:
        if tensor not in self.tensors:
            raise TensorAdaptError(
                f"the bases hold no values of factor {factor.name!r} for tensor {tensor!r}; expected one that "
                f"they were made for{did_you_mean(tensor, self.tensors)}"
            )
        return self.tensors.index(tensor)


def base_shapes(networks: Iterable[Network]) -> dict[str, tuple[int, ...]]:
    """Return the shape of each frozen array that is made: the largest of a name that networks draw, all others."""
    shapes: dict[str, tuple[int, ...]] = {}
    for number, network in enumerate(networks):
        for factor in network.frozen_draws:
            if _is_set(factor):
                shapes[_set_name(network, factor)] = network.shape(factor)
                continue
            if factor.source == "own":
                shapes[_own_name(factor, number)] = network.shape(factor)
                continue
            known = shapes.get(factor.name, (0, 0))
            needed = _matrix_shape(network, factor)
            shapes[factor.name] = (max(known[0], needed[0]), max(known[1], needed[1]))
    return shapes


def _is_set(factor: Factor) -> bool:
    return factor.source == "set"


def _set_name(network: Network, factor: Factor) -> str:
    """Return the name of the buffer of a set factor; a drawn one's has no space."""
    kind, value = factor.paper or ("constant", 1.0)
    return f"{factor.name} {kind} {value:g} {'x'.join(map(str, network.shape(factor)))}"


def _own_name(factor: Factor, number: int) -> str:
    """Return the name of the buffer of a factor that one tensor draws; a set factor's has four words."""
    return f"{factor.name} of {number}"


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
