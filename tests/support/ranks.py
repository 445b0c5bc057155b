"""The model of tests/support/distributed_worker.py on two ranks, and its numbers as a whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from support.families import planned
from support.models import inputs, make, perturb
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard

import tensoradapt as ta

NAME, HEAD = "qwen2", "lm_head"
Model = tuple[nn.Module, ta.Adapter]


def attached(parameterization: str = "cp", dtype: torch.dtype = torch.float64, **changes: Any) -> Model:
    """The tiny model with every factor away from zero; the same on each rank."""
    model = make(NAME, dtype)
    adapter = ta.attach(model, planned(ta.find_sites(model), parameterization, rank=2, **changes), seed=0)
    perturb(adapter)
    return model, adapter


def sharded(model: nn.Module, **options: Any) -> nn.Module:
    """As docs/guides/distributed.md says: trained heads and blocks each on their own, the rest with the root."""
    trained = [model.lm_head] if model.lm_head.weight.requires_grad else []
    for part in (*model.model.layers, *trained):
        fully_shard(part, **options)
    fully_shard(model, **options)
    assert all(hasattr(p, "full_tensor") for p in model.parameters())
    return model


def ids() -> Tensor:
    return inputs(NAME)["input_ids"]


def own() -> Tensor:
    """This rank's half of the batch."""
    return ids()[dist.get_rank()][None]


def backward(model: nn.Module, batch: Tensor) -> None:
    model(input_ids=batch).logits.float().square().mean().backward()


def whole(tensor: Tensor) -> Tensor:
    return (tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor).detach().clone()


def gradients(adapter: nn.Module) -> dict[str, Tensor]:
    return {name: whole(p.grad) for name, p in adapter.named_parameters()}


def values(adapter: nn.Module) -> dict[str, Tensor]:
    return {name: whole(p) for name, p in adapter.named_parameters()}


def off(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """The largest relative difference of a tensor."""
    assert set(found) == set(expected) != set()
    return max(float((found[k] - v).detach().norm() / v.norm().clamp_min(1e-30)) for k, v in expected.items())


def equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return set(found) == set(expected) != set() and all(torch.equal(found[k], v) for k, v in expected.items())


def refusal(call: Callable[[], Any]) -> str:
    try:
        call()
    except ta.TensorAdaptError as error:
        return str(error)
    return ""
