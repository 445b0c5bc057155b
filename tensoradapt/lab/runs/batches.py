"""The batches of a run: those that it is trained on, and those that its predictions are made of.

They are made on the CPU. A device gets each through pinned memory while it still computes the one before, so that no
batch is waited for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Sized

import numpy as np
import torch
from torch import Tensor, nn

from tensoradapt.lab.tasks import Task
from tensoradapt.surgery.moved_batch import moved

EVALUATED = 64  # examples in a batch of predictions
# on a device that waits for launches, at most; there no batch of more than EVALUATED has more tokens
MOST, TOKENS = 512, 1 << 16


def batches(
    task: Task, model: nn.Module, examples: Sequence[Sized], batch: int, seed: int, device: str = "cpu"
) -> Iterator[Mapping[str, Tensor]]:
    """Yield batches of the run's task without end, in a new random order each epoch.

    Examples are sorted by length within eight batches, as half the tokens of a mixed batch would be padding. ``fit``
    moves those on the CPU ahead; another device has each copied when it is asked for.
    """
    rng = np.random.default_rng([seed, 1])
    size, n = min(batch, len(examples)), len(examples)
    while True:
        order = rng.permutation(n)
        pools = (sorted(order[at : at + 8 * size], key=lambda i: len(examples[i])) for at in range(0, n, 8 * size))
        taken = [pool[at : at + size] for pool in pools for at in range(0, len(pool) - size + 1, size)]
        for i in rng.permutation(len(taken)):
            yield task.collate([examples[j] for j in taken[i]], model, device)


@torch.no_grad()
def predict(task: Task, model: nn.Module, examples: Sequence[Sized], device: str) -> np.ndarray:
    """Return what the task stores of each example, (n, ...), from batches of similar length to need little padding.

    A device is waited for once, at the end, unless the task or its model looks at a number itself.
    """
    pools = list(_pools([len(example) for example in examples], torch.device(device)))
    parts = [part for pool in pools for part in _parts(task, model, [examples[i] for i in pool], device)]
    predictions = np.empty((len(examples), *parts[0].shape[1:]), dtype=np.float32)
    predictions[[i for pool in pools for i in pool]] = torch.cat(parts).float().cpu().numpy()
    return predictions


def _pools(lengths: Sequence[int], device: torch.device) -> Iterator[list[int]]:
    """Yield the places of examples in batches, shortest first; on a GPU large ones, as each waits for its launches."""
    order, at = sorted(range(len(lengths)), key=lengths.__getitem__), 0
    while at < len(order):
        n = EVALUATED if device.type == "cpu" else MOST
        while n > EVALUATED and len(order[at : at + n]) * lengths[order[at : at + n][-1]] > TOKENS:
            n //= 2
        yield order[at : at + n]
        at += n


def _parts(task: Task, model: nn.Module, examples: Sequence[Sized], device: str) -> list[Tensor]:
    """Return the predictions for a batch, in parts: halves where a device has no memory for a large one."""
    try:
        return [task.predict(model, moved(task.collate(examples, model, "cpu"), torch.device(device)))]
    except torch.OutOfMemoryError:
        if len(examples) <= EVALUATED:
            raise
    torch.cuda.empty_cache()
    half = len(examples) // 2
    return [part for few in (examples[:half], examples[half:]) for part in _parts(task, model, few, device)]
