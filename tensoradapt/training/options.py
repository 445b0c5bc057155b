"""Options of training: one record that ``fit`` reads its settings from, checked in one place."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from tensoradapt.checks import check_number, check_whole
from tensoradapt.errors import TensorAdaptError, did_you_mean

OPTIMIZERS = ("adamw", "equal_steps")
PRECISIONS = ("fp32", "bf16")


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
    optimizer: str = "adamw"
    precondition: float | None = None  # None: plain gradients
    precision: str = "fp32"

    def __post_init__(self) -> None:
        for what, value in (("lr", self.lr), ("head_lr", self.lr if self.head_lr is None else self.head_lr)):
            check_number(what, value, above=0)
        check_whole("steps", self.steps)
        check_number("clip", self.clip, above=0)
        for what, name, names in (
            ("optimizer", self.optimizer, OPTIMIZERS),
            ("precision", self.precision, PRECISIONS),
        ):
            if name not in names:
                raise TensorAdaptError(f"{what} is {name!r}{did_you_mean(name, names)}")
        if not 0 <= self.warmup < 1:
            raise TensorAdaptError(
                f"warmup is {self.warmup!r}; expected a share of the steps, from 0 up to, not including, 1"
            )


def autocast(precision: str, device: torch.device | str) -> torch.autocast:
    """The context that a model computes in: "bf16" forms matrix products in bfloat16, "fp32" changes nothing."""
    return torch.autocast(torch.device(device).type, torch.bfloat16, enabled=precision == "bf16")
