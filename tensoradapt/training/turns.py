"""Let pieces of work take turns in one process: each pauses after a step and has random numbers of its own.

Work is a generator that yields at each pause and returns its result. No torch at import.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Generator, Mapping
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")
Turns = Generator[None, None, T]


def to_end(work: Turns[T]) -> T:
    """Do a piece of work without pauses."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value


def in_turns(works: Mapping[str, Turns[T]]) -> dict[str, T]:
    """Do several pieces of work, each up to its next pause in turn; return their results by name.

    Each goes on with the random numbers (of Python, numpy and torch) that it left, and begins with those that are there
    now, which are put back at the end. An exception of one closes the others.
    """
    before = random_state()
    states, results, left = dict.fromkeys(works, before), {}, dict(works)
    try:
        while left:
            for name, work in list(left.items()):
                states[name]()
                try:
                    next(work)
                except StopIteration as end:
                    results[name] = end.value
                    del left[name]
                states[name] = random_state()
    finally:
        for work in left.values():
            work.close()
        before()
    return {name: results[name] for name in works}


def random_state() -> Callable[[], None]:
    """Return a function that puts all random numbers back to their state now."""
    import torch

    python, cpu = random.getstate(), torch.get_rng_state()
    legacy = np.random.get_state()  # noqa: NPY002  # which code that prepares data may draw from
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None

    def put_back() -> None:
        random.setstate(python)
        np.random.set_state(legacy)  # noqa: NPY002
        torch.set_rng_state(cpu)
        if cuda is not None:
            torch.cuda.set_rng_state_all(cuda)

    return put_back


class Pauses:
    """A clock of how long a piece of work was paused."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def around(self, work: Turns[Any]) -> Turns[Any]:
        """Do the work with its pauses measured."""
        while True:
            try:
                next(work)
            except StopIteration as end:
                return end.value
            paused = time.perf_counter()
            yield
            self.seconds += time.perf_counter() - paused
