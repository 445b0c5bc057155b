"""Sharding: numbers of DTensors as a whole and back, and what a model that is split over ranks cannot do.

A DTensor is known by its method ``full_tensor``: importing its class would load torch.distributed for everyone.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from tensoradapt.errors import TensorAdaptError

SAVE_FIRST = "Call adapter.save(folder) on every rank, then load it into the base model in one process and do it there"
ATTACH_FIRST = (
    "Attach or load first and call fully_shard after; numbers of an adapter that is attached already are put back by "
    "restore(model, folder)"
)


def gathered(tensor: Tensor) -> Tensor:
    """The numbers of a tensor on the CPU, contiguous; of a DTensor gathered from all ranks, which all must call."""
    gather = getattr(tensor.detach(), "full_tensor", None)
    return (gather() if gather else tensor.detach()).contiguous().cpu()


def placed_like(
    value: Tensor,  # the same numbers on each rank
    tensor: Tensor,
) -> Tensor:
    """``value`` split over the ranks as ``tensor`` is; as it is where that is no DTensor."""
    if not hasattr(tensor, "full_tensor"):
        return value
    from torch.distributed.tensor import distribute_tensor

    split: Any = tensor
    return distribute_tensor(value.to(tensor.device, tensor.dtype), split.device_mesh, split.placements)


def is_sharded(module: nn.Module) -> bool:
    """Whether parameters are DTensors, or FSDP2 may make them ones: between two passes it may hold whole ones."""
    return any(hasattr(p, "full_tensor") for p in module.parameters()) or bool(_groups(module))


def reshard(module: nn.Module) -> None:
    """Drops the whole parameters that FSDP2 holds after a forward pass: what is written to those is lost."""
    for group in _groups(module):
        group.reshard()


def refuse_sharded(module: nn.Module, what: str, instead: str = SAVE_FIRST) -> None:
    """Raises TensorAdaptError where parameters are split over ranks; ``what`` needs them whole."""
    if is_sharded(module):
        raise TensorAdaptError(
            f"{type(module).__name__} is sharded over ranks (FSDP2 or DTensor parameters), and {what} needs whole "
            f"parameters. {instead}"
        )


def write_once(module: nn.Module, write: Callable[[], None]) -> None:
    """Runs ``write``; of a sharded module on rank 0 while the others wait, and all raise if it does. All must call."""
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
    if failed is not None:
        raise failed
    if messages[0] is not None:
        raise TensorAdaptError(f"rank 0: {messages[0]}")


def _groups(module: nn.Module) -> list[Any]:
    """The modules that ``fully_shard`` was called on; none where nothing has loaded FSDP."""
    fsdp = getattr(sys.modules.get("torch.distributed.fsdp"), "FSDPModule", None)
    return [] if fsdp is None else [one for one in module.modules() if isinstance(one, fsdp)]
