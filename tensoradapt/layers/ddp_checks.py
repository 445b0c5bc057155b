"""What goes wrong under DDP without a word, or with torch's obscure ones, is refused in the forward pass."""

from __future__ import annotations

import sys
from collections.abc import Iterable

import torch
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import CheckpointFunction

from tensoradapt.adapter.adapter import Adapter
from tensoradapt.errors import TensorAdaptError
from tensoradapt.sites.site import RowBlock


def check_ddp(
    updates: Iterable[tuple[Adapter, tuple[RowBlock, ...]]],  # of one layer: its adapters, each with its sites there
) -> None:
    """Refuses factors that DDP does not know, and shared ones in reentrant checkpoints; called while training.

    torch.compile does not call it: what it needs is no graph. Without DDP it reads one attribute.
    """
    ddp = DistributedDataParallel._active_ddp_module
    if ddp is None:
        return
    in_segment = not torch.is_grad_enabled() and _in_segment()
    for adapter, own in updates:
        if in_segment or torch.is_grad_enabled():
            _refuse_unknown(adapter, ddp)
        if in_segment and not ddp.static_graph:
            _refuse_shared(adapter, own)


def _refuse_unknown(adapter: Adapter, ddp: DistributedDataParallel) -> None:
    if adapter.averaged_by == id(ddp):
        return
    known = {id(parameter) for parameter in ddp._module_parameters}
    if unknown := [name for name, p in adapter.named_parameters() if p.requires_grad and id(p) not in known]:
        raise TensorAdaptError(
            f"DistributedDataParallel does not know the adapter's {unknown[0]}, which came into the model after it was "
            "made (by attach, load or reduce_rank): its gradients would not be averaged over the ranks. Make "
            "DistributedDataParallel(model) anew, after that"
        )
    adapter.averaged_by = id(ddp)


def _refuse_shared(adapter: Adapter, own: tuple[RowBlock, ...]) -> None:
    """Each segment's backward pass is one of its own, so DDP sees a shared factor done once for each, and expects one.

    torch 2.13 then averages the first part of the gradient alone, without a word, or fails, with
    ``find_unused_parameters``. A static graph counts the parts and is right.
    """
    names = {site.name for row_block in own for site in row_block.sites}
    if shared := next((name for name in _in_many_layers(adapter) if name in names), None):
        raise TensorAdaptError(
            f"site {shared} shares trainable factors with other layers, and the model runs under DDP with reentrant "
            "gradient checkpointing, where each layer's backward pass hands in their gradient anew: it would be wrong, "
            'or torch fails ("mark a variable ready only once"). Pass '
            'gradient_checkpointing_kwargs={"use_reentrant": False}, or DistributedDataParallel(..., '
            "static_graph=True)"
        )


def _in_many_layers(adapter: Adapter) -> list[str]:
    """The sites whose trainable numbers are read in other layers too."""
    found = []
    for group in adapter.plan.groups:
        sites = [member.site for member in group.members]
        if len({site.coord.get("layer") for site in sites}) > 1 or adapter.biases:
            found += [site.name for site in sites]
    return found


def _in_segment() -> bool:
    """Whether a reentrant segment's first pass, without gradients, is on the stack: torch has no other sign."""
    frame, code = sys._getframe(1), CheckpointFunction.forward.__code__
    while frame is not None and frame.f_code is not code:
        frame = frame.f_back  # type: ignore[assignment]
    return frame is not None
