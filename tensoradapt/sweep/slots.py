"""How many runs at once, on what: one for each GPU, or shares of the cores."""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tensoradapt.errors import TensorAdaptError, did_you_mean
from tensoradapt.sweep.executors import Executor, Inline
from tensoradapt.sweep.local import Local, cores

EXECUTORS = ("inline", "local")


@dataclass(frozen=True)
class Slots:
    """``workers`` processes of ``threads`` threads on ``device``, each seeing one of ``gpus``."""

    workers: int
    threads: int
    device: str
    gpus: Sequence[str] = ()


def slots_for(executor: str, workers: int | None, device: str) -> Slots:
    """The slots of this machine: as many as visible GPUs, or one for all cores, unless ``workers`` says otherwise.

    Raises TensorAdaptError for an unknown executor, a device that is not there, and numbers that will not do.
    """
    if executor not in EXECUTORS:
        raise TensorAdaptError(f"executor is {executor!r}{did_you_mean(executor, EXECUTORS)}")
    if workers is not None and (isinstance(workers, bool) or not isinstance(workers, int) or workers < 1):
        raise TensorAdaptError(f"workers is {workers!r}; expected a whole number of 1 or more")
    if executor == "inline" and workers not in (None, 1):
        raise TensorAdaptError(f"workers is {workers} for the inline executor, which has one; use executor local")
    gpus = _gpus(device)
    n = workers or (1 if executor == "inline" else len(gpus) or 1)
    threads = int(os.environ.get("OMP_NUM_THREADS") or cores()) if executor == "inline" else max(1, cores() // n)
    return Slots(n, threads, "cuda" if gpus else "cpu", gpus)


def _gpus(device: str) -> list[str]:
    """The GPUs that may be used, as ``CUDA_VISIBLE_DEVICES`` names them."""
    if device not in ("auto", "cpu", "cuda"):
        raise TensorAdaptError(f"device is {device!r}{did_you_mean(device, ('auto', 'cpu', 'cuda'))}")
    count = 0 if device == "cpu" else importlib.import_module("torch").cuda.device_count()
    if device == "cuda" and not count:
        raise TensorAdaptError("device is 'cuda', and no GPU is visible; expected one: choose auto or cpu")
    visible = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return (visible or [str(i) for i in range(count)])[:count]


def executor_for(executor: str, root: Path, slots: Slots) -> Executor:
    """The executor of that name over a folder of runs."""
    if executor == "inline":
        return Inline(root, slots.device)
    return Local(root, slots.device, slots.workers, slots.gpus)
