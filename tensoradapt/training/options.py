"""Options of training: one record that ``fit`` reads its settings from, checked in one place."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tensoradapt.errors import TensorAdaptError


@dataclass(frozen=True)
class TrainingOptions:
    """Settings of one training; ``fit`` describes each.

    Raises TensorAdaptError for rates, steps and a warm-up that no training can use.
    """

    lr: float
    steps: int
    head_lr: float | None = None  # None: lr
    warmup: float = 0.1
    clip: float = 1.0
    weight_decay: float = 0.0
    precondition: float | None = None  # None: plain gradients

    def __post_init__(self) -> None:
        for what, value in (("lr", self.lr), ("head_lr", self.lr if self.head_lr is None else self.head_lr)):
            if not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
                raise TensorAdaptError(f"{what} is {value!r}; expected a finite number above 0")
        if isinstance(self.steps, bool) or not isinstance(self.steps, int) or self.steps < 1:
            raise TensorAdaptError(f"steps is {self.steps!r}; expected a whole number of 1 or more")
        if not 0 <= self.warmup < 1:
            raise TensorAdaptError(
                f"warmup is {self.warmup!r}; expected a share of the steps, from 0 up to, not including, 1"
            )
