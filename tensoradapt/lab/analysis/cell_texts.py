"""Texts of the cells of tables that people read: by its column a number has separators, decimals and a unit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tensoradapt.lab.analysis.names import display
from tensoradapt.text import bytes_text, duration_text, plain

Write = Callable[[Any], str]


def _score(value: float) -> str:
    return f"{value:.3f}"


def _change(value: float) -> str:
    return f"{value:+.{decimals(value)}f}"


def decimals(value: float, least: int = 3) -> int:
    """Return so many decimals that a small difference is not written as 0; the least for one below 1e-6.

    >>> decimals(0.02), decimals(-0.0004), decimals(1e-9), decimals(0.04, least=1)
    (3, 4, 3, 2)
    """
    return next((n for n in range(least, 7) if round(abs(value), n)), least)


def p_text(value: float) -> str:
    """Return a p value."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _count(value: float) -> str:
    return f"{value:,.0f}"


def _seconds(value: float) -> str:
    return f"{value:,.0f} s" if value >= 10 else f"{value:.1f} s" if value >= 1 else f"{1000 * value:.3g} ms"


def _times(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _flag(value: bool) -> str:
    return "yes" if value else "no"


OF_COLUMN: Mapping[str, Write] = {
    "method": lambda value: plain(display(value)),
    "reference": lambda value: plain(display(value)),
    **dict.fromkeys(("score", "validation", "chance", "mean", "low", "high", "sd", "p_frontier"), _score),
    **dict.fromkeys(("difference", "validation_difference", "control_difference"), _change),
    "share": lambda value: f"{100 * value:.0f} %",
    **dict.fromkeys(("p", "p_holm", "p_within", "p_within_holm", "control_p_holm"), p_text),
    **dict.fromkeys(("seconds", "step_seconds_median"), _seconds),
    "seconds_left": duration_text,
    **dict.fromkeys(("adapter_bytes", "peak_memory_bytes", "peak_device_bytes"), bytes_text),
    "times_fewer": _times,
    **dict.fromkeys(("tuning", "on_frontier", "decided", "within"), _flag),
    "lr": lambda value: f"{value:g}",
}


def cell_text(column: str, value: Any) -> str:
    """Return the text of a cell; a missing value has none, and a column that is not in ``OF_COLUMN`` four digits.

    >>> [cell_text("n_params", 147456), cell_text("mean", 0.8219), cell_text("seconds", 124.2), cell_text("p", 2e-5)]
    ['147,456', '0.822', '124 s', '< 0.001']
    >>> cell_text("peak_memory_bytes", 1.18e9), cell_text("method", "lotr"), cell_text("seed", float("nan"))
    ('1.18 GB', 'LoTR', '')
    >>> [cell_text("", value) for value in (147456, 0.81234, 3e-5, True, 12345.6)]
    ['147,456', '0.8123', '3e-05', 'yes', '12,346']
    """
    if missing(value):
        return ""
    if column in OF_COLUMN:
        return OF_COLUMN[column](value)
    if isinstance(value, bool | np.bool_):
        return _flag(bool(value))
    if isinstance(value, float | np.floating):
        number = float(value)
        return _count(number) if abs(number) >= 1e4 or number.is_integer() else f"{number:.4g}"
    return _count(value) if hasattr(value, "__index__") else plain(str(value))


def missing(value: Any) -> bool:
    """Say whether a cell is empty: None, NaN or pandas' NA."""
    return value is None or type(value).__name__ in ("NAType", "NaTType") or bool(value != value)


def interval_text(row: Mapping[str, Any]) -> str:
    """Return the ends of an interval, written as what it is of; "" where there is none."""
    if missing(row["low"]):
        return ""
    write = _change if "difference" in row else _score
    return f"{write(row['low'])} to {write(row['high'])}"
