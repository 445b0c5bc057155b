"""Precondition gradients: multiply each factor's by the inverse of its normal matrix, as least squares does.

For CP this is preconditioned LoRTA (Kolda & Bader, SIAM Review 51, 2009, section 3.4). The same contraction serves
every network; a mode that other factors have too makes a matrix for each of its positions. For LoRA with a frozen A it
is LoRA-FA's corrected gradient (Zhang et al., arXiv 2308.03303, second version), whose ridge in PEFT is 1e-8 and which
PEFT rounds to bfloat16.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tensoradapt.adapter.adapter import Adapter
from tensoradapt.adapter.factored import FactoredTensor
from tensoradapt.checks import check_arguments, number, of_kind
from tensoradapt.errors import TensorAdaptError
from tensoradapt.networks.contraction import size
from tensoradapt.networks.gram import axes, fold, normal_matrix, unfold
from tensoradapt.networks.network import Factor, Network
from tensoradapt.training.held import held_adapters, refuse_closure, refuse_lbfgs, refuse_merged
from tensoradapt.training.state import torch_optimizer

MOST = 4096  # rows of a normal matrix, which then has 134 MB; dividing by it takes seconds


def preconditioned(optimizer: torch.optim.Optimizer, model: nn.Module, epsilon: float = 1e-6) -> Any:
    """Turn each factor's gradient G into G (H + epsilon I)^-1, H its normal matrix, before every step of ``optimizer``.

    At the start H is zero for all but the zero factor, so only that factor's gradient changes in more than size.
    Beside AdamW it is not shown to gain (docs/results/equal-steps.md). Adam's steps on it for
    ``method="lora-fa"``, with epsilon 1e-8, are those of PEFT's ``LoraFAOptimizer``, without its rounding to bfloat16:
    its further division by alpha^2 / r^2 cancels.

    Args:
        optimizer: any optimizer; gets a hook that runs before its step.
        model: a model with an attached adapter.
        epsilon: ridge added to every normal matrix, above 0.

    Returns:
        The hook's handle; ``handle.remove()`` ends it.

    Raises:
        TensorAdaptError: without an adapter; for an optimizer that lacks some of its factors or needs a closure, for
            sharded, merged or mapped adapters, a factor with more than 4,096 entries over its bonds, such as the core
            of a Tucker over many modes, and an epsilon that is not above 0.

    >>> import tensoradapt as ta
    >>> from transformers import BertConfig, BertForSequenceClassification
    >>> model = BertForSequenceClassification(BertConfig(hidden_size=12, num_hidden_layers=2, num_attention_heads=3))
    >>> adapter = ta.attach(model, ta.plan(model, "cp", rank=2))
    >>> handle = ta.preconditioned(torch.optim.AdamW(adapter.parameters(), lr=1e-3), model)
    """
    check_arguments(locals(), optimizer=torch_optimizer, model=of_kind(nn.Module), epsilon=number)
    refuse_lbfgs(optimizer)
    held = held_adapters(optimizer, model, "precondition", "preconditioned gradients")
    if any(adapter.mapped for adapter in held):
        raise TensorAdaptError(
            "a map makes the adapter's factors of other numbers, and preconditioning divides gradients of factors; "
            "train with a plain optimizer, or plan without map="
        )
    for adapter in held:
        _check_sizes(adapter)

    @torch.no_grad()
    def hook(_: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        refuse_closure(args, kwargs)
        for adapter in held:
            refuse_merged(adapter)
        for tensors in _alike([tensor for adapter in held for tensor in adapter.factored]):
            _divide(tensors, epsilon)

    return optimizer.register_step_pre_hook(hook)


def _check_sizes(adapter: Adapter) -> None:
    """Raise TensorAdaptError for a trained factor whose normal matrix is not divided by in seconds."""
    for network in {tensor.network: None for tensor in adapter.factored}:
        for factor in (factor for factor in network.factors if factor.trainable):
            if (n := size(axes(network, factor)[2], network.sizes)) > MOST:
                raise TensorAdaptError(
                    f"factor {factor.name!r} has {n:,} entries over its bonds, and preconditioning would divide by a "
                    f"matrix of {n:,} rows in each step; at most {MOST:,} are taken. Plan a smaller rank, or train "
                    "with a plain optimizer"
                )


def _alike(tensors: Iterable[FactoredTensor]) -> Iterable[Sequence[FactoredTensor]]:
    """Group tensors of one network that have the same gradients, at one place; their factors can be stacked."""
    groups: dict[Any, list[FactoredTensor]] = {}
    for tensor in tensors:
        given = tuple((name, value.grad is None, value.device) for name, value in tensor.trained.items())
        groups.setdefault((tensor.network, given), []).append(tensor)
    return groups.values()


def _divide(tensors: Sequence[FactoredTensor], epsilon: float) -> None:
    """Divide the gradients of tensors of one network, each factor's of all tensors at once."""
    network = tensors[0].network
    values = {f.name: torch.stack([t.factors[f.name].detach() for t in tensors]).double() for f in network.factors}
    for factor in network.factors:
        trained = [t.trained[factor.name] for t in tensors] if factor.trainable else []
        if trained and trained[0].grad is not None:
            stacked = torch.stack([value.grad for value in trained])
            found = divided(network, values, factor, stacked, epsilon)
            for value, gradient in zip(trained, found.unbind(), strict=True):
                value.grad = gradient


def divided(
    network: Network,
    factors: Mapping[str, Tensor],
    of: Factor,
    gradient: Tensor,  # the factor's shape
    epsilon: float,
) -> Tensor:
    """Return ``gradient (H + epsilon I)^-1`` over the factor's bonds, solved in float64.

    Factors and gradient of several tensors may be stacked along a first axis.
    """
    if not axes(network, of)[2]:
        return gradient
    values = {name: value.detach().double() for name, value in factors.items()}
    normal = normal_matrix(network, values, of, _stacked_einsum)
    eye = torch.eye(normal.shape[-1], dtype=normal.dtype, device=normal.device)
    # without a check for which a GPU would be waited for: with the ridge the matrix is not singular
    solved, _ = torch.linalg.solve_ex(normal + epsilon * eye, unfold(network, of, gradient.double()).mT)
    return fold(network, of, solved.mT).to(gradient)


def _stacked_einsum(equation: str, *operands: Tensor) -> Tensor:
    """Apply an einsum to arrays that may have a first axis, which it does not name and does not sum."""
    return torch.einsum(f"...{equation.replace(',', ',...').replace('->', '->...')}", *operands)
