"""Training: the settings of a training, declared once. No torch.

``fit`` writes the same names and defaults in its signature; runs and sweeps read them from the fields.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

from tensoradapt import checks
from tensoradapt.checks import is_number, shown
from tensoradapt.errors import TensorAdaptError
from tensoradapt.records import check_fields, needed, value

OPTIMIZERS = ("adamw", "equal_steps")
HELD = 1e38  # by float32, in which optimizers compute
PRECISIONS = ("fp32", "bf16", "auto")


def _held(given: Any, where: str) -> float:
    """Return a number above zero that float32 can hold."""
    checks.check_number(where, given, above=0)
    if given > HELD:
        raise TensorAdaptError(f"{where} is {given:g}; expected a number that float32 can hold, up to {HELD:g}")
    return float(given)


def _warmup(given: Any, where: str) -> float:
    if not is_number(given) or not 0 <= given < 1:
        raise TensorAdaptError(
            f"{where} is {shown(given)}; expected a share of the steps, from 0 up to, not including, 1"
        )
    return float(given)


def _from_zero(given: Any, where: str) -> float:
    if not is_number(given) or given < 0:
        raise TensorAdaptError(f"{where} is {shown(given)}; expected a number from 0")
    return float(given)


@dataclass(frozen=True)
class Training:
    """The settings of one training, as ``fit`` takes them.

    Raises TensorAdaptError for rates, steps and a warm-up that no training can use.
    """

    lr: float = field(
        metadata=needed(
            _held, "learning rate of all but the heads", former=("learning_rate", "learning_rates", "adapter_lr")
        )
    )
    steps: int = field(
        metadata=needed(checks.whole, "number of optimizer steps", former=("max_steps", "n_steps", "num_steps"))
    )
    head_lr: float | None = value(
        _held,
        "learning rate of the heads, such as the classifier; by default lr",
        former=("head_learning_rate", "classifier_lr"),
    )
    optimizer: str = value(
        partial(checks.one_of, OPTIMIZERS), "adamw, or equal_steps: its steps rescaled by equal_steps", "adamw"
    )
    warmup: float = value(_warmup, "share of the steps in which the rates rise", 0.1, former=("warmup_ratio",))
    clip: float = value(_held, "largest norm of the gradients", 1.0, former=("max_grad_norm", "gradient_clip"))
    weight_decay: float = value(_from_zero, "weight decay of AdamW", 0.0)
    precondition: float | None = value(_held, "epsilon of preconditioned; by default plain gradients")
    orthonormal: str | None = value(
        partial(checks.one_entering, "steps", ()),
        "a rule of steps that keeps factors orthonormal, landing or retraction; by default free ones",
    )
    precision: str = value(
        partial(checks.precision_of, PRECISIONS),
        "fp32; bf16: the model computes in bfloat16, its parameters stay fp32; or auto: bf16 where a device has units",
        "fp32",
        former=("dtype", "torch_dtype", "mixed_precision"),
    )

    def __post_init__(self) -> None:
        check_fields(self)
