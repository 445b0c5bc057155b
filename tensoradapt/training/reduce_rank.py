"""reduce_rank makes an attached adapter's bonds smaller during training, and carries the optimizer's moments over.

MetaTT (Lopez-Piqueres et al., arXiv 2506.09105) starts its tensor-train at a larger rank, and every few epochs sweeps
along it with truncated singular value decompositions; here the same is done for every network whose bonds form a tree
(``rounding``), and for CP by dropping components.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tensoradapt.adapter.adapter import Adapter, check_filled
from tensoradapt.adapter.sharding import refuse_sharded
from tensoradapt.checks import (
    Check,
    check_arguments,
    check_rank,
    count,
    is_number,
    is_whole,
    one_of,
    optional,
    shown,
    whole,
)
from tensoradapt.errors import TensorAdaptError, did_you_mean
from tensoradapt.networks.network import Network
from tensoradapt.surgery.registry import attached
from tensoradapt.surgery.transaction import transaction
from tensoradapt.text import Rank
from tensoradapt.training import rounding
from tensoradapt.training.state import torch_optimizer

# names that optimizers have for averages of gradients and of their squares
FIRST = ("exp_avg", "momentum_buffer", "grad_avg")
SECOND = ("exp_avg_sq", "max_exp_avg_sq", "square_avg", "sum")
MOMENTS = ("carry", "reset")
MOST_SWEEPS = 100  # bonds stop changing after a few
CHECKS: Mapping[str, Check] = {
    "optimizer": optional(torch_optimizer),
    "sweeps": partial(whole, most=MOST_SWEEPS),
    "moments": partial(one_of, MOMENTS),
}
Bonds = Mapping[str, int]
Carry = Callable[..., Tensor]  # moves first moments, or with square=True second ones, into the new bases


@dataclass(frozen=True)
class Reduction:
    """A tensor's bonds before and after, and ``error`` = ||T' - T|| / ||T|| to 1e-7; 0 for a tensor of zeros."""

    before: Bonds
    after: Bonds
    error: float


@dataclass(frozen=True)
class Report:
    """The outcome of a reduction: every tensor, and the adapter's number of parameters before and after."""

    tensors: tuple[Reduction, ...]
    n_before: int
    n_params: int

    def __str__(self) -> str:
        lines = [f"{self.n_before:,} -> {self.n_params:,} parameters"]
        for i, tensor in enumerate(self.tensors):
            sizes = ", ".join(f"{name} {n} -> {tensor.after[name]}" for name, n in tensor.before.items())
            lines.append(f"tensor {i}: {sizes}; relative error {tensor.error:.2g}")
        return "\n".join(lines)


@torch.no_grad()
def reduce_rank(
    model: nn.Module,
    optimizer: torch.optim.Optimizer | None = None,
    *,
    rank: Rank | None = None,
    budget: int | str | None = None,
    energy: float | None = None,
    sweeps: int = 1,
    moments: str = "carry",
) -> Report:
    """Replace every tensor of the adapter by a close one with smaller bonds.

    Give one of rank, budget and energy. In a tree of bonds a truncation's error is at most the root of the
    sum of the squared singular values it drops. CP drops the component that adds least to the error. Factors keep the
    sizes of their entries and the tensor its multiplier. Factors become new Parameters without gradients, so wrap a
    model for several processes after this. benchmarks/rank_adaptation.py measures it.

    Args:
        model: a model with an attached adapter.
        optimizer: gets the new Parameters in place of the old ones; learning-rate schedules go on.
        rank: upper bound of every bond, or of bonds by name.
        budget: number of parameters; drops the directions with the least share of their tensor's squared norm.
        energy: share of each tensor's squared norm to keep, in (0, 1]; 1 drops what is zero to rounding.
        sweeps: more than 1 choose every bond again, given the others.
        moments: "carry" takes the optimizer's state into the new bases: first moments exactly, second ones as if a
            gradient's entries were independent; "reset" drops it.

    Returns:
        Bonds, parameters and relative error before and after, of every tensor.

    Raises:
        TensorAdaptError: with nothing changed, without an adapter, while it is merged, for ``start="subtract"``,
            networks that cannot be rounded, ranks and budgets out of range, and optimizers without the adapter's
            parameters or with other state.

    >>> import tensoradapt as ta
    >>> from transformers import BertConfig, BertForSequenceClassification
    >>> model = BertForSequenceClassification(BertConfig(hidden_size=12, num_hidden_layers=2, num_attention_heads=3))
    >>> adapter = ta.attach(model, "cp", rank=2)
    >>> report = ta.reduce_rank(model, rank=1)
    >>> adapter.n_params
    25
    """
    check_arguments(locals(), **CHECKS)
    most: int | None = optional(count)(budget, "budget")
    adapter = attached(model)
    refuse_sharded(model, "rank reduction")
    check_filled(adapter)
    _check(adapter)
    values = [{name: value.detach().double() for name, value in t.factors.items()} for t in adapter.factored]
    smaller = _smaller_networks(adapter, values, rank, most, energy)
    if optimizer is not None:
        _check_optimizer(optimizer, adapter, moments)
    n_before = adapter.n_params
    # all before any tensor changes: a decomposition that fails leaves them as they were
    networks = [tensor.network for tensor in adapter.factored]
    changes = [rounding.changes(networks[i], values[i], new.bonds, sweeps) for i, new in enumerate(smaller)]
    with transaction(model, optimizer=optimizer):
        tensors = [
            _replace(adapter, i, values[i], new, changes[i], optimizer, moments) for i, new in enumerate(smaller)
        ]
        asked = replace(adapter.plan.spec, rank=rank, budget=most, rank_pattern={})
        adapter.plan = replace(adapter.plan, spec=asked)
    return Report(tuple(tensors), n_before, adapter.n_params)


def _smaller_networks(
    adapter: Adapter, values: Sequence[rounding.Values], rank: Rank | None, budget: int | None, energy: float | None
) -> list[Network]:
    """Return the networks to reduce an adapter's to, by exactly one of ``rank``, ``budget`` and ``energy``."""
    if sum(given is not None for given in (rank, budget, energy)) != 1:
        raise TensorAdaptError(
            f"rank={shown(rank)}, budget={shown(budget)} and energy={shown(energy)} were given; expected exactly one "
            "of them"
        )
    networks = [tensor.network for tensor in adapter.factored]
    if rank is not None:
        return _to_rank(networks, rank)
    if budget is not None:
        return _to_budget(networks, values, budget, adapter.plan.n_biases)
    return _to_energy(networks, values, energy, next(adapter.parameters()).dtype)


def _to_rank(networks: Sequence[Network], rank: Rank) -> list[Network]:
    """Cap every bond at a rank, or bonds by name."""
    check_rank(rank)
    largest: dict[str, int] = {}
    for name, n in [(_plain(bond), n) for network in networks for bond, n in network.bonds.items()]:
        largest[name] = max(n, largest.get(name, 1))
    asked = rank if isinstance(rank, Mapping) else {max(largest, key=largest.__getitem__): rank}
    for name, n in asked.items():
        if name not in largest:
            raise TensorAdaptError(f"rank names {name!r}, which no tensor has{did_you_mean(name, sorted(largest))}")
        if n > largest[name]:
            raise TensorAdaptError(
                f"rank {n} is above {largest[name]}, the largest {name!r} has; reducing takes {largest[name]} or less"
            )

    def at(bond: str, n: int) -> int:
        return min(n, rank.get(_plain(bond), n) if isinstance(rank, Mapping) else rank)

    return [_with(net, {bond: at(bond, n) for bond, n in net.bonds.items()}) for net in networks]


def _to_budget(
    networks: Sequence[Network], values: Sequence[rounding.Values], budget: int, fixed: int
) -> list[Network]:
    """Drop the bond direction with the least share of its tensor's squared norm until the budget is reached."""
    left = fixed + sum(network.n_params for network in networks)
    least = fixed + sum(_with(net, dict.fromkeys(net.bonds, 1)).n_params for net in networks)
    if not least <= budget <= left:
        raise TensorAdaptError(
            f"budget is {shown(budget)}; expected a whole number of parameters from {least} (rank 1) to the {left} "
            "there are"
        )
    drops = [(e, i, bond, k) for i in range(len(networks)) for e, bond, k in _drops(networks[i], values[i], i)]
    smaller = list(networks)
    bonds = [dict(network.bonds) for network in networks]
    for _, i, bond, k in sorted(drops, key=lambda drop: drop[0]):  # stable: equals in one bond go from the last on
        if left <= budget:
            break
        bonds[i][bond] = k
        new = _with(networks[i], bonds[i])
        left += new.n_params - smaller[i].n_params
        smaller[i] = new
    return smaller


def _to_energy(
    networks: Sequence[Network], values: Sequence[rounding.Values], energy: Any, dtype: torch.dtype
) -> list[Network]:
    """Drop the directions with the least shares of each tensor's squared norm while the energy kept is enough."""
    if not is_number(energy, above=0, most=1):
        raise TensorAdaptError(f"energy is {shown(energy)}; expected a share above 0 and up to 1, such as 0.99")
    smaller = []
    for i, network in enumerate(networks):
        bonds = dict(network.bonds)
        left = 1 - energy + (10 * torch.finfo(dtype).eps) ** 2
        for share, bond, k in sorted(_drops(network, values[i], i), key=lambda drop: drop[0]):
            if share > left:
                break
            left -= share
            bonds[bond] = k
        smaller.append(_with(network, bonds))
    return smaller


def _drops(network: Network, values: rounding.Values, i: int) -> list[tuple[float, str, int]]:
    """List share of the squared norm, bond and size left for each direction but the first of every bond, last first."""
    norm = rounding.inner((network, values), (network, values))
    if not norm > 0:
        raise TensorAdaptError(
            f"tensor {i} is zero, so no direction of it counts less than another; train first, or give rank="
        )
    spectra = {bond: (errors / norm).tolist() for bond, errors in rounding.spectra(network, values).items()}
    return [(errors[k], bond, k) for bond, errors in spectra.items() for k in range(len(errors) - 1, 0, -1)]


def _with(network: Network, bonds: Mapping[str, int]) -> Network:
    """Return the network with these bonds, each clipped to what its neighbours can carry."""
    return replace(network, bonds=bonds).clipped()


def _plain(bond: str) -> str:
    return bond.removeprefix("r_")


def check_schedule(model: nn.Module, schedule: Mapping[int, int], steps: int) -> None:
    """Raise TensorAdaptError for a schedule, step -> rank, that ``fit`` cannot follow to its end."""
    if not schedule:
        return
    adapter = attached(model)
    _check(adapter)
    most = max(n for group in adapter.plan.groups for n in group.network.bonds.values())
    for step, rank in sorted(schedule.items()):
        check_rank(rank, f"the rank at step {step}")
        if not is_whole(step, 1, steps) or rank > most:
            raise TensorAdaptError(
                f"the schedule has rank {rank!r} at step {step!r}; expected steps from 1 to {steps}, and ranks that "
                f"fall from {most} on"
            )
        most = rank


def _check(adapter: Adapter) -> None:
    if adapter.gate.merged:
        raise TensorAdaptError("the adapter is merged into the weights; call unmerge(model) before reducing its rank")
    if adapter.plan.begins.update == "subtract":
        raise TensorAdaptError(
            "the adapter subtracts its initial value, which has the same bonds: reducing them would change that too. "
            'Plan with a smaller rank, or with start="zero"'
        )
    if adapter.mapped:
        raise TensorAdaptError(
            "a map makes the adapter's factors of fewer numbers, and smaller factors would need others; plan with a "
            "smaller rank, or without map="
        )
    for group in adapter.plan.groups:
        rounding.check(group.network)
    for name, parameter in adapter.named_parameters():
        if not torch.isfinite(parameter).all():
            raise TensorAdaptError(f"factor {name} has non-finite entries; load a checkpoint from before it diverged")


def _replace(
    adapter: Adapter,
    i: int,
    values: rounding.Values,
    smaller: Network,
    by_bond: Mapping[str, rounding.Change],
    optimizer: torch.optim.Optimizer | None,
    moments: str,
) -> Reduction:
    """Put tensor ``i``'s new factors into the adapter and the optimizer."""
    network = adapter.factored[i].network
    old = dict(adapter.factored[i].trained.items())
    if not by_bond:
        return Reduction(network.bonds, network.bonds, 0.0)
    new = rounding.changed(network, values, by_bond)
    adapter.replace_tensor(i, smaller, new)
    for factor in network.factors if optimizer is not None else ():
        carry = partial(rounding.transported, factor, by_bond=by_bond, gradient=True) if moments == "carry" else None
        _substitute(optimizer, old[factor.name], adapter.factored[i].trained[factor.name], carry)  # type: ignore[arg-type]
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


def _substitute(optimizer: torch.optim.Optimizer, old: nn.Parameter, new: nn.Parameter, carry: Carry | None) -> None:
    """Replace a parameter in an optimizer; carry its state over, or drop it."""
    for group in optimizer.param_groups:
        group["params"] = [new if p is old else p for p in group["params"]]
    state = optimizer.state.pop(old, {})
    if carry and state:
        # step counts, and a momentum that is still None, stay
        moments = {n: v for n, v in state.items() if isinstance(v, Tensor) and n in (*FIRST, *SECOND)}
        carried = {name: carry(kept.double(), square=name in SECOND).to(kept) for name, kept in moments.items()}
        optimizer.state[new] = {**state, **carried}
    elif isinstance(optimizer, torch.optim.Adagrad):  # up to torch 2.8 its constructor alone makes a state
        optimizer.state[new] = torch.optim.Adagrad([new], **optimizer.defaults).state[new]
