"""What an adapter costs: seconds of a step, to plan, attach, save, load and switch, operations, and bytes."""

from __future__ import annotations

import ctypes
import gc
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
import transformers
from random_models import shared
from speed_rows import Row
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from tensoradapt.lab.runs.provenance import peak_memory, reset_peak_memory

SECOND = "second"
DECODED = 8  # tokens of a turn
Turn = Callable[[], float]  # a measured call, in seconds


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


def seconds(call: Callable[[], Any], device: str) -> float:
    """Seconds of a call."""
    return timed(call, device)[0]


def spent(call: Callable[[], Any], device: str) -> float:
    """Seconds of the processor with any number of threads; on a GPU of the clock, until all kernels have ended."""
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


class Competitor:
    """A model with its optimizer."""

    def __init__(self, model: nn.Module, batch: Mapping[str, Tensor], device: str) -> None:
        trained = [p for p in model.parameters() if p.requires_grad]
        self.model, self.batch, self.device = model, batch, device
        self.n_params = sum(p.numel() for p in trained)
        self.optimizer = torch.optim.AdamW(trained, lr=1e-4) if trained else None

    def step(self) -> None:
        """Forward, backward and the update; without parameters the gradient of the batch alone."""
        self.model(**self.batch).last_hidden_state.square().mean().backward()
        if self.optimizer:
            self.optimizer.step()
            self.optimizer.zero_grad()
        for value in self.batch.values():
            value.grad = None

    @torch.no_grad()
    def forward(self) -> None:
        """A forward pass alone."""
        self.model(**self.batch)

    def turns(self) -> dict[str, Turn]:
        """The measured calls; causal models also decode."""
        calls: dict[str, Callable[[], None]] = {"step": self.step, "forward": self.forward}
        if hasattr(self.model.config, "num_key_value_heads"):
            calls["token"] = decoding(self.model, next(iter(self.batch.values())).detach()[:1])
        return {name: partial(seconds, call, self.device) for name, call in calls.items()}


@torch.no_grad()
def decoding(model: Any, embedded: Tensor) -> Callable[[], None]:
    """What decodes tokens one by one after a text, as ``generate`` does with a cache."""
    cache = transformers.DynamicCache(config=model.config)
    model(inputs_embeds=embedded, past_key_values=cache, use_cache=True)

    @torch.no_grad()
    def decode() -> None:
        for _ in range(DECODED):
            model(inputs_embeds=embedded[:, -1:], past_key_values=cache, use_cache=True)
        cache.crop(-DECODED)

    return decode


class _Counted(TorchDispatchMode):
    """Counts the operations of torch that compute: what a GPU would be asked to launch."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.n = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.n += not func.is_view
        return func(*args, **(kwargs or {}))


def operations_of(call: Callable[[], Any]) -> int:
    """The operations of a call, views aside."""
    with _Counted() as counted:
        call()
    return counted.n
