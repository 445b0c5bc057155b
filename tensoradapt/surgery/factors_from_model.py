"""Factors can start from the model: from its base weights, or from the gradient of its first batches.

At a gradient start the non-zero factors are those of the gradient tensor's decomposition, so that the first step of the
zero factor follows the directions in which the loss falls most.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tensoradapt import parameterizations
from tensoradapt.adapter.draws import starts_at_zero
from tensoradapt.adapter.frozen import Bases
from tensoradapt.adapter.rules import entry_rms
from tensoradapt.errors import TensorAdaptError
from tensoradapt.layers.stored_matrix import Matrices, stack
from tensoradapt.networks import least_squares
from tensoradapt.networks.network import Factor, Network
from tensoradapt.planning.plan import Group, Plan
from tensoradapt.planning.scale import is_matched
from tensoradapt.sites.site import Site
from tensoradapt.surgery.transaction import transaction

Loss = Callable[[nn.Module, Any], Tensor]


def factors_from_weights(matrices: Matrices, plan: Plan, seed: int) -> list[dict[str, Tensor]]:
    """Return for each tensor of a plan the factors that come from the base weights."""
    each = zip(plan.groups, plan.factorings, strict=True)
    return [_from_weights(matrices, group, factoring, plan.start, seed) for group, factoring in each]


def _from_weights(matrices: Matrices, group: Group, factoring: Any, start: str, seed: int) -> dict[str, Tensor]:
    """Return a tensor's factors that come from the base weights, by the parameterization's own ``decompose``."""
    based = [factor for factor in group.network.factors if factor.source == "base"]
    if start == "gradient":
        based = [factor for factor in based if not factor.trainable]
    wanted = [factor.name for factor in based if not starts_at_zero(factor, start)]
    if not wanted:
        return {}
    weights = stack(group, lambda site: matrices[site.name].block())
    factors = parameterizations.get(factoring).decompose(group.network, weights.numpy(), seed=seed)
    return {name: torch.from_numpy(np.ascontiguousarray(factors[name])) for name in wanted}


def gradient_values(
    model: nn.Module,
    matrices: Matrices,
    plan: Plan,
    batches: Iterable[Any] | None,
    loss: Loss | None,
    based: Sequence[dict[str, Tensor]],  # for each tensor its frozen factors from the base weights
    seed: int,
) -> list[dict[str, Tensor]]:
    """Return for each tensor of the plan the factors of its gradient's decomposition, at the matched rule's sizes.

    Where some factors are frozen, the others are fitted by least squares.

    Raises TensorAdaptError without batches, and for gradients that are zero or not finite.
    """
    batches = list(batches) if batches is not None else []
    if not batches:
        raise TensorAdaptError(
            'start="gradient" needs the batches whose gradient it takes; pass attach(model, plan, batches=[...])'
        )
    sums = summed_gradients(model, {site.key for site in plan.sites}, batches, loss)

    def gradient(site: Site) -> Tensor:
        return matrices[site.name].logical(sums[site.key])[site.block]

    bases = Bases([group.network for group in plan.groups], seed, matched=is_matched(plan.scale))
    made = [
        {f.name: bases.read(group.network, f, str(i)) for f in group.network.frozen_draws}
        for i, group in enumerate(plan.groups)
    ]
    each = zip(plan.factorings, plan.groups, based, made, strict=True)
    return [_values(factoring, group, stack(group, gradient), frozen, more) for factoring, group, frozen, more in each]


def summed_gradients(
    model: nn.Module, weights: Iterable[str], batches: Iterable[Any], loss: Loss | None = None
) -> dict[str, Tensor]:
    """Return the gradient of the loss in each named weight, summed over batches and stored like it; fp32, CPU.

    The model is in eval mode. Each gradient leaves the device once it is computed, so the device holds one at a time.
    """
    sums: dict[str, Tensor] = {}
    with transaction(model), ExitStack() as held:
        held.enter_context(_only(model, weights))
        for name in weights:
            weight = model.get_parameter(name)
            held.callback(weight.register_post_accumulate_grad_hook(_collector(name, sums)).remove)
        for batch in batches:
            (loss(model, batch) if loss else model(**batch).loss).backward()
    return sums


def _collector(name: str, sums: dict[str, Tensor]) -> Callable[[Tensor], None]:
    def collect(weight: Tensor) -> None:
        gradient = weight.grad.detach().float().cpu()  # type: ignore[union-attr]
        sums[name] = sums[name] + gradient if name in sums else gradient
        weight.grad = None

    return collect


@contextmanager
def _only(model: nn.Module, weights: Iterable[str]) -> Iterator[None]:
    """Put the model in eval mode, inside this context, with gradients for these weights only."""
    flags = {p: p.requires_grad for p in model.parameters()}
    training = {m: m.training for m in model.modules()}
    wanted = {id(model.get_parameter(name)) for name in weights}
    model.eval()
    try:
        for parameter in flags:
            parameter.requires_grad_(id(parameter) in wanted)
        with torch.enable_grad():
            yield
    finally:
        for parameter, flag in flags.items():
            parameter.requires_grad_(flag)
        for module, mode in training.items():
            module.training = mode


def _values(
    factoring: Any, group: Group, gradient: Tensor, based: dict[str, Tensor], made: dict[str, Tensor]
) -> dict[str, Tensor]:
    network, where = group.network, group.members[0].site.name
    if not torch.isfinite(gradient).all() or not gradient.count_nonzero():
        what = "zero" if torch.isfinite(gradient).all() else "not finite"
        raise TensorAdaptError(
            f"the gradient of the tensor with site {where} is {what}; give other batches, or start='zero'"
        )
    frozen = {**based, **made}
    if frozen:
        start = {**least_squares.draw(network, 0), **{name: value.double().numpy() for name, value in frozen.items()}}
        values, _ = least_squares.fit(network, (gradient / gradient.norm()).numpy(), start)
    else:
        decompose = getattr(parameterizations.get(factoring), "decompose", least_squares.decompose)
        values = decompose(network, gradient.numpy(), seed=0)
    return based | {f.name: _sized(network, f, values[f.name]) for f in network.factors if f.trainable}


def _sized(network: Network, factor: Factor, value: np.ndarray) -> Tensor:
    """Return a factor at the matched rule's entry size, or zero; with one bond it is sized component by component."""
    entries = torch.from_numpy(np.ascontiguousarray(value, dtype=np.float64))
    if factor.init == "zero":
        return torch.zeros_like(entries)
    bonds = [i for i, label in enumerate(factor.labels) if label in network.bonds]
    over = [i for i in range(entries.ndim) if i != bonds[0]] if len(bonds) == 1 else list(range(entries.ndim))
    rms = entries.square().mean(dim=over, keepdim=True).sqrt() if over else entries.abs()
    return entries / rms.clamp_min(torch.finfo(entries.dtype).tiny) * entry_rms(network, factor)
