"""Gather and split the numbers of DTensors, and refuse what a sharded model cannot do.

A DTensor is recognised by its method ``full_tensor``: importing its class would load torch.distributed for everyone.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tensoradapt.errors import TensorAdaptError
from tensoradapt.sites.modules import ROOT, named_modules

SAVE_FIRST = "Call adapter.save(folder) on every rank, then load it into the base model in one process and do it there"
ATTACH_FIRST = (
    "Attach or load first and call fully_shard after; numbers of an adapter that is attached already are put back by "
    "restore(model, folder)"
)


def gathered(tensor: Tensor) -> Tensor:
    """Return a contiguous copy on the CPU; a DTensor is gathered from all ranks, which all must call."""
    # a copy, because another thread may train the tensor while the numbers are hashed and written
    gather = getattr(tensor.detach(), "full_tensor", None)
    return (gather() if gather else tensor.detach()).to("cpu", copy=True, memory_format=torch.contiguous_format)


def placed_like(value: Tensor, tensor: Tensor) -> Tensor:  # value: the same numbers on each rank
    """Split ``value`` over the ranks as ``tensor`` is; unchanged unless that is a DTensor."""
    if not hasattr(tensor, "full_tensor"):
        return value
    from torch.distributed.tensor import distribute_tensor

    split: Any = tensor
    return distribute_tensor(value.to(tensor.device, tensor.dtype), split.device_mesh, split.placements)


def is_sharded(module: nn.Module) -> bool:
    """Return whether parameters are DTensors, or are managed by FSDP2, which may hold whole ones between passes.

    Only the adapters in use are looked at; a model may have thousands of others.
    """
    used = getattr(getattr(module, ROOT, None), "used", {}).values()
    parts = [part for _, part in named_modules(module)] + [part for adapter in used for part in adapter.modules()]
    parameters = (p for part in parts for p in part.parameters(recurse=False))
    return any(hasattr(p, "full_tensor") for p in parameters) or bool(_groups(module))


def reshard(module: nn.Module) -> None:
    """Drop the whole parameters that FSDP2 holds after a forward pass: writes to those would be lost."""
    for group in _groups(module):
        group.reshard()


def refuse_sharded(module: nn.Module, what: str, instead: str = SAVE_FIRST) -> None:
    """Raise TensorAdaptError if parameters are split over ranks; ``what`` needs them whole."""
    if is_sharded(module):
        raise TensorAdaptError(
            f"{type(module).__name__} is sharded over ranks (FSDP2 or DTensor parameters), and whole parameters are "
            f"needed for {what}. {instead}"
        )


def write_once(module: nn.Module, write: Callable[[], None]) -> None:
    """Run ``write``, for a sharded module on rank 0 alone; all ranks must call, and all raise if it fails."""
    if not is_sharded(module):
        write()
        return
    import torch.distributed as dist

    failed: Exception | None = None
    if dist.get_rank() == 0:
        try:
            write()
        except Exception as error:
            failed = error
    messages = [None if failed is None else str(failed)]
    dist.broadcast_object_list(messages, 0)
    time.sleep(0.1)  # gloo's thread needs the GIL to free what was sent, and aborts a process that ends before it has
    if failed is not None:
        raise failed
    if messages[0] is not None:
        raise TensorAdaptError(f"rank 0: {messages[0]}")


def _groups(module: nn.Module) -> list[Any]:
    """Return the modules that ``fully_shard`` was called on; none if FSDP was not imported."""
    fsdp = getattr(sys.modules.get("torch.distributed.fsdp"), "FSDPModule", None)
    return [] if fsdp is None else [part for _, part in named_modules(module) if isinstance(part, fsdp)]
