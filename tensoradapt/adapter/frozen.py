"""Frozen values: bases that tensors share, and stored factors that are not trained, as buffers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from tensoradapt.adapter import draws
from tensoradapt.networks.network import Factor, Network


class Bases(nn.Module):
    """Random frozen matrices, one for each factor name, as large as the largest network needs; never saved."""

    def __init__(self, networks: Iterable[Network], seed: int) -> None:
        super().__init__()
        self.seed = seed
        shapes: dict[str, tuple[int, int]] = {}
        for network in networks:
            for factor in network.factors:
                if not factor.trainable and factor.source == "draw":
                    known, needed = shapes.get(factor.name, (0, 0)), _matrix_shape(network, factor)
                    shapes[factor.name] = (max(known[0], needed[0]), max(known[1], needed[1]))
        for name, shape in shapes.items():
            values = torch.from_numpy(draws.frozen_uniform(seed, name, *shape)).to(torch.get_default_dtype())
            self.register_buffer(name, values, persistent=False)

    def read(self, network: Network, factor: Factor) -> Tensor:
        """Return one network's slice, in the factor's shape."""
        rows, cols = _matrix_shape(network, factor)
        return self.get_buffer(factor.name)[:rows, :cols].reshape(network.shape(factor))


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
