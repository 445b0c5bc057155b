"""Raise on DDP setups that would silently give wrong gradients, or fail with torch's obscure errors."""

from __future__ import annotations

import sys
from collections.abc import Iterable

import torch
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import CheckpointFunction

from tensoradapt.adapter.adapter import Adapter
from tensoradapt.errors import TensorAdaptError
from tensoradapt.sites.site import RowBlock


def check_ddp(updates: Iterable[tuple[Adapter, tuple[RowBlock, ...]]]) -> None:
    """Raise for factors and heads that DDP does not average, and for shared factors in reentrant checkpoints.

    Layers call it in training, except under torch.compile, which cannot trace it. Without DDP it reads one attribute.
    """
    ddp = DistributedDataParallel._active_ddp_module
    if ddp is None:
        return
    in_segment = not torch.is_grad_enabled() and _in_segment()
    for adapter, blocks in updates:
        if in_segment or torch.is_grad_enabled():
            _check_known(adapter, ddp)
        if in_segment and not ddp.static_graph:
            _check_shared(adapter, blocks)


def _check_known(adapter: Adapter, ddp: DistributedDataParallel) -> None:
    if adapter.averaged_by == id(ddp):
        return
    # those that required gradients when it was made; its list of parameters has the frozen ones too
    averaged = {id(p) for bucket in ddp.reducer._get_zeros_like_grad_buckets() for p in bucket.parameters()}
    trained = [*adapter.named_parameters(), *adapter.attachment.head_parameters().items()]
    if unknown := [name for name, p in trained if p.requires_grad and id(p) not in averaged]:
        raise TensorAdaptError(
            f"DistributedDataParallel does not know the adapter's {unknown[0]}, which came into the model after it was "
            "made (by attach, load or reduce_rank) or was frozen then (use chose it later): its gradients would not be "
            "averaged over the ranks. Make DistributedDataParallel(model) anew, after that"
        )
    adapter.averaged_by = id(ddp)


def _check_shared(adapter: Adapter, blocks: tuple[RowBlock, ...]) -> None:
    """Raise for factors that several checkpointed segments use.

    Each segment runs its own backward pass, so a shared factor is ready once per segment, and DDP expects it once.
    torch 2.13 then silently averages only the first part of the gradient, or fails with ``find_unused_parameters``. A
    static graph counts the parts and is right.
    """
    names = {site.name for block in blocks for site in block.sites}
    if shared := next((name for name in _in_many_layers(adapter) if name in names), None):
        raise TensorAdaptError(
            f"site {shared} shares trainable factors with other layers, and the model runs under DDP with reentrant "
            "gradient checkpointing, where each layer's backward pass hands in their gradient anew: it would be wrong, "
            'or torch fails ("mark a variable ready only once"). Pass '
            'gradient_checkpointing_kwargs={"use_reentrant": False}, or DistributedDataParallel(..., '
            "static_graph=True)"
        )


def _in_many_layers(adapter: Adapter) -> list[str]:
    """Return the names of sites whose trainable numbers other layers read too."""
    names = []
    one_vector = adapter.mapped is not None and "theta" in adapter.mapped.numbers
    for group in adapter.plan.groups:
        sites = [member.site for member in group.members]
        if len({site.coord.get("layer") for site in sites}) > 1 or adapter.biases or one_vector:
            names += [site.name for site in sites]
    return names


def _in_segment() -> bool:
    """Say whether the first pass of a reentrant segment is on the stack; torch has no other sign of it."""
    frame, code = sys._getframe(1), CheckpointFunction.forward.__code__  # this pass has no gradients
    while frame is not None and frame.f_code is not code:
        frame = frame.f_back  # type: ignore[assignment]
    return frame is not None
