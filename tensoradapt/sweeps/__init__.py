"""Sweeps: a specification becomes run ids, an executor runs them, each leaves one folder in the run store."""

from __future__ import annotations

import importlib
from typing import Any


def sweep(spec: Any, out: Any, **options: Any) -> Any:
    """Runs what a specification (a TOML file, or a mapping with its keys) asks for and the folder ``out`` lacks.

    Returns a ``SweepResult``: how many runs there are, finished and failed. Options: those of
    ``tensoradapt.sweeps.run_sweep.run_sweep``, such as ``workers=2``, ``executor="inline"`` and ``dry_run=True``.
    Raises TensorAdaptError before the first run for what will not do.
    """
    return importlib.import_module("tensoradapt.sweeps.run_sweep").run_sweep(spec, out, **options)
