"""Rank adaptation: an attached adapter's bonds made smaller while it trains, with the optimizer's moments carried over.

MetaTT (Lopez-Piqueres et al., arXiv 2506.09105) starts its tensor-train at a larger rank, and every few epochs sweeps
along it with truncated singular value decompositions; here the same is done for every network whose bonds form a tree
(``rounding``), and for CP by dropping components.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from tensoradapt.adapter.adapter import Adapter
from tensoradapt.adapter.sharding import refuse_sharded
from tensoradapt.checks import check_rank, check_whole, is_whole
from tensoradapt.errors import TensorAdaptError, did_you_mean
from tensoradapt.networks.network import Network
from tensoradapt.surgery.registry import attached
from tensoradapt.text import Rank
from tensoradapt.training import rounding
from tensoradapt.training.rank_choice import smaller_networks

# what optimizers call what they keep of gradients and of their squares
FIRST = ("exp_avg", "momentum_buffer", "grad_avg")
SECOND = ("exp_avg_sq", "max_exp_avg_sq", "square_avg", "sum")
MOMENTS = ("carry", "reset")
Bonds = Mapping[str, int]


class Carry(Protocol):
    """Moves a tensor of the old factor's shape into the new bases: first moments, or ``square``, second ones."""

    def __call__(self, tensor: Tensor, *, square: bool) -> Tensor: ...


@dataclass(frozen=True)
class Reduction:
    """What became of one tensor: its bonds, and ``error`` = ||T' - T|| / ||T||, to 1e-7; 0 for a tensor of zeros."""

    before: Bonds
    after: Bonds
    error: float


@dataclass(frozen=True)
class Report:
    """What became of an adapter: of each tensor, and its number of parameters before and after."""

    tensors: tuple[Reduction, ...]
    n_before: int
    n_params: int

    def __str__(self) -> str:
        lines = [f"{self.n_before:,} -> {self.n_params:,} parameters"]
        for i, one in enumerate(self.tensors):
            sizes = ", ".join(f"{name} {n} -> {one.after[name]}" for name, n in one.before.items())
            lines.append(f"tensor {i}: {sizes}; relative error {one.error:.2g}")
        return "\n".join(lines)


@torch.no_grad()
def reduce_rank(
    model: nn.Module,
    optimizer: torch.optim.Optimizer | None = None,
    *,
    rank: Rank | None = None,
    budget: int | None = None,
    energy: float | None = None,
    sweeps: int = 1,
    moments: str = "carry",
) -> Report:
    """Replaces every tensor of the model's adapter by one near it with smaller bonds.

    Exactly one of: ``rank``, an upper bound of every bond, or of bonds by name; ``budget``, of the adapter's
    parameters: of all bonds of all tensors, the direction with the least share of its tensor's squared norm goes first;
    ``energy``, the least share of each tensor's squared norm that is kept (1: only what is zero to rounding goes).
    In a tree of bonds a truncation's error is at most the root of the sum of the squared singular values it drops; more
    ``sweeps`` choose every bond again given the others. CP drops the component that adds least to the error.

    Factors keep their sizes and the tensor its multiplier. They are new Parameters, without gradients: given an
    ``optimizer``, its groups hold these instead, and ``moments="carry"`` takes its state into the new bases, first
    moments as the gradient (exact), second ones as if a gradient's entries were independent; "reset" begins anew. A
    learning-rate schedule goes on. Wrap a model for several processes after this, not before.

    Raises TensorAdaptError, with nothing changed, without an adapter, while it is merged, for ``start="subtract"``, for
    networks that have no rounding, for ranks and budgets that are none or above what there is, and for optimizers
    without the adapter's parameters or with other state.
    """
    adapter = attached(model)
    refuse_sharded(model, "rank reduction")
    _check(adapter, sweeps, moments)
    values = [{name: value.detach().double() for name, value in t.factors.items()} for t in adapter.factored]
    networks = [tensor.network for tensor in adapter.factored]
    dtype = next(adapter.parameters()).dtype
    smaller = smaller_networks(networks, values, adapter.plan.n_biases, dtype, rank=rank, budget=budget, energy=energy)
    if optimizer is not None:
        _check_optimizer(optimizer, adapter, moments)
    n_before, reductions = adapter.n_params, []
    found = [
        rounding.changes(net, own, new.bonds, sweeps) for net, own, new in zip(networks, values, smaller, strict=True)
    ]
    for i, (network, made) in enumerate(zip(networks, found, strict=True)):
        reductions.append(_replace(adapter, i, network, values[i], smaller[i], made, optimizer, moments))
    adapter.plan = replace(adapter.plan, budget=budget)
    return Report(tuple(reductions), n_before, adapter.n_params)


def check_schedule(model: nn.Module, schedule: Mapping[int, int], steps: int) -> None:
    """Refuses a schedule, step -> rank, that ``fit`` could not follow to its end."""
    if not schedule:
        return
    adapter = attached(model)
    _check(adapter, 1, "carry")
    most = max(n for group in adapter.plan.groups for n in group.network.bonds.values())
    for step, rank in sorted(schedule.items()):
        check_rank(rank, f"the rank at step {step}")
        if not is_whole(step, 1, steps) or rank > most:
            raise TensorAdaptError(
                f"the schedule has rank {rank!r} at step {step!r}; expected steps from 1 to {steps}, and ranks that "
                f"fall from {most} on"
            )
        most = rank


def _check(adapter: Adapter, sweeps: int, moments: str) -> None:
    if adapter.gate.merged:
        raise TensorAdaptError("the adapter is merged into the weights; call unmerge(model) before reducing its rank")
    if adapter.plan.start == "subtract":
        raise TensorAdaptError(
            "the adapter subtracts its initial value, which has the same bonds: reducing them would change that too. "
            'Plan with a smaller rank, or with start="zero"'
        )
    if moments not in MOMENTS:
        raise TensorAdaptError(f"moments is {moments!r}{did_you_mean(moments, MOMENTS)}")
    check_whole("sweeps", sweeps)
    for group in adapter.plan.groups:
        rounding.check(group.network)
    for name, parameter in adapter.named_parameters():
        if not torch.isfinite(parameter).all():
            raise TensorAdaptError(f"factor {name} has non-finite entries; load a checkpoint from before it diverged")


def _replace(
    adapter: Adapter,
    i: int,
    network: Network,
    values: rounding.Values,
    smaller: Network,
    made: Mapping[str, rounding.Change],
    optimizer: torch.optim.Optimizer | None,
    moments: str,
) -> Reduction:
    if not made:
        return Reduction(network.bonds, network.bonds, 0.0)
    old, new = dict(adapter.factored[i].trained.items()), rounding.changed(network, values, made)
    adapter.replace_tensor(i, smaller, new)
    if optimizer is not None:
        for factor in network.factors:
            carry = partial(rounding.transported, factor, made=made, gradient=True)
            now = adapter.factored[i].trained[factor.name]
            _follow(optimizer, old[factor.name], now, carry if moments == "carry" else None)  # type: ignore[arg-type]
    return Reduction(network.bonds, smaller.bonds, rounding.relative_error((network, values), (smaller, new)))


def _check_optimizer(optimizer: torch.optim.Optimizer, adapter: Adapter, moments: str) -> None:
    held = {p for group in optimizer.param_groups for p in group["params"]}
    if not held & set(adapter.parameters()):
        raise TensorAdaptError("the optimizer has none of the adapter's parameters; pass the one that trains them")
    for parameter in adapter.parameters() if moments == "carry" else ():
        for name, kept in optimizer.state.get(parameter, {}).items():
            if isinstance(kept, Tensor) and kept.numel() > 1 and name not in (*FIRST, *SECOND):
                raise TensorAdaptError(
                    f"the optimizer keeps {name!r} {tuple(kept.shape)}, and only {', '.join((*FIRST, *SECOND))} can be "
                    'taken into another basis; pass moments="reset"'
                )


def _follow(optimizer: torch.optim.Optimizer, old: nn.Parameter, new: nn.Parameter, carry: Carry | None) -> None:
    """Puts a parameter in another's place in an optimizer, with its state carried over, or without."""
    for group in optimizer.param_groups:
        group["params"] = [new if p is old else p for p in group["params"]]
    state = optimizer.state.pop(old, {})
    if carry and state:
        optimizer.state[new] = {name: _carried(name, kept, carry) for name, kept in state.items()}


def _carried(name: str, kept: Any, carry: Carry) -> Any:
    """Moments in the new bases; counts of steps, and a momentum that has not begun (None), as they are."""
    if isinstance(kept, Tensor) and name in (*FIRST, *SECOND):
        return carry(kept.double(), square=name in SECOND).to(kept)
    return kept
