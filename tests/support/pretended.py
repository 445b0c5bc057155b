"""Sweeps whose runs are not trained: they end at once, with scores that a function gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

from support.sweeping import TINY
from support.synthetic_runs import metric_document

import tensoradapt as ta
from tensoradapt.lab.runs import perform
from tensoradapt.lab.runs.config import RunConfig

Score = Callable[[RunConfig], float]
HOW: dict[str, Any] = {"executor": "inline", "device": "cpu", "probe": False}


def left_by(score: Score) -> Callable[..., dict[str, Any]]:
    """What stands for the computation of a run, whose score it is given."""

    def execute(config: RunConfig, *arguments: object) -> dict[str, Any]:
        found = {"accuracy": score(config)}
        result = {
            "status": "finished",
            "metric": metric_document(),
            "n_params": 9 + len(str(config.method)),
            "note": "",
        }
        parts = {"result": {**result, "validation": found, "test": found}, "measurements": {}, "arrays": {}}
        return {"config": config.as_dict(), **parts}

    return execute


def sweep(out: Path, score: Score = lambda config: 0.7 + 0.01 * config.seed % 0.1, **changes: Any) -> list[str]:
    """Runs a tiny sweep into a folder without training; returns its lines."""
    said: list[str] = []
    given = {**TINY, "rank": 1, "seed": [0, 1], **changes}
    with patch("os.fsync"), patch.object(perform, "execute", left_by(score)):
        ta.sweep(given, out, say=said.append, **HOW)
    return said
