"""Settings of an adapter's run beside its method and size: projections, scale, optimizer and layout."""

from __future__ import annotations

from collections.abc import Iterable

from tensoradapt.checks import is_number
from tensoradapt.runs.row import SETUP as SETUP
from tensoradapt.runs.store import Run


def setup(run: Run) -> dict[str, str | None]:
    """Return the values of ``SETUP`` of a run, as text; None where they mean nothing, as for full fine-tuning."""
    texts = {key: None if run.row[key] is None else str(run.row[key]) for key in SETUP}
    if texts["scale"] is not None and run.row["alpha"] is not None:
        alpha = run.row["alpha"]
        texts["scale"] += f", alpha {f'{alpha:g}' if is_number(alpha) else alpha}"
    return texts


def unequal(runs: Iterable[Run]) -> dict[str, dict[str, list[str]]]:
    """Return the settings in ``SETUP`` that differ between the adapters: each value with its methods, by name."""
    found: dict[str, dict[str, set[str]]] = {key: {} for key in SETUP}
    for run in runs:
        if run.row["kind"] == "adapter":
            for key, value in setup(run).items():
                found[key].setdefault(value or "not stated", set()).add(run.row["method"])
    return {key: {v: sorted(of[v]) for v in sorted(of)} for key, of in found.items() if len(of) > 1}
