"""Adapters that runs leave behind: ``adapters/<cell>/<run>`` beside the runs, where a cell's runs differ by seed alone.

An adapter is written before its run, so that a run that is there has its adapter. Nothing of a result depends on it: a
disk that is full costs the adapter, and the run says why.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tensoradapt.errors import TensorAdaptError
from tensoradapt.lab.runs.config import RunConfig
from tensoradapt.lab.runs.store import ADAPTERS, is_finished, read_documents

if TYPE_CHECKING:
    from torch import nn

KEEP = ("best", "all", "none")  # the best run on validation of each method and size; every run; none


def path_of(root: Path, config: RunConfig) -> Path:
    """Return where a run's adapter is kept."""
    return Path(root) / ADAPTERS / replace(config, seed=0).id / config.id


def keep(root: Path, config: RunConfig, status: str, model: nn.Module, how: str) -> str:
    """Save the adapter of a run that is reported; return why it cannot be, or ""."""
    if how == "none" or config.kind != "adapter" or config.tuning or status == "diverged":
        return ""
    from tensoradapt.surgery.registry import attached

    path = path_of(root, config)
    try:
        attached(model).save(path)
    except (TensorAdaptError, OSError) as error:
        shutil.rmtree(path, ignore_errors=True)
        return str(error)
    return ""


def keep_best(root: Path, config: RunConfig) -> None:
    """Remove the kept adapters of a run's cell but that of the run with the best score on validation."""
    scores = {}
    for path in sorted(path_of(root, config).parent.glob("*")):
        if is_finished(root, path.name):  # another is still being written
            with suppress(TensorAdaptError):  # a run that was changed is no reason to lose another
                scores[path] = _validation(read_documents(Path(root) / path.name, ("result",))["result"])
    for path in scores:
        if path != max(scores, key=lambda path: scores[path]):
            shutil.rmtree(path, ignore_errors=True)


def _validation(result: Mapping[str, Any]) -> float:
    value = result["validation"].get(result["metric"]["name"])
    return float("-inf") if value is None else value
