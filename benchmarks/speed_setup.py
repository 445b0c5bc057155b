"""What an adapter of `speed.py` costs besides its steps: seconds to plan, attach, save, load and switch, and bytes."""

from __future__ import annotations

import ctypes
import gc
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from speed_models import shared
from speed_rows import Row
from torch import Tensor, nn

from tensoradapt.lab.runs.provenance import peak_memory, reset_peak_memory

SECOND = "second"


def timed(call: Callable[[], Any], device: str) -> tuple[float, Any]:
    """Seconds of a call, all of whose kernels have ended, and what it returns.

    With one thread on the CPU they are the processor's, which other work on the machine does not lengthen.
    """
    clock = time.process_time if device == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    if device != "cpu":
        torch.cuda.synchronize()
    begun = clock()
    returned = call()
    if device != "cpu":
        torch.cuda.synchronize()
    return clock() - begun, returned


def spent(call: Callable[[], Any], device: str) -> float:
    """Seconds of the processor, with any number of threads; on a GPU of the clock, until all kernels have ended."""
    if device != "cpu":
        return timed(call, device)[0]
    begun = time.process_time()
    call()
    return time.process_time() - begun


def peak_of(call: Callable[[], Any], device: str) -> int:
    """How many bytes memory grows during a call, at its peak: of the process, or of the allocator on a GPU."""
    gc.collect()
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        begun = torch.cuda.memory_allocated()
        call()
        return torch.cuda.max_memory_allocated() - begun
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # what is freed goes back first, or the call would use it
    reset_peak_memory()
    begun = peak_memory()
    call()
    return peak_memory() - begun


def setup(row: Row, base: nn.Module, device: str, repeats: int) -> dict[str, float]:
    """Medians of the seconds that each ability of a row takes, and the bytes of what it adds and writes.

    ``load`` adds what was saved as a second adapter; ``use`` switches from one to the other.
    """
    each = [_once(row, base, device) for _ in range(repeats if row.abilities else 0)]
    return {what: median(of[what] for of in each) for what in each[0]} if each else {}


def _once(row: Row, base: nn.Module, device: str) -> dict[str, float]:
    took: dict[str, float] = {}

    def take(ability: str, *args: Any) -> Any:
        if ability not in row.abilities:
            return None
        took[f"{ability}_seconds"], returned = timed(partial(getattr(row, ability), *args), device)
        return returned

    plan, model = take("plan", base), shared(base)
    model = take("attach", model, plan)
    took["adapter_bytes"] = added_bytes(model, base)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "adapter"
        take("save", model, place)
        if "save" in row.abilities:
            took["saved_bytes"] = sum(file.stat().st_size for file in place.rglob("*") if file.is_file())
        take("load", model, place, SECOND)
    for name in ("default", SECOND):
        take("use", model, name)
    return took


def added_bytes(model: nn.Module, base: nn.Module) -> int:
    """Bytes of the parameters and buffers that a model has and its base has not; each storage once."""
    buffers = {name for name, _ in base.named_buffers()}
    tensors = [*model.parameters(), *(b for n, b in model.named_buffers() if not n.endswith(tuple(buffers)))]
    known = {p.untyped_storage().data_ptr() for p in base.parameters()}
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(n for place, n in storages.items() if place not in known)


def optimizer_bytes(optimizer: torch.optim.Optimizer | None) -> int:
    """Bytes of an optimizer's state."""
    states = optimizer.state.values() if optimizer else ()
    return sum(t.numel() * t.element_size() for of in states for t in of.values() if isinstance(t, Tensor))
