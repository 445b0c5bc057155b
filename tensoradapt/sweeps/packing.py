"""How many runs share a GPU: processes where its memory has room for several, turns in one where it has not.

A process that trains a small model leaves most of a GPU idle, as one thread of the CPU cannot launch kernels fast
enough. Several processes launch at once; runs that take turns in one do not, and save memory and loading alone. So
processes come first, and runs take turns where a second process has no room.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from tensoradapt.sweeps.cost import Cost
from tensoradapt.sweeps.executors.catalogue import cores, local_threads
from tensoradapt.sweeps.executors.executor import Slots
from tensoradapt.text import bytes_text, count_text

PROCESSES, TURNS = 8, 8  # on a GPU at most, unless more were asked for
CORES = 2  # for a process: one launches, the other makes its batches and serves the rest of the machine
CONTEXT = 1 << 30  # bytes of a GPU that a process has before it computes: its context, kernels and workspaces
# bytes for each trained number of a run that waits for its turn: value, gradient and two moments, and as much again for
# what is frozen beside them
WAITING = 2 * 4 * 4


@dataclass(frozen=True)
class Asked:
    """The runs of a sweep and what was asked for: workers, None for what fits, and how many runs take turns.

    ``n_params``: how many numbers the largest adapter has.
    """

    runs: int
    workers: int | None
    pack: int
    n_params: int = 0


def packed(slots: Slots, asked: Asked, cost: Cost) -> tuple[Slots, int, str]:
    """Return the slots of this machine's GPUs, how many runs take turns in a process, and a line that says why.

    Nothing is changed, and nothing said, without GPUs, and where what was asked for has room.
    """
    if not slots.gpus or slots.options or not slots.here:
        return slots, asked.pack, ""
    where = ("each of " if len(slots.here) > 1 else "") + ", ".join(slots.here)
    by_cores = max(1, cores() // (CORES * len(slots.gpus)))
    given = asked.workers or min(PROCESSES, by_cores) * len(slots.gpus)
    wanted = math.ceil(min(given, asked.runs) / len(slots.gpus)) or 1
    if cost.memory is None:
        if asked.workers or wanted == 1:
            return slots, asked.pack, ""
        return slots, asked.pack, f"{where}: one run at a time, as none was measured; give --workers, or let it probe"
    need, free = cost.memory + CONTEXT, min(map(_free, slots.here))
    fit = max(1, free // need)
    n, turns = min(wanted, fit), _turns(asked, cost, free, min(wanted, fit), alone=fit == 1 < wanted)
    facts = f"a run needs about {bytes_text(need)} of {bytes_text(free)} that are free, {cost.how}"
    if n < wanted:
        facts = f"there is no room for {wanted} processes: {facts}"
    elif turns < asked.pack:
        facts = f"there is no room for {asked.pack} in turns: {facts}"
    elif asked.workers:
        return slots, turns, ""
    else:
        facts += f", and {count_text(cores(), 'core')} serve {by_cores} at once"
    workers = asked.workers if asked.workers and n == wanted else n * len(slots.gpus)
    made = slots if workers == slots.workers else replace(slots, workers=workers, threads=local_threads(workers))
    return made, turns, f"{where}: {_how(n, turns)}; {facts}"


def _turns(asked: Asked, cost: Cost, free: int, processes: int, alone: bool) -> int:
    """Return how many runs of a process take turns: as was asked, or where it is ``alone`` as many as have room."""
    memory = cost.memory or 0
    waiting = max(1, WAITING * (asked.n_params + cost.in_head))
    room = 1 + max(0, free // processes - memory - CONTEXT) // waiting
    wanted = asked.pack if asked.pack > 1 or asked.workers or not alone else min(TURNS, asked.runs)
    return min(wanted, room)


def _how(processes: int, turns: int) -> str:
    if turns > 1 and processes > 1:
        return f"{processes} processes at once, in each up to {turns} runs that take turns over one base"
    if turns > 1:
        return f"up to {turns} runs take turns in one process over one base"
    return "one run at a time" if processes == 1 else f"{processes} runs at once, a process each"


def _free(device: str) -> int:
    """Return the bytes of a GPU that processes can still get."""
    import torch

    free: int = torch.cuda.mem_get_info(device)[0]
    return free
