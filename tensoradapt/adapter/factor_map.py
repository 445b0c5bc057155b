"""Factors that a map makes of fewer trained numbers. Kinds of maps are extras; adapters know them by this protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor, nn

from tensoradapt import doors
from tensoradapt.networks.network import Factor, Network
from tensoradapt.planning.plan import Plan


class FactorMap(Protocol):
    """The trained numbers of a plan with ``map=``, and the factors that they make.

    ``numbers`` has them by the names of ``networks.mapped.lengths``; all else is buffers that no file holds. A tensor's
    name is its number in the plan.
    """

    numbers: nn.ParameterDict
    networks: list[Network]
    subtracts: bool

    def __init__(self, plan: Plan, seed: int, empty: bool = False) -> None: ...

    @staticmethod
    def shapes(plan: Plan) -> dict[str, tuple[int, ...]]:
        """Return the shape of each buffer."""

    def reset_buffers(self) -> None:
        """Draw again all that is fixed."""

    def key(self, tensor: str, factor: str) -> str:
        """Return the name of the numbers that a factor is made of."""

    def of(self, tensor: str, factors: Sequence[str]) -> dict[str, nn.Parameter]:
        """Return the numbers that these factors of a tensor are made of, each once."""

    def value(self, tensor: str, factor: Factor, numbers: Tensor, change: bool = False) -> Tensor:
        """Return a factor made of ``numbers``; with ``change``, by how much a change of the numbers changes it."""

    def made(self, tensor: str, numbers: Mapping[str, Tensor], change: bool = False) -> dict[str, Tensor]:
        """Return all trained factors of a tensor from values of ``numbers``, as ``value`` does."""

    def initial(self, tensor: str, factor: Factor) -> Tensor:
        """Return a factor as it starts."""

    def starts(self, tensor: str) -> dict[str, Tensor]:
        """Return the factors of a tensor as they start."""

    def gain(self, tensor: str) -> float:
        """Return what the matched scale is multiplied by: a step of the numbers moves entries less than their own."""


def factor_map(plan: Plan, seed: int, empty: bool) -> Any:
    """Return the factors of a plan with ``map=``, a ``FactorMap`` that is a module; None for another plan."""
    return _of(plan)(plan, seed, empty) if plan.spec.map else None


def shapes(plan: Plan) -> dict[str, tuple[int, ...]]:
    """Return the shape of each buffer that a plan's map holds; there are none without a map."""
    return _of(plan).shapes(plan) if isinstance(plan.spec.map, Mapping) else {}


def _of(plan: Plan) -> type[FactorMap]:
    found: type[FactorMap] = doors.get("factors", next(iter(plan.spec.map or ())))
    return found
