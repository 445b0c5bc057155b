"""Find the adapters that an optimizer trains, and refuse what a rule of steps cannot work on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from tensoradapt.adapter.adapter import Adapter
from tensoradapt.adapter.sharding import refuse_sharded
from tensoradapt.errors import TensorAdaptError


def held_adapters(optimizer: torch.optim.Optimizer, model: nn.Module, goal: str, what: str) -> list[Adapter]:
    """Return the adapters whose factors the optimizer trains; ``what`` they are wanted for, with ``goal`` as a verb."""
    # found among the modules, not at the root: DDP and torch.compile put the model inside another
    adapters = [module for module in model.modules() if isinstance(module, Adapter)]
    if not adapters:
        raise TensorAdaptError(f"{type(model).__name__} has no adapter to {goal}; call attach(model, plan) first")
    refuse_sharded(model, what, "Leave them out under FSDP2, or train under DDP")
    trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
    held = [adapter for adapter in adapters if any(id(p) in trained for p in adapter.rates())]
    named = {id(p): name for name, p in model.named_parameters()}
    lacking = [p for a in held or adapters for p in a.rates() if p.requires_grad and id(p) not in trained]
    if lacking:
        raise TensorAdaptError(
            f"the optimizer lacks {len(lacking)} of the factors that require gradients, such as "
            f"{named[id(lacking[0])]}; pass it all parameters of the adapter, as in "
            "torch.optim.AdamW(adapter.parameters(), lr=3e-3)"
        )
    if not held:
        raise TensorAdaptError("no factor of the adapter requires gradients; expected one that is trained")
    for adapter in held:
        refuse_merged(adapter)
    return held


def refuse_lbfgs(optimizer: torch.optim.Optimizer) -> None:
    """Raise TensorAdaptError for the optimizer that cannot do without a closure."""
    if isinstance(optimizer, torch.optim.LBFGS):
        raise TensorAdaptError(
            "LBFGS moves the weights several times in a step, by a closure; expected an optimizer of one move, such as "
            "torch.optim.AdamW"
        )


def refuse_closure(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Raise TensorAdaptError for a step that was given a closure; these are a hook's arguments."""
    if any(value is not None for value in (*args[1:], *kwargs.values())):  # hooks get the optimizer as first one
        raise TensorAdaptError(
            "optimizer.step was given a closure; expected gradients that are there before the step: call "
            "loss.backward(), then optimizer.step()"
        )


def refuse_merged(adapter: Adapter) -> None:
    """Raise TensorAdaptError for an adapter that is merged into the weights."""
    if adapter.gate.merged:
        raise TensorAdaptError(
            "the adapter is merged into the weights, and a step would move nothing; call unmerge(model)"
        )
