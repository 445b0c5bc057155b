"""A stand-in for CUDA graphs on the stand-in for a GPU: a capture records operators, and a replay computes them again.

``with capturing(device) as graph`` records every operator on the device, and raises what CUDA raises where one waits
for the device or copies to it from memory that is not pinned. ``graph.replay()`` computes them again in the memory they
had: what Python decided stays as it was. ``with graphs(device)`` puts the stand-in under ``torch.cuda.CUDAGraph``, so
that torch's own ``make_graphed_callables`` runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any
from unittest.mock import patch

import torch
from support.device_standin import Device
from torch import Tensor
from torch.utils._mode_utils import no_dispatch
from torch.utils._pytree import tree_leaves


class Graph:
    """The operators of a capture, with their tensors."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, Any, Any, Any]] = []

    def record(self, func: Any, args: Any, kwargs: Any, result: Any) -> None:
        """Add an operator that was computed on the device."""
        self.calls.append((func, args, kwargs, result))

    def replay(self) -> None:
        """Compute every operator again, and write what it makes into the memory of what it made."""
        with torch._C._AutoDispatchBelowAutograd(), no_dispatch():
            for func, args, kwargs, result in self.calls:
                given = {memory(x) for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
                for old, new in zip(tree_leaves(result), tree_leaves(func(*args, **kwargs)), strict=True):
                    if isinstance(old, Tensor) and memory(old) not in given:
                        old.copy_(new)


class _Capture:
    def __init__(self, graph: Graph, **_: Any) -> None:
        self.graph = graph

    def __enter__(self) -> None:
        self.context = capturing(_Capture.device, self.graph)
        self.context.__enter__()

    def __exit__(self, *error: Any) -> None:
        self.context.__exit__(*error)

    device: Device


def memory(tensor: Tensor) -> int:
    """The address of a tensor's storage."""
    return tensor.untyped_storage().data_ptr()


@contextmanager
def capturing(device: Device, graph: Graph | None = None) -> Iterator[Graph]:
    """Record in this context, in which torch says that the current stream is capturing."""
    device.graph = graph or Graph()
    try:
        yield device.graph
    finally:
        device.graph = None


@contextmanager
def graphs(device: Device) -> Iterator[None]:
    """Let torch.cuda's own calls for graphs use the stand-in."""
    _Capture.device = device
    calls = {"CUDAGraph": Graph, "graph": _Capture, "Stream": lambda: None, "stream": lambda _: nullcontext()}
    with ExitStack() as stack:
        for name, call in {**calls, "synchronize": lambda: None}.items():
            stack.enter_context(patch.object(torch.cuda, name, call))
            if hasattr(torch.cuda.graphs, name):
                stack.enter_context(patch.object(torch.cuda.graphs, name, call))
        stack.enter_context(patch.object(torch.cuda.graphs, "graph_pool_handle", lambda: None))
        yield
