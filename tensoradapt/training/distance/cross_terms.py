"""The distance that a change moves a sum of networks is that of each term, and twice the products of their moves.

``|sum_k D_k|^2 = sum_k |D_k|^2 + 2 sum_(k < l) <D_k, D_l>`` over the sites, with ``D_k = T_k(c) - T_k(0)`` the move of
term k at length c. Each move is a pair ``B A``, and ``<B A, B' A'>`` is the sum of the entries of
``(B^T B') * (A A'^T)``: no matrix of a site is formed.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from tensoradapt.adapter.adapter import Adapter, as_stored, members_alike
from tensoradapt.adapter.factored import FactoredTensor
from tensoradapt.adapter.forward_pass import Pair
from tensoradapt.networks.layout import RUNTIME
from tensoradapt.planning.plan import Member
from tensoradapt.planning.scale import multiplier

Values = Sequence[Mapping[str, Tensor]]


class CrossTerms:
    """Twice the sum of the inner products between the moves of different terms of a sum, over all sites and tasks."""

    def __init__(self, adapter: Adapter) -> None:
        self.adapter = adapter
        self.twins = [_in_double(tensor) for tensor in adapter.factored]
        self.tasks = [{RUNTIME[0]: task} for task in range(len(adapter.plan.spec.tasks))] or [{}]

    @torch.no_grad()
    def along(self, before: Values, change: Values) -> Callable[[float], float]:
        """Return twice the products of the moves by ``c change``, as a function of c."""
        start = self._pairs(before, change, 0.0)

        @torch.no_grad()
        def at(c: float) -> float:
            moves = {key: _moved(pair, start[key]) for key, pair in self._pairs(before, change, c).items()}
            return 2 * float(self._products(moves))

        return at

    def _pairs(self, before: Values, change: Values, c: float) -> dict[tuple[str, int, int], Pair]:
        """Return the pair of each site, in each tensor and task, at a length."""
        found = {}
        for number, (twin, group) in enumerate(zip(self.twins, self.adapter.plan.groups, strict=True)):
            for name, factor in twin.trained.items():
                factor.data = torch.add(before[number][name], change[number][name], alpha=c)
            for (task, at), members in itertools.product(enumerate(self.tasks), members_alike(group.members)):
                pairs = twin.pairs_of([{**member.at, **at} for member in members])
                for member, pair in zip(members, pairs, strict=True):
                    found[member.site.name, number, task] = as_stored(pair, member, self._factor(number, member))
        return found

    def _factor(self, number: int, member: Member) -> float:
        plan = self.adapter.plan
        return multiplier(plan.scale, plan.groups[number].network, member.site.in_)

    def _products(self, moves: dict[tuple[str, int, int], Pair]) -> Tensor:
        by_place: dict[tuple[str, int], list[Pair]] = {}
        for (name, _, task), pair in moves.items():
            by_place.setdefault((name, task), []).append(pair)
        couples = [two for pairs in by_place.values() for two in itertools.combinations(pairs, 2)]
        return torch.stack([_inner(*two) for two in couples]).sum()


def _in_double(tensor: FactoredTensor) -> FactoredTensor:
    """Return a tensor of the same network, scale and frozen values in float64, which subtracts no start."""
    values = {name: value.detach().double() for name, value in tensor.factors.items()}
    return FactoredTensor(tensor.network, scale=float(tensor.scale), values=values).to(
        device=next(iter(values.values())).device, dtype=torch.float64
    )


def _moved(pair: Pair, start: Pair) -> Pair:
    """Return the pair of ``B A - B0 A0``, as ``B (A - A0) + (B - B0) A0``."""
    (a, b), (a0, b0) = pair, start
    return torch.cat([a - a0, a0]), torch.cat([b, b - b0], dim=1)


def _inner(one: Pair, other: Pair) -> Tensor:
    (a, b), (a2, b2) = one, other
    return ((b.T @ b2) * (a @ a2.T)).sum()
