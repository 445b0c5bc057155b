"""Choices: what the arguments of a plan can be. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tensoradapt.checks import check_number, check_rank
from tensoradapt.errors import TensorAdaptError, did_you_mean

STARTS = ("zero", "subtract", "paper", "gradient")
RULES = ("add", "dora")
MISMATCH = ("split", "crop", "error")


def check_arguments(
    scale: Any, alpha: Any, start: str, rule: str, on_mismatch: str, rank: Any, budget: Any, tasks: Sequence[str]
) -> None:
    """Refuses what is none of the choices, and two that exclude each other."""
    for what, value, valid in (("start", start, STARTS), ("rule", rule, RULES), ("on_mismatch", on_mismatch, MISMATCH)):
        if value not in valid:
            raise TensorAdaptError(f"{what} is {value!r}{did_you_mean(value, valid)}")
    if isinstance(scale, str):
        if scale not in ("matched", "paper"):
            raise TensorAdaptError(f"scale is {scale!r}{did_you_mean(scale, ('matched', 'paper'))}, or a number")
    else:
        check_number("scale", scale, above=0)
        if alpha is not None:
            raise TensorAdaptError(
                f"both scale={scale!r} and alpha={alpha!r} were given; a number as scale is the whole multiplier"
            )
    if alpha is not None:
        check_number("alpha", alpha, above=0)
    if rank is not None and budget is not None:
        raise TensorAdaptError(f"rank={rank!r} and budget={budget!r} were given; expected exactly one of them")
    if rule == "dora" and tasks:
        raise TensorAdaptError(
            f"rule='dora' and tasks={tuple(tasks)} were given; a row has one length, and each task would need its own. "
            "Plan one adapter for each task, or with rule='add'"
        )
    if rank is not None:
        check_rank(rank)
