"""The course of a run: its steps, its clock, and the entries of its metrics as PEFT's comparison has them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Step:
    """One optimizer step: loss (nats a token), tokens with endings, rows, seconds, and bytes of memory after it."""

    loss: float
    tokens: int
    rows: int
    seconds: float
    allocated: int
    reserved: int


@dataclass
class Course:
    """What was done so far; the clock starts when it is made, and stands still for validations."""

    eval_steps: int
    steps: list[Step] = field(default_factory=list)
    metrics: list[dict[str, Any]] = field(default_factory=list)
    started: float = field(default_factory=time.perf_counter)
    validating: float = 0.0  # seconds

    def elapsed(self) -> float:
        """Return the seconds since the start."""
        return time.perf_counter() - self.started

    def train_time(self) -> float:
        """Return the seconds without validations; general text and the test are in them, as in PEFT's."""
        return self.elapsed() - self.validating

    def add_validation(self, accuracy: float, seconds: float) -> dict[str, Any]:
        """Add the entry of a validation, with means over the steps since the one before, and return it."""
        self.validating += seconds
        last = self.steps[-self.eval_steps :]
        trained = sum(step.seconds for step in last)
        entry = {
            "step": len(self.steps),
            "valid accuracy": accuracy,
            "train loss": mean([step.loss for step in last]),
            "train samples": sum(step.rows for step in self.steps),
            "train time": trained,
            "eval time": seconds,
            "tokens / sec": sum(step.tokens for step in last) / trained,
            "mem allocated avg": mean([step.allocated for step in last]),
            "mem reserved avg": mean([step.reserved for step in last]),
            "elapsed time": self.elapsed(),
        }
        self.metrics.append(entry)
        return entry

    def add_test(self, accuracy: float, forgetting: float) -> dict[str, Any]:
        """Add the entry of the test, the last one, and return it; forgetting is in nats a token, above 0 for a loss."""
        entry = {
            "step": len(self.steps),
            "test accuracy": accuracy,
            "train loss": mean([step.loss for step in self.steps[-self.eval_steps :]]),
            "train samples": sum(step.rows for step in self.steps),
            "train total tokens": sum(step.tokens for step in self.steps),
            "forgetting": forgetting,
        }
        self.metrics.append(entry)
        return entry


def mean(values: Sequence[float]) -> float:
    """Return the mean of numbers."""
    return sum(values) / len(values)
