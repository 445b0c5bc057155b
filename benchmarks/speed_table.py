"""The records of `speed.py` as tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tensoradapt.text import align, bytes_text

ONCE = ("plan", "attach", "save", "load", "use")
CALLS = ("step", "forward", "token")
Cells = list[tuple[str, ...]]


def of_steps(record: Mapping[str, Any]) -> Cells:
    """What is paid in each step: ratios to the frozen model with their quartiles, operations, memory."""
    calls = [call for call in CALLS if call in record["frozen_seconds"]]
    counted = record.get("instructions")
    head = ("", "parameters", *(text for call in calls for text in (call, "quartiles")), "operations", "memory")
    own = f"{record['frozen_operations']:,}", bytes_text(record["frozen_peak_bytes"])
    rows = [(*head, "instructions")] if counted else [head]
    rows += [
        ("frozen", "0", *["1.00", ""] * len(calls), *own, *([f"{counted['frozen'] / 1e6:,.0f} M"] if counted else []))
    ]
    for name, of in record["competitors"].items():
        cells = [f(of[call]) for call in calls for f in (_middle, _quartiles)]
        cells += [f"{of['operations'] - record['frozen_operations']:+,}", bytes_text(of["step_peak_bytes"])]
        if counted:
            cells.append(f"{counted[name] / counted['frozen']:.2f}" if name in counted else "")
        rows.append((name, f"{of['n_params']:,}", *cells))
    return rows


def of_setup(record: Mapping[str, Any]) -> Cells:
    """What is paid once: milliseconds, and bytes of what is held, saved and kept by the optimizer."""
    rows = [("", *(f"{what}, ms" for what in ONCE), "held", "saved", "optimizer")]
    for name, of in record["competitors"].items():
        if ", " not in name:  # else a row that was measured without a saving
            times = [_milliseconds(of.get(f"{what}_seconds")) for what in ONCE]
            held = [_bytes(of.get(f"{what}_bytes")) for what in ("adapter", "saved", "optimizer")]
            rows.append((name, *times, *held))
    return rows


def lines(record: Mapping[str, Any]) -> Iterator[str]:
    """Both tables as lines of a terminal, and what was refused."""
    yield from align(of_steps(record))
    yield from align(of_setup(record))
    yield from (f"refused: {name}: {why[:100]}" for name, why in record["refused"].items())


def _middle(values: Mapping[str, float]) -> str:
    return f"{values['median']:.2f}"


def _quartiles(values: Mapping[str, float]) -> str:
    return f"{values['low']:.2f} to {values['high']:.2f}"


def _milliseconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{1000 * seconds:,.0f}" if seconds >= 0.01 else f"{1000 * seconds:.2g}"


def _bytes(n: float | None) -> str:
    return "" if n is None else f"{n:,.0f} B" if n < 1e4 else f"{n / 1e3:,.0f} kB" if n < 1e6 else bytes_text(n)
