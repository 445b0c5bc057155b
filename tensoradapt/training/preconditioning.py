"""Preconditioned gradients: each factor's is multiplied by the inverse of its normal matrix, as in alternating least
squares.

For CP the normal matrix of a factor is the Hadamard product of the other factors' Gram matrices (preconditioned LoRTA;
Kolda & Bader, SIAM Review 51, 2009, section 3.4). The same contraction serves every network: bonds are doubled, and a
mode that other factors hold too makes a matrix for each of its positions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tensoradapt.adapter.sharding import refuse_sharded
from tensoradapt.errors import TensorAdaptError
from tensoradapt.networks.contraction import Labels, compile_program
from tensoradapt.networks.network import Factor, Network
from tensoradapt.surgery.registry import adapters


def preconditioned(optimizer: torch.optim.Optimizer, model: nn.Module, epsilon: float = 1e-6) -> Any:
    """Before every step of ``optimizer``, each factor's gradient G becomes G (H + epsilon I)^-1, H its normal matrix.

    Returns the hook's handle; ``handle.remove()`` ends it. At the start only the zero factor has an H that is not zero,
    so only its gradient is changed in more than its size. Raises TensorAdaptError for a model without an adapter and an
    epsilon that is not positive.
    """
    found = list(adapters(model).values())
    if not found:
        raise TensorAdaptError(f"{type(model).__name__} has no adapter to precondition; call attach(model, plan) first")
    refuse_sharded(model, "preconditioning", "Leave it out under FSDP2, or train under DDP")
    if not isinstance(epsilon, int | float) or not epsilon > 0:
        raise TensorAdaptError(f"epsilon is {epsilon!r}; expected a number above 0, such as 1e-6")

    @torch.no_grad()
    def hook(*_: Any) -> None:
        for tensor in (tensor for adapter in found for tensor in adapter.factored):
            made = {
                factor.name: divided(tensor.network, tensor.factors, factor, value.grad, epsilon)
                for factor in tensor.network.factors
                if factor.trainable and (value := tensor.trained[factor.name]).grad is not None
            }
            for name, gradient in made.items():
                tensor.trained[name].grad = gradient

    return optimizer.register_step_pre_hook(hook)


def divided(
    network: Network,
    factors: Mapping[str, Tensor],
    of: Factor,
    gradient: Tensor,  # of the factor's shape
    epsilon: float,
) -> Tensor:
    """``gradient (H + epsilon I)^-1`` over the factor's bonds; solved in float64."""
    shared, own, bonds = _axes(network, of)
    if not bonds:
        return gradient
    normal = normal_matrix(network, factors, of)
    n = normal.shape[-1]
    order = [of.labels.index(label) for label in (*shared, *own, *bonds)]
    flat = gradient.double().permute(order)
    solved = torch.linalg.solve(
        normal + epsilon * torch.eye(n, dtype=normal.dtype, device=normal.device),
        flat.reshape(*normal.shape[:-2], -1, n).mT,
    )
    back = [order.index(i) for i in range(len(order))]
    return solved.mT.reshape(flat.shape).permute(back).to(gradient)


def normal_matrix(
    network: Network, factors: Mapping[str, Tensor], of: Factor
) -> Tensor:  # (*shared modes, bonds, bonds)
    """H = J^T J of the dense tensor in one factor, over its bonds, float64: for CP the Hadamard product of the other
    factors' Gram matrices.
    """
    shared, _, bonds = _axes(network, of)
    others = [factor for factor in network.factors if factor is not of]
    held = set(network.layout.names)
    twins = [tuple(x if x in held else f"{x}'" for x in factor.labels) for factor in others]
    sizes = {**network.sizes, **{f"{bond}'": n for bond, n in network.bonds.items()}}
    output = (*shared, *bonds, *(f"{bond}'" for bond in bonds))
    program = compile_program([*(factor.labels for factor in others), *twins], output, sizes)
    values = [factors[factor.name].detach().double() for factor in others]
    made = program.run([*values, *values], torch.einsum)
    n = 1
    for bond in bonds:
        n *= network.sizes[bond]
    return made.reshape(*(network.sizes[mode] for mode in shared), n, n)


def _axes(network: Network, of: Factor) -> tuple[Labels, Labels, Labels]:
    """A factor's modes that others hold too, those it holds alone, and its bonds."""
    others = {label for factor in network.factors if factor is not of for label in factor.labels}
    modes = [label for label in of.labels if label not in network.bonds]
    bonds = tuple(label for label in of.labels if label in network.bonds)
    return tuple(m for m in modes if m in others), tuple(m for m in modes if m not in others), bonds
