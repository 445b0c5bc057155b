"""Check that a device has room for an adapter, before anything is allocated."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from pathlib import Path

import torch

from tensoradapt.adapter.checkpoint import expected
from tensoradapt.adapter.factor_map import shapes as map_shapes
from tensoradapt.adapter.frozen import base_shapes
from tensoradapt.errors import TensorAdaptError
from tensoradapt.planning.plan import Plan
from tensoradapt.text import bytes_text

CPU = torch.device("cpu")


def check_memory(plan: Plan, devices: Iterable[torch.device]) -> None:
    """Raise TensorAdaptError where an adapter's numbers are more than the memory of a device can still hold."""
    bases = base_shapes(group.network for group in plan.groups)
    shapes = [*expected(plan).values(), *bases.values(), *map_shapes(plan).values()]
    needed = sum(map(math.prod, shapes)) * torch.get_default_dtype().itemsize
    for device in devices:
        if (free := free_memory(device)) is not None and needed > free:
            raise TensorAdaptError(
                f"the adapter needs {bytes_text(needed)} for its numbers, and {device} has {bytes_text(free)} free; "
                "nothing was allocated. Plan fewer sites or a lower rank, or detach adapters that are not needed"
            )


def free_memory(device: torch.device) -> int | None:
    """Return the bytes that a GPU, or this machine, can still give; None where they are not known."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    table = Path("/proc/meminfo")  # Linux has it
    if device.type != "cpu" or not table.exists():
        return None
    kilobytes = re.findall(r"^(?:MemAvailable|SwapFree): +(\d+) kB$", table.read_text(), re.MULTILINE)
    return 1024 * sum(map(int, kilobytes)) if len(kilobytes) == 2 else None
