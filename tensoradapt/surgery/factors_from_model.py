"""Factors can start from the model: from its base weights, or from the gradient of its first batches.

At a gradient start the non-zero factors are those of the gradient tensor's decomposition, so that the first step of the
zero factor follows the directions in which the loss falls most.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tensoradapt import parameterizations
from tensoradapt.adapter.draws import starts_at_zero
from tensoradapt.adapter.frozen import Bases
from tensoradapt.adapter.rules import entry_rms
from tensoradapt.errors import TensorAdaptError, located
from tensoradapt.layers.stored_matrix import Matrices, stack
from tensoradapt.networks import least_squares
from tensoradapt.networks.halves import Halves, pissa
from tensoradapt.networks.layout import Layout, Mode
from tensoradapt.networks.network import Factor, Network
from tensoradapt.networks.starts import direct, sides
from tensoradapt.planning.plan import Group, Plan
from tensoradapt.planning.scale import is_matched
from tensoradapt.sites.site import Site
from tensoradapt.surgery.fast_paths import switch_off_fast_paths
from tensoradapt.surgery.layer_inputs import input_moments
from tensoradapt.surgery.loss import loss_of
from tensoradapt.surgery.moved_batch import device_of, moved
from tensoradapt.surgery.transaction import transaction

Loss = Callable[[nn.Module, Any], Tensor]
Measured = Callable[[Site], np.ndarray | None]  # a site's gradient, or the moments of its inputs
ToHalves = Callable[[Site, int], Halves]


def factors_from_weights(
    matrices: Matrices, plan: Plan, seed: int, measured: Measured = lambda _: None
) -> list[dict[str, Tensor]]:
    """Return for each tensor of a plan the factors that come from the base weights, and from what was measured."""
    if not plan.begins.halves:
        return [_from_weights(matrices, group, plan, seed) for group in plan.groups]

    make = plan.begins.make or pissa

    def halves(site: Site, rank: int) -> Halves:
        with located(f"site {site.name}"):
            return make(_weight(matrices, site), measured(site), rank)

    each = zip(plan.groups, _made(plan, seed), strict=True)
    target = partial(adam_step, measured) if plan.begins.nearest else partial(_product, halves)
    return [_from_halves(plan, group, halves, target, made, seed) for group, made in each]


def _from_weights(matrices: Matrices, group: Group, plan: Plan, seed: int) -> dict[str, Tensor]:
    """Return a tensor's factors that come from the base weights, by the parameterization's own ``decompose``.

    Without one they are halves of each matrix, as in PiSSA.
    """
    based = [factor for factor in group.network.factors if factor.source == "base"]
    if plan.start == "gradient":
        based = [factor for factor in based if not factor.trainable]
    wanted = [factor for factor in based if not starts_at_zero(factor, plan.start)]
    if not wanted:
        return {}
    decompose = getattr(parameterizations.get(plan.factoring), "decompose", None)
    if decompose is None:
        halves: ToHalves = lambda site, rank: pissa(_weight(matrices, site), None, rank)  # noqa: E731
        return {factor.name: _side(group, factor, halves) for factor in wanted}
    weights = stack(group, lambda site: matrices[site.name].block())
    factors = decompose(group.network, weights.numpy(), seed=seed)
    return {factor.name: torch.from_numpy(np.ascontiguousarray(factors[factor.name])) for factor in wanted}


def _product(halves: ToHalves, site: Site, rank: int) -> Tensor:  # (out, in)
    left, right = halves(site, min(rank, site.out, site.in_))
    return _tensor(left @ right)  # type: ignore[operator]  # the plan refused starts without both


def adam_step(measured: Measured, site: Site, rank: int = 0) -> Tensor:  # (out, in), of any rank
    """Return the first step of Adam at rate one on a site's own weight."""
    return _tensor(-np.sign(measured(site)))  # type: ignore[arg-type]  # the start reads gradients


def _weight(matrices: Matrices, site: Site) -> np.ndarray:
    return matrices[site.name].block().detach().double().cpu().numpy()


def _from_halves(
    plan: Plan,
    group: Group,
    halves: ToHalves,
    target: Callable[[Site, int], Tensor],
    made: dict[str, Tensor],
    seed: int,
) -> dict[str, Tensor]:
    """Return a tensor's factors from the base: those that are a side take a half, others are fitted to the target."""
    network = group.network
    based, taking = [f for f in network.factors if f.source == "base"], direct(network)
    values = {f.name: _side(group, f, halves) for f in based if f.name in taking}
    if not (rest := [factor for factor in based if factor.name not in values]):
        return values
    whole = stack(group, lambda site: target(site, network.cut.rank))
    fitted = _fitted(plan, group, whole, {**made, **values}, seed)
    sized = plan.begins.nearest
    return values | {f.name: _sized(network, f, fitted[f.name]) if sized else _tensor(fitted[f.name]) for f in rest}


def _side(group: Group, factor: Factor, halves: ToHalves) -> Tensor:
    """Return the half that a factor is, of every matrix of its tensor."""
    layout, bonds = group.network.layout, group.network.bonds
    side = sides(group.network, [factor])[factor.name]
    mode = next(Mode(label, bonds[label]) for label in factor.labels if label in bonds)
    part = Layout(layout.index, *((layout.rows, (mode,)) if side == "left" else ((mode,), layout.cols)))
    turned = {member.site.name for member in group.members if member.transposed}

    def half(site: Site) -> Tensor:
        left, right = halves(site, mode.size)
        return _tensor(left if (side == "left") != (site.name in turned) else right)  # type: ignore[arg-type]  # as above

    return stack(group, half, part).permute([part.names.index(label) for label in factor.labels])


def _made(plan: Plan, seed: int) -> list[dict[str, Tensor]]:
    """Return for each tensor its frozen factors that no file holds."""
    bases = Bases([group.network for group in plan.groups], seed, matched=is_matched(plan.scale))
    return [
        {f.name: bases.read(group.network, f, str(i)) for f in group.network.frozen_draws}
        for i, group in enumerate(plan.groups)
    ]


def _tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float64))


def checked_batches(plan: Plan, batches: Iterable[Any] | None) -> list[Any]:
    """Return the batches that a start reads; raise TensorAdaptError where there are none."""
    found = list(batches) if batches is not None else []
    if plan.begins.needs_batches and not found:
        what = "gradient it takes" if plan.begins.reads == "gradients" else "inputs of layers it measures"
        raise TensorAdaptError(
            f'start="{plan.start}" needs the batches whose {what}; pass attach(model, plan, batches=[...])'
        )
    return found


def values_from_model(
    model: nn.Module, matrices: Matrices, plan: Plan, batches: Sequence[Any], loss: Loss | None, seed: int
) -> tuple[list[dict[str, Tensor]], Measured]:
    """Return for each tensor of a plan the values that its start takes from the model, and what was measured."""
    measured: Measured = lambda _: None  # noqa: E731
    device = device_of(model)
    there = (moved(batch, device) for batch in batches)
    if plan.begins.reads == "gradients":
        sums = summed_gradients(model, {site.key for site in plan.sites}, there, loss)
        measured = lambda site: matrices[site.name].logical(sums[site.key])[site.block].numpy()  # noqa: E731
    elif plan.begins.reads == "inputs":
        with gradients_of(model, ()):
            run = loss or (lambda model, batch: model(**batch))
            moments = input_moments(model, plan.sites, there, run, plan.begins.prepare)
        measured = lambda site: moments[site.name]  # noqa: E731
    based = factors_from_weights(matrices, plan, seed, measured)
    return (gradient_values(plan, measured, based, seed) if plan.start == "gradient" else based), measured


def gradient_values(
    plan: Plan,
    measured: Measured,
    based: Sequence[dict[str, Tensor]],  # for each tensor its frozen factors from the base weights
    seed: int,
) -> list[dict[str, Tensor]]:
    """Return for each tensor of the plan the factors of its gradient's decomposition, at the matched rule's sizes.

    Where some factors are frozen, the others are fitted by least squares.

    Raises TensorAdaptError for gradients that are zero or not finite.
    """
    each = zip(plan.groups, based, _made(plan, seed), strict=True)
    return [
        _values(plan, group, stack(group, lambda site: torch.from_numpy(measured(site))), frozen, made)
        for group, frozen, made in each
    ]


def summed_gradients(
    model: nn.Module, weights: Iterable[str], batches: Iterable[Any], loss: Loss | None = None
) -> dict[str, Tensor]:
    """Return the gradient of the loss in each named weight, summed over batches and stored like it; fp32, CPU.

    The model is in eval mode. Each gradient leaves the device once it is computed, so the device holds one at a time.
    """
    sums: dict[str, Tensor] = {}
    named = {name: model.get_parameter(name) for name in weights}
    with transaction(model), ExitStack() as held:
        held.enter_context(gradients_of(model, named.values()))
        for name, weight in named.items():
            held.callback(weight.register_post_accumulate_grad_hook(_collector(name, sums)).remove)
        for batch in batches:
            loss_of(model, batch, loss).backward()
    return sums


def _collector(name: str, sums: dict[str, Tensor]) -> Callable[[Tensor], None]:
    def collect(weight: Tensor) -> None:
        gradient = weight.grad.detach().float().cpu()  # type: ignore[union-attr]
        sums[name] = sums[name] + gradient if name in sums else gradient
        weight.grad = None

    return collect


@contextmanager
def gradients_of(model: nn.Module, wanted: Iterable[Tensor]) -> Iterator[None]:
    """Put the model in eval mode, inside this context, with gradients for these parameters only, which have none yet.

    Afterwards its modes, its gradients and what takes them are as before.
    """
    before = [(p, p.requires_grad, p.grad) for p in model.parameters()]
    training = {m: m.training for m in model.modules()}
    ids = {id(parameter) for parameter in wanted}
    fast = switch_off_fast_paths(model)  # a pass in evaluation must not pack weights that are trained through later
    model.eval()
    try:
        for parameter, _, _ in before:
            parameter.requires_grad_(id(parameter) in ids)
            parameter.grad = None
        with torch.enable_grad():
            yield
    finally:
        for parameter, flag, gradient in before:
            parameter.requires_grad_(flag)
            parameter.grad = gradient
        for module, mode in training.items():
            module.training = mode
        for module, attribute, value in fast:
            setattr(module, attribute, value)


def _values(
    plan: Plan, group: Group, gradient: Tensor, based: dict[str, Tensor], made: dict[str, Tensor]
) -> dict[str, Tensor]:
    network, where = group.network, group.members[0].site.name
    if not torch.isfinite(gradient).all() or not gradient.count_nonzero():
        what = "zero" if torch.isfinite(gradient).all() else "not finite"
        raise TensorAdaptError(
            f"the gradient of the tensor with site {where} is {what}; give other batches, or start='zero'"
        )
    values = _fitted(plan, group, gradient, {**based, **made}, 0)
    return based | {f.name: _sized(network, f, values[f.name]) for f in network.factors if f.trainable}


def _fitted(plan: Plan, group: Group, tensor: Tensor, held: dict[str, Tensor], seed: int) -> Mapping[str, np.ndarray]:
    """Return factors near a tensor; where some are held, the others are fitted by least squares."""
    network = group.network
    if not held:
        decompose = getattr(parameterizations.get(plan.factoring), "decompose", least_squares.decompose)
        return dict(decompose(network, tensor.numpy(), seed=seed))
    start = {**least_squares.draw(network, seed), **{name: value.double().numpy() for name, value in held.items()}}
    values, _ = least_squares.fit(network, (tensor / tensor.norm()).numpy(), start)
    return {**values, network.zero.name: values[network.zero.name] * float(tensor.norm())}


def _sized(network: Network, factor: Factor, value: np.ndarray) -> Tensor:
    """Return a factor at the matched rule's entry size, or zero; with one bond it is sized component by component."""
    entries = torch.from_numpy(np.ascontiguousarray(value, dtype=np.float64))
    if factor.init == "zero":
        return torch.zeros_like(entries)
    bonds = [i for i, label in enumerate(factor.labels) if label in network.bonds]
    over = [i for i in range(entries.ndim) if i != bonds[0]] if len(bonds) == 1 else list(range(entries.ndim))
    rms = entries.square().mean(dim=over, keepdim=True).sqrt() if over else entries.abs()
    return entries / rms.clamp_min(torch.finfo(entries.dtype).tiny) * entry_rms(network, factor)
