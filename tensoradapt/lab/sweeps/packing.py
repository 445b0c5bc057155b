"""How many runs share a GPU: a process each, as many as its memory and this machine's cores have room for.

A process that trains a small model leaves most of a GPU idle, as one thread of the CPU cannot launch kernels fast
enough; several processes launch at once.
"""

from __future__ import annotations

import math
from dataclasses import replace

from tensoradapt.lab.sweeps.cost import Cost
from tensoradapt.lab.sweeps.executors.catalogue import cores, local_threads
from tensoradapt.lab.sweeps.executors.executor import Slots
from tensoradapt.text import bytes_text, count_text

PROCESSES = 8  # on a GPU at most, unless more were asked for
CORES = 2  # for a process: one launches, the other makes its batches and serves the rest of the machine
CONTEXT = 1 << 30  # bytes of a GPU that a process has before it computes: its context, kernels and workspaces


def packed(slots: Slots, runs: int, workers: int | None, cost: Cost) -> tuple[Slots, str]:
    """Return the slots of this machine's GPUs for so many runs, and a line that says why.

    ``workers``: what was asked for; None for what fits. Nothing is changed, and nothing said, without GPUs, and where
    what was asked for has room.
    """
    if not slots.gpus or slots.options or not slots.here:
        return slots, ""
    where = ("each of " if len(slots.here) > 1 else "") + ", ".join(slots.here)
    by_cores = max(1, cores() // (CORES * len(slots.gpus)))
    given = workers or min(PROCESSES, by_cores) * len(slots.gpus)
    wanted = math.ceil(min(given, runs) / len(slots.gpus)) or 1
    if cost.memory is None:
        if workers or wanted == 1:
            return slots, ""
        return slots, f"{where}: one run at a time, as none was measured; give --workers, or let it probe"
    need, free = cost.memory + CONTEXT, min(map(_free, slots.here))
    n = min(wanted, max(1, free // need))
    facts = f"a run needs about {bytes_text(need)} of {bytes_text(free)} that are free, {cost.how}"
    if n < wanted:
        facts = f"there is no room for {wanted} processes: {facts}"
    elif workers:
        return slots, ""
    else:
        facts += f", and {count_text(cores(), 'core')} serve {by_cores} at once"
    all_ = workers if workers and n == wanted else n * len(slots.gpus)
    made = slots if all_ == slots.workers else replace(slots, workers=all_, threads=local_threads(all_))
    return made, f"{where}: {'one run at a time' if n == 1 else f'{n} runs at once, a process each'}; {facts}"


def _free(device: str) -> int:
    """Return the bytes of a GPU that processes can still get."""
    import torch

    free: int = torch.cuda.mem_get_info(device)[0]
    return free
