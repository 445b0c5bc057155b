"""A stand-in for a GPU: tensors with numbers on the CPU that say they are on cuda:0, and counts of what a GPU would do.

``with standin() as device`` patches torch until it ends. A tensor that was moved to "cuda" is then an ``OnDevice``. An
operation that mixes it with a tensor on the CPU raises what torch raises on a GPU, with the line of the package that
asked for it. ``with device.counting() as counts`` counts operations that launch a kernel (views do not), reads that
wait for the device, and copies to it, each by the line that asked for it. Kernels are torch's of a CPU: a GPU may split
one or fuse two, so launches are those of the operators, not of the device. Nothing of the time is known.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

import tensoradapt

CUDA, CPU = torch.device("cuda:0"), torch.device("cpu")
PACKAGE = str(Path(tensoradapt.__file__).parent) + os.sep
TORCH = str(Path(torch.__file__).parent) + os.sep
# beside views: what only allocates, or looks at a tensor's description
FREE = frozenset(
    "empty new_empty empty_like empty_strided new_empty_strided detach alias lift_fresh _unsafe_view resize_ set_ "
    "is_same_size is_pinned record_stream _local_scalar_dense".split()
)
READS = frozenset(
    "_local_scalar_dense equal is_nonzero nonzero masked_select _unique2 _linalg_check_errors _linalg_svd".split()
)
INDEXED = frozenset("index index_put index_put_ _index_put_impl_ _unsafe_index _unsafe_index_put".split())
TYPED = ("layers.fused_linear", "layers.quantised", "adapter.forward_pass", "surgery.checks")  # ask for type(tensor)
DEPTH = 60  # frames among which a line of the package is looked for
ASYNC: set[int] = set()  # addresses of pinned memory, from which a copy need not wait


@dataclass
class Counts:
    """Launches, waits for the device, and copies to it that block, each by the line that asked for it."""

    launches: Counter[str] = field(default_factory=Counter)
    waits: Counter[str] = field(default_factory=Counter)
    copies: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        listed = (f"{what}: {dict(found.most_common())}" for what, found in vars(self).items() if found)
        return "; ".join(listed) or "nothing"


class Device:
    """The device of a ``standin``: where it counts, and whether CUDA was initialised."""

    def __init__(self) -> None:
        self.counts = Counts()
        self.initialised = False
        self.graph: Any = None  # what records operators while a graph is captured (capture_standin.py)

    def refuse(self, what: str) -> None:
        """Raise what CUDA raises for what cannot be captured, while a graph is."""
        if self.graph is not None:
            raise RuntimeError(f"CUDA error: operation not permitted when stream is capturing ({what})")

    @contextmanager
    def counting(self) -> Iterator[Counts]:
        """Count what happens in this context alone."""
        before, self.counts = self.counts, Counts()
        try:
            yield self.counts
        finally:
            self.counts = before

    def init(self) -> None:
        """Stand in for ``torch.cuda.init``."""
        self.initialised = True

    def statistics(self, *_: Any) -> int:
        """Stand in for calls of torch.cuda's allocator that need CUDA to be initialised."""
        if not self.initialised:
            raise RuntimeError("Invalid device argument 1: did you call init?")
        return 0


class OnDevice(Tensor):
    """A tensor that says it is on cuda:0."""

    device = property(lambda self: CUDA)  # type: ignore[assignment]
    is_cuda = property(lambda self: True)  # type: ignore[assignment]
    is_cpu = property(lambda self: False)  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _dispatched(func, args, kwargs or {})

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in CALLS and isinstance(args[0], Tensor):
            with torch._C.DisableTorchFunctionSubclass():
                return CALLS[name](*args, **(kwargs or {}))
        return super().__torch_function__(func, types, args, kwargs or {})

    def __repr__(self, **_: Any) -> str:
        return f"OnDevice({tuple(self.shape)}, {self.dtype})"


_now = Device()  # the device that counts


def _on(value: Any) -> Any:
    return torch.Tensor._make_subclass(OnDevice, value) if type(value) is Tensor else value


def _is_cuda(device: Any) -> bool:
    return device is not None and torch.device(device).type == "cuda"


def where() -> str:
    """Return the innermost line of the package among the callers, or of what called torch outside of it."""
    frame, outside = sys._getframe(1), ""
    for _ in range(DEPTH):
        ours, name = _file(frame.f_code.co_filename)
        if ours or (name and not outside):
            outside = f"{name}:{frame.f_lineno}"
        if ours or frame.f_back is None:
            break
        frame = frame.f_back
    return outside


@cache
def _file(path: str) -> tuple[bool, str]:
    """Return whether a file is the package's, and its name for a line; torch's own and this one have none."""
    if path.startswith(PACKAGE):
        return True, path.removeprefix(PACKAGE)
    return False, "" if path == __file__ or path.startswith(TORCH) else "/".join(Path(path).parts[-2:])


def _dispatched(func: Any, args: Any, kwargs: Mapping[str, Any]) -> Any:
    """Compute an operator on the CPU; refuse it where devices are mixed, and count what it does."""
    name, to_device = func.overloadpacket.__name__, _is_cuda(kwargs.get("device"))
    tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
    if to_device:
        kwargs = {**kwargs, "device": CPU, "pin_memory": False} if "pin_memory" in kwargs else {**kwargs, "device": CPU}
    here = to_device or any(isinstance(x, OnDevice) for x in tensors)
    if here:
        _count(func, name, args, tensors, to_device)
    with no_dispatch():
        result = func(*args, **kwargs)
    if here and _now.graph is not None:
        _now.graph.record(func, args, kwargs, result)
    leaves = name == "copy_" and not isinstance(args[0], OnDevice)
    return tree_map(_on, result) if here and not leaves else result


def _count(func: Any, name: str, args: Any, tensors: list[Tensor], to_device: bool) -> None:
    counts, line = _now.counts, f"{where()} {name}"
    before = counts.copies[line] + counts.waits[line]
    away = [x for x in tensors if not isinstance(x, OnDevice) and x.dim()]
    if name in INDEXED:
        counts.copies[line] += len(away)
        counts.waits[line] += any(x.dtype == torch.bool for x in tensors[1:])
    elif name == "copy_":
        blocks = not (args[2:] and args[2] and (isinstance(args[0], OnDevice) and args[1].data_ptr() in ASYNC))
        if away:
            (counts.copies if isinstance(args[0], OnDevice) else counts.waits)[line] += blocks
    elif away and not (to_device and name == "_to_copy"):
        raise RuntimeError(
            "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu! "
            f"({name} of {tuple(away[0].shape)} at {where()})"
        )
    counts.waits[line] += name in READS and any(isinstance(x, OnDevice) for x in tensors)
    counts.launches[line] += not (func.is_view or name in FREE)
    if counts.copies[line] + counts.waits[line] > before:
        _now.refuse(line)


class _Moved(torch.autograd.Function):
    """A copy to the device or from it."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, to_device: bool) -> Tensor:
        with no_dispatch():
            copied = value.detach().clone()
        ctx.back = not to_device
        return _on(copied) if to_device else copied.as_subclass(Tensor)  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        with no_dispatch():
            return (_on(gradient.clone()) if ctx.back else gradient.as_subclass(Tensor)), None


def _moved(value: Tensor, device: Any, blocks: bool) -> Tensor:
    to_device = _is_cuda(device)
    if device is None or to_device == isinstance(value, OnDevice):
        return value
    if to_device:
        _now.counts.copies[f"{where()} to"] += blocks
    else:
        _now.counts.waits[f"{where()} cpu"] += 1
    if blocks or not to_device:
        _now.refuse(f"{where()} copy")
    return _Moved.apply(value, to_device)  # type: ignore[no-any-return]


def _to(value: Tensor, *args: Any, copy: bool = False, memory_format: Any = None, **kwargs: Any) -> Tensor:
    other = kwargs.pop("other", args[0] if args else None)
    if isinstance(other, Tensor):
        device, dtype, free = other.device, other.dtype, False
    else:
        device, dtype, free, _ = _parsed(*args, **kwargs)
    moved = _moved(value, device, not (free and value.data_ptr() in ASYNC))
    changed = moved if dtype is None or moved.dtype == dtype else moved.to(dtype)
    return changed.clone() if copy and changed is value else changed


def _pinned(value: Tensor, *_: Any) -> Tensor:
    copied = value.clone()
    ASYNC.add(copied.data_ptr())
    return copied


def _tolist(value: Tensor) -> Any:
    return _moved(value.detach(), CPU, True).tolist()


def _new_tensor(value: Tensor, data: Any, **options: Any) -> Tensor:
    made = torch.tensor(data, **{"dtype": value.dtype, **options})
    return _moved(made, value.device, True)


def _numpy(value: Tensor, *_: Any, **__: Any) -> Any:
    if isinstance(value, OnDevice):
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy the tensor first.")
    return value.numpy()


CALLS: Mapping[str, Any] = {
    "to": _to,
    "cuda": lambda value, *_, non_blocking=False, **__: _to(value, CUDA, non_blocking=non_blocking),
    "cpu": lambda value, **_: _to(value, CPU),
    "tolist": _tolist,
    "new_tensor": _new_tensor,
    "numpy": _numpy,
    "__array__": _numpy,
    "pin_memory": _pinned,
    "is_pinned": lambda value, *_: value.data_ptr() in ASYNC,
}


class _Functions(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = getattr(func, "__name__", ""), kwargs or {}
        if name in CALLS and args and isinstance(args[0], Tensor):
            with torch._C.DisableTorchFunctionSubclass():
                return CALLS[name](*args, **kwargs)
        if name in ("tensor", "as_tensor") and _is_cuda(kwargs.get("device")):
            return _moved(func(*args, **{**kwargs, "device": CPU}), CUDA, True)
        return func(*args, **kwargs)


class _Operators(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _dispatched(func, args, kwargs or {})


_parse_to, _group = torch._C._nn._parse_to, torch._C._group_tensors_by_device_and_dtype


def _parsed(*args: Any, **kwargs: Any) -> Any:
    if args and isinstance(args[0], Tensor):
        return args[0].device, args[0].dtype, False, None
    return _parse_to(*args, **kwargs)


def _grouped(lists: Any, indices: bool = False) -> Any:
    found = _group(lists, indices)
    return {(v[0][0][0].device if v[0][0][0] is not None else d, t): v for (d, t), v in found.items()}


def _type(value: Any, *more: Any) -> Any:
    if more or type(value) is not OnDevice:
        return type(value, *more)
    return nn.Parameter if getattr(value, "_is_param", False) else Tensor


@contextmanager
def standin() -> Iterator[Device]:
    """Let "cuda" be the stand-in in this context."""
    global _now
    before, _now = _now, Device()
    swapped = torch.__future__.get_swap_module_params_on_conversion()
    homes = ("torch.utils._foreach_utils", "torch.optim.optimizer")
    kinds = [importlib.import_module(home)._foreach_supported_types for home in homes]
    memory = {name: lambda *_: 80 << 30 for name in ("memory_reserved", "memory_allocated")}
    state = {"get_rng_state": lambda *_: torch.zeros(16, dtype=torch.uint8), "set_rng_state": lambda *_: None}
    calls = dict.fromkeys(("reset_peak_memory_stats", "max_memory_allocated"), _now.statistics)
    with ExitStack() as stack:
        for name, call in {**memory, **state, **calls, "init": _now.init, "_lazy_init": _now.init}.items():
            stack.enter_context(patch.object(torch.cuda, name, call))
        capturing = lambda: _now.graph is not None  # noqa: E731
        stack.enter_context(patch.object(torch.cuda, "is_current_stream_capturing", capturing))
        stack.enter_context(patch.object(torch.cuda, "mem_get_info", lambda *_: (80 << 30, 80 << 30)))
        stack.enter_context(patch.object(torch._C._nn, "_parse_to", _parsed))
        stack.enter_context(patch.object(torch._C, "_group_tensors_by_device_and_dtype", _grouped))
        for module in TYPED:
            found = importlib.import_module(f"tensoradapt.{module}")
            stack.enter_context(patch.object(found, "type", _type, create=True))
        torch.__future__.set_swap_module_params_on_conversion(True)  # parameters stay the same objects, as on a GPU
        stack.callback(torch.__future__.set_swap_module_params_on_conversion, swapped)
        for kind in kinds:
            kind.append(OnDevice)
            stack.callback(kind.remove, OnDevice)
        stack.callback(ASYNC.clear)
        stack.enter_context(_Functions())
        stack.enter_context(_Operators())
        try:
            yield _now
        finally:
            _now = before
