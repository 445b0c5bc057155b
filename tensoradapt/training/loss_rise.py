"""Tell whether the loss rose to a multiple of its first value, which says that a learning rate is too high."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from tensoradapt.text import count_text

TIMES = 3.0  # times the first loss; trainings that learned well stay below 1.5 (benchmarks/records/head_rates.csv)
TOGETHER = 3  # the median of so many steps must be as high, as one batch may be an odd one
LESS = 10.0  # the next rate to try is so many times smaller


def rise(losses: Sequence[float], rates: Mapping[str, float]) -> str:
    """Say that the loss rose, and which rates to try; return an empty text where it did not.

    Args:
        losses: the loss of each step, the first before anything was trained.
        rates: the learning rates of the training by their names, the likeliest cause first.

    >>> rise([2.4, 9.0, 40.0, 78.0, 60.0], {"head rate": 0.06})
    'loss rose from 2.4 to 78 in 3 steps: head rate 0.06 is too high; try 0.006'
    >>> rise([0.7, 0.9, 2.5, 0.6, 0.5], {"head rate": 0.06})
    ''
    """
    n = min(TOGETHER, len(losses) - 1)
    medians = [statistics.median(losses[i : i + n]) for i in range(1, len(losses) - n + 1)] if n > 0 else []
    if not medians or not max(medians) > TIMES * losses[0] > 0:
        return ""
    top = max(losses)
    when = count_text(losses.index(top), "step")
    named = " or ".join(f"{name} {rate:g}" for name, rate in rates.items())
    lower = ", then ".join(f"{rate / LESS:g}" for rate in rates.values())
    return f"loss rose from {losses[0]:.2g} to {top:.3g} in {when}: {named} is too high; try {lower}"
