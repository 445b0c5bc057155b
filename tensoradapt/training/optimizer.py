"""Optimizer: parameter groups with their rates, and the schedule."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from tensoradapt.adapter.adapter import Adapter
from tensoradapt.errors import TensorAdaptError
from tensoradapt.training.preconditioning import preconditioned


def check_settings(lr: float, head_lr: float | None, steps: int, warmup: float = 0.0) -> None:
    """Refuses rates and steps that ``fit`` cannot use."""
    for what, value in (("lr", lr), ("head_lr", lr if head_lr is None else head_lr)):
        if not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
            raise TensorAdaptError(f"{what} is {value!r}; expected a finite number above 0")
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise TensorAdaptError(f"steps is {steps!r}; expected a whole number of 1 or more")
    if not 0 <= warmup < 1:
        raise TensorAdaptError(f"warmup is {warmup!r}; expected a share of the steps, from 0 up to, not including, 1")


def _optimizer(
    model: nn.Module, groups: list[dict[str, Any]], weight_decay: float, precondition: float | None
) -> torch.optim.Optimizer:
    optimizer = torch.optim.AdamW(groups, weight_decay=weight_decay)
    if precondition is not None:
        preconditioned(optimizer, model, precondition)
    return optimizer


def _schedule(
    optimizer: torch.optim.Optimizer, steps: int, warmup: float, done: int
) -> torch.optim.lr_scheduler.LambdaLR:
    """The schedule, as it is after ``done`` steps."""
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps, warmup), last_epoch=done - 1)


def parameter_groups(
    model: nn.Module, lr: float, head_lr: float | None = None, heads: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """What requires gradients, as an optimizer's groups: factors at ``lr`` times their own multiplier (LoRA+), modules
    in ``heads`` at ``head_lr``.

    Raises TensorAdaptError where nothing requires gradients.
    """
    named = _trained(model)
    if not named:
        raise TensorAdaptError("nothing in the model requires gradients; attach an adapter, or plan with train=")
    # found among the modules, not at the root: DDP and torch.compile put the model inside another
    held = [module for module in model.modules() if isinstance(module, Adapter)]
    multipliers = {parameter: rate for adapter in held for parameter, rate in adapter.rates().items()}
    found: dict[float, list[nn.Parameter]] = {}
    for name, parameter in named.items():
        in_head = any(name.startswith(f"{head}.") for head in heads)
        rate = (head_lr or lr) if in_head else lr * multipliers.get(parameter, 1.0)
        found.setdefault(rate, []).append(parameter)
    return [{"params": parameters, "lr": rate} for rate, parameters in found.items()]


def _trained(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def _rate(step: int, steps: int, warmup: float) -> float:
    """The schedule's multiplier at a step counted from 0: up over the warm-up, then down to zero after the last."""
    rising = max(1, round(warmup * steps))
    return (step + 1) / rising if step < rising else (steps - step) / max(1, steps - rising)
