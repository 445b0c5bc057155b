"""Faults: make the n-th torch operation of a call fail, and compare a model before and after."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import tensoradapt as ta

FAULTS = (RuntimeError, torch.OutOfMemoryError, KeyboardInterrupt)


class Fails(TorchDispatchMode):
    """Raises at the n-th operation inside it, and at no other; ``count`` is how many there were."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.n, self.count = n, 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        if self.count == self.n:
            raise FAULTS[self.n % len(FAULTS)](f"operation {self.n}")
        return function(*args, **(kwargs or {}))


def state(model: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> dict[str, Any]:
    """All that a call which fails must leave: modules, modes, hooks, flags, numbers, gradients, the optimizer."""
    found: dict[str, Any] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        hooks = len(module._forward_hooks), len(module._forward_pre_hooks), len(module._backward_hooks)
        found[f"module {name}"] = id(module), type(module), module.training, hooks
    for name, p in model.named_parameters(remove_duplicate=False):
        found[f"parameter {name}"] = id(p), p.requires_grad, p.dtype, numbers(p), numbers(p.grad)
    for name, buffer in model.named_buffers(remove_duplicate=False):
        found[f"buffer {name}"] = buffer.dtype, numbers(buffer)
    if optimizer is not None:
        for i, group in enumerate(optimizer.param_groups):
            for j, p in enumerate(group["params"]):
                moments = {k: numbers(v) if isinstance(v, Tensor) else v for k, v in optimizer.state.get(p, {}).items()}
                found[f"optimizer {i} {j}"] = id(p), group["lr"], moments
        found["optimizer"] = len(optimizer.state)
    return found


def numbers(value: Tensor | None) -> Any:
    """The bytes of a tensor, and its shape."""
    if value is None:
        return None
    return tuple(value.shape), value.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes()


def every_fault(
    ready: Callable[[], tuple[nn.Module, torch.optim.Optimizer | None, Callable[[], Any]]], step: int = 1
) -> Iterator[tuple[int, list[str]]]:
    """For each ``step``-th operation of a call that ``ready`` prepares: its number, and what its failure changed."""
    n = 1
    while True:
        model, optimizer, call = ready()
        before, fails = state(model, optimizer), Fails(n)
        try:
            with fails:
                call()
        except (*FAULTS, ta.TensorAdaptError) as error:
            if f"operation {n}" not in str(error):
                raise
            after = state(model, optimizer)
            yield n, [key for key in before.keys() | after.keys() if before.get(key) != after.get(key)]
        if fails.count < n:
            return
        n += step
