"""Fit given updates by the factors of a plan's tensors, at one rank or at the smallest that is close enough."""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tensoradapt import parameterizations
from tensoradapt.adapter.adapter import Adapter
from tensoradapt.compression.core import Core, Updates, can_be_cut, core_of, resized, within
from tensoradapt.compression.sources import TrainedUpdates
from tensoradapt.errors import TensorAdaptError
from tensoradapt.networks import least_squares
from tensoradapt.networks.modes import TASK
from tensoradapt.networks.network import Network
from tensoradapt.planning.build_plan import build_plan
from tensoradapt.planning.builder import Builder
from tensoradapt.planning.plan import Group, Plan
from tensoradapt.planning.resolve import resolve
from tensoradapt.planning.spec import AdapterSpec
from tensoradapt.text import Rank

Factors = dict[str, np.ndarray]


@dataclass(frozen=True)
class Fit:
    """Factors of a plan's tensors, and their relative error."""

    plan: Plan
    factors: tuple[Factors, ...]
    error: float  # over the cores and what their bases leave out, and so over the stacks
    exact: bool = False


@dataclass(frozen=True)
class Job:
    """A request without its rank: the updates, and what they are to become."""

    source: TrainedUpdates
    spec: AdapterSpec  # without a size
    seed: int
    cores: list[Core] = field(default_factory=list)  # the last fit's; one adapter's are made once for all ranks

    @property
    def builder(self) -> Builder:
        return resolve(self.spec).builder

    @property
    def family(self) -> Any:
        return self.builder.parameterization

    def plan(self, rank: Rank | None, budget: int | None = None) -> Plan:
        planned = build_plan(self.source.sites, replace(self.spec, rank=rank, budget=budget))
        if planned.spec.map:
            raise TensorAdaptError(
                f"method {planned.spec.name!r} has the map {planned.spec.map}, of whose numbers given updates are "
                "no function; leave map= out, or choose a method without one"
            )
        if shared := [*getattr(self.family, "shared", {})]:
            raise TensorAdaptError(
                f"method {planned.spec.name!r} has the shared factor {shared[0]!r}, unknown to decompose, so it cannot "
                "take on given updates; choose one whose factors have all their modes"
            )
        for factor in (f for group in planned.groups for f in group.network.factors):
            if not factor.trainable or factor.source != "draw":
                raise TensorAdaptError(
                    f"method {planned.spec.name!r} has the frozen factor {factor.name!r}, so it "
                    "cannot take on given updates; choose one whose factors are all trained"
                )
        return planned

    def fit(self, rank: Rank | None, budget: int | None = None) -> Fit:
        planned = self.plan(rank, budget)
        if exact := _from_cp(self, planned):
            return Fit(planned, tuple(exact), 0.0, exact=True)
        if not self.cores or self.source.tasks:  # a library's depend on the rank
            self.cores[:] = [core_of(group, self.source.updates) for group in planned.groups]
        parts = [self._fit_core(group.network, core) for group, core in zip(planned.groups, self.cores, strict=True)]
        outside = sum(core.outside for core in self.cores)
        total = outside + sum(float(np.linalg.norm(core.values)) ** 2 for core in self.cores)
        left = outside + sum(error**2 for _, error in parts)
        return Fit(planned, tuple(factors for factors, _ in parts), math.sqrt(left / total) if total else 0.0)

    def _fit_core(self, network: Network, core: Core) -> tuple[Factors, float]:
        if not core.values.any():  # a basis of nothing would leave the draw in one direction
            return least_squares.zero(network, self.seed), 0.0
        small = core.over(network)
        net = replace(network, layout=small.layout)
        decompose = getattr(self.family, "decompose", least_squares.decompose)
        factors = least_squares.revived(net, decompose(net, small.values, seed=self.seed), self.seed)
        return small.lifted(network, factors), float(np.linalg.norm(small.values - least_squares.dense(net, factors)))


def with_row(group: Group, factors: Factors, updates: Updates) -> tuple[Network, Factors]:
    """Return a library's network and factors with a place for one more adapter, by least squares in their bases."""
    network, mode = group.network, TASK
    holders = [factor for factor in network.factors if mode in factor.labels]
    if len(holders) != 1:
        raise TensorAdaptError(
            f"{' and '.join(f.name for f in holders)} have the mode {mode}; an adapter can be added where one factor "
            "has it"
        )
    (own,) = holders
    bases = {}
    for side in (network.layout.rows, network.layout.cols):
        if can_be_cut(network, side):
            (factor,) = (f for f in network.factors if side[0].name in f.labels)
            first = np.moveaxis(factors[factor.name], factor.labels.index(side[0].name), 0)
            bases[side[0].name] = np.linalg.qr(first.reshape(len(first), -1))[0]
    one = replace(group, network=replace(network, layout=resized(network.layout, {mode: 1})))
    core = within(one, updates, bases)
    small = replace(network, layout=core.layout)
    row = least_squares.solve(small, core.values, core.lowered(network, factors), own)
    more = resized(network.layout, {mode: network.sizes[mode] + 1})
    values = np.concatenate([factors[own.name], row], axis=own.labels.index(mode))
    return replace(network, layout=more), {**factors, own.name: values}


def fit_within(job: Job, max_error: float) -> tuple[Fit, dict[int, Fit]]:
    """Bisect for the smallest rank that reaches the error; return its fit, and all fits that were tried."""
    fits = {1: job.fit(1)}
    low, high = 0, 1
    while fits[high].error > max_error:
        low, high = high, _larger(job, high, fits[high])
        if high == low:
            raise _unreached(fits, max_error)
        fits[high] = job.fit(high)
    while high - low > 1:
        middle = (low + high) // 2
        fits[middle] = job.fit(middle)
        low, high = (low, middle) if fits[middle].error <= max_error else (middle, high)
    return fits[high], fits


def _larger(job: Job, rank: int, fit: Fit) -> int:
    """Return twice the rank, or less where that takes more parameters than the matrices.

    It is the rank itself where a larger one changes nothing.
    """
    step = rank
    while step:
        try:
            planned = job.plan(rank + step)
        except TensorAdaptError:  # rank 1 was accepted, so this is the size
            step //= 2
            continue
        return rank if planned.groups == fit.plan.groups else rank + step
    return rank


def _unreached(fits: Mapping[int, Fit], max_error: float) -> TensorAdaptError:
    best = min(fits.values(), key=lambda fit: fit.error)
    return TensorAdaptError(
        f"max_error={max_error:g} is not reached by {best.plan.spec.name} over these layouts: the best is "
        f"{best.error:.3g} at rank {max(fits)} with {best.plan.n_params:,} parameters; a larger one changes nothing or "
        "takes more parameters than the matrices. Tie fewer modes, allow more error, or choose another "
        "parameterization"
    )


def in_best_order(job: Job, rank: Rank | None, budget: int | None, max_error: float | None) -> Job:
    """Choose the order of modes that leaves the least error, and among equals the one with the fewest parameters.

    With ``max_error`` the orders are compared at the number of parameters that the usual one needs.
    """
    if not _has_order(job.family):
        chains = ", ".join(name for name in parameterizations.names() if _has_order(parameterizations.get(name)))
        raise TensorAdaptError(
            f"order='search' is for chains ({chains}), and the modes of "
            f"{job.spec.name!r} have no order; leave it out, or choose one of these"
        )
    if max_error is not None:
        budget = _params_within(job, max_error)
    names = {group.network.layout.names for group in job.plan(rank, budget).groups}
    if len(names) > 1:
        several = " and ".join(map(" ".join, sorted(names)))
        raise TensorAdaptError(
            f"order='search' needs one set of modes, and the tensors have {several}; compress the sites of one layout "
            "at a time, or give options={'order': ...}"
        )
    orders = [order for order in itertools.permutations(names.pop()) if order <= order[::-1]]  # either end may be first
    jobs = [replace(job, spec=replace(job.spec, options={**job.builder.options, "order": order})) for order in orders]
    return min(jobs, key=lambda ordered: _cost(ordered, rank, budget))


def _has_order(family: Any) -> bool:
    return "order" in inspect.signature(family.build).parameters


def _cost(job: Job, rank: Rank | None, budget: int | None) -> tuple[float, int]:
    try:
        fit = job.fit(rank, budget)
    except TensorAdaptError:  # this order takes more than the budget at rank 1, or as much as the matrices
        return math.inf, 0
    return round(fit.error, 6), fit.plan.n_params


def _params_within(job: Job, max_error: float) -> int:
    try:
        return fit_within(job, max_error)[0].plan.n_params
    except TensorAdaptError:  # out of reach in this order: allow the others as much as the source takes
        return job.source.n_params


def _from_cp(job: Job, planned: Plan) -> list[Factors] | None:
    """Convert the tensors of a CP adapter exactly, where the parameterization can and the ranks are what it needs."""
    adapter, convert = job.source.adapter, getattr(job.family, "from_cp", None)
    if adapter is None or convert is None:
        return None
    in_cp = [_cp_factors(adapter, group) for group in planned.groups]
    for group, factors in zip(planned.groups, in_cp, strict=True):
        if factors is None:
            return None
        needed = job.builder.build(group.network.layout, factors[group.network.layout.names[0]].shape[1])
        if needed.clipped().bonds != group.network.bonds:
            return None
    return [convert(g.network, factors) for g, factors in zip(planned.groups, in_cp, strict=True)]


def _cp_factors(adapter: Adapter, group: Group) -> Factors | None:
    """Return the factors (mode, r) of the adapter's tensor for the same sites and layout; None if it is not CP."""
    for i, other in enumerate(adapter.plan.groups):
        if other.members == group.members and other.network.layout == group.network.layout:
            tensor: Any = adapter.tensors[i]
            names = other.network.layout.names
            plain = {f.labels for f in other.network.factors} == {*((name, "r") for name in names)}
            multipliers = {adapter.plan.multiplier(other.network, member.site) for member in other.members}
            if plain and len(multipliers) == 1 and not tensor.held:
                factors = {name: tensor.factors[name].detach().numpy() for name in names}
                return {**factors, names[0]: factors[names[0]] * (tensor.scale * multipliers.pop())}
    return None
