"""Options of training are one record that ``fit`` reads its settings from, checked in one place. No torch."""

from __future__ import annotations

from dataclasses import dataclass

from tensoradapt.checks import LARGEST, check_number, check_whole, is_number, one_of, shown
from tensoradapt.errors import TensorAdaptError

OPTIMIZERS = ("adamw", "equal_steps")
HELD = 1e38  # float32, in which optimizers compute, holds numbers up to here
PRECISIONS = ("fp32", "bf16")


@dataclass(frozen=True)
class TrainingOptions:
    """The settings of one training; ``fit`` describes each.

    Raises TensorAdaptError for rates, steps and a warm-up that no training can use.
    """

    lr: float
    steps: int
    head_lr: float | None = None  # None: lr
    warmup: float = 0.1
    clip: float = 1.0
    weight_decay: float = 0.0
    optimizer: str = "adamw"
    precondition: float | None = None  # None: plain gradients
    precision: str = "fp32"

    def __post_init__(self) -> None:
        for what, value in (
            ("lr", self.lr),
            ("head_lr", self.lr if self.head_lr is None else self.head_lr),
            ("clip", self.clip),
            ("precondition", 1 if self.precondition is None else self.precondition),
        ):
            check_number(what, value, above=0)
            if value > HELD:
                raise TensorAdaptError(f"{what} is {value:g}; expected a number that float32 can hold, up to {HELD:g}")
        check_whole("steps", self.steps, 1, LARGEST)
        one_of(OPTIMIZERS, self.optimizer, "optimizer")
        one_of(PRECISIONS, self.precision, "precision")
        if not is_number(self.warmup) or not 0 <= self.warmup < 1:
            raise TensorAdaptError(
                f"warmup is {shown(self.warmup)}; expected a share of the steps, from 0 up to, not including, 1"
            )
        if not is_number(self.weight_decay) or self.weight_decay < 0:
            raise TensorAdaptError(f"weight_decay is {shown(self.weight_decay)}; expected a number from 0")
