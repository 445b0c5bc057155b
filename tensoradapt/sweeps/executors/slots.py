"""How many runs at once, on what: one for each GPU, or shares of the cores, or what a cluster is asked for."""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tensoradapt.checks import check_whole
from tensoradapt.errors import TensorAdaptError, did_you_mean
from tensoradapt.sweeps.executors.cluster_options import cluster_options
from tensoradapt.sweeps.executors.executor import Executor, Inline
from tensoradapt.sweeps.executors.local import Local, cores
from tensoradapt.sweeps.executors.ray import RayCluster
from tensoradapt.sweeps.executors.slurm import Slurm

CLUSTERS: Mapping[str, Callable[..., Executor]] = {"slurm": Slurm, "ray": RayCluster}
EXECUTORS = ("inline", "local", *CLUSTERS)


@dataclass(frozen=True)
class Slots:
    """``workers`` processes of ``threads`` threads on ``device``, each seeing one of ``gpus``.

    On a cluster ``options`` are what each run asks for, and ``workers`` may be None: as many as there is room for.
    """

    workers: int | None
    threads: int
    device: str
    gpus: Sequence[str] = ()
    options: Mapping[str, Any] = field(default_factory=dict)


def slots_for(
    executor: str, workers: int | None, device: str, asked: Mapping[str, Mapping[str, Any] | Sequence[str] | None]
) -> Slots:
    """The slots of this machine: as many as visible GPUs, or one for all cores, unless ``workers`` says otherwise.

    ``asked``: the options of each cluster. Raises TensorAdaptError for an unknown executor, a device that is not there,
    and numbers and options that will not do.
    """
    if executor not in EXECUTORS:
        raise TensorAdaptError(f"executor is {executor!r}{did_you_mean(executor, EXECUTORS)}")
    if workers is not None:
        check_whole("workers", workers)
    if executor == "inline" and workers not in (None, 1):
        raise TensorAdaptError(f"workers is {workers} for the inline executor, which has one; use executor local")
    if other := [name for name, given in asked.items() if given and name != executor]:
        raise TensorAdaptError(f"options of {other[0]} are given and the executor is {executor!r}; use {other[0]}")
    if executor in CLUSTERS:
        return _on_cluster(executor, workers, device, cluster_options(executor, asked.get(executor)))
    gpus = _gpus(device)
    n = workers or (1 if executor == "inline" else len(gpus) or 1)
    threads = int(os.environ.get("OMP_NUM_THREADS") or cores()) if executor == "inline" else max(1, cores() // n)
    # this process sees every GPU, and one of its own only its slot's
    seen = device if executor == "inline" and ":" in device else "cuda"
    return Slots(n, threads, seen if gpus else "cpu", gpus)


def _on_cluster(executor: str, workers: int | None, device: str, options: Mapping[str, Any]) -> Slots:
    """This machine need not have what the runs are computed on."""
    _check_device(device)
    if device == "cuda" and not options["gpus"]:
        raise TensorAdaptError(f"device is 'cuda' and no GPU is asked for; expected --{executor} gpus=1, or device cpu")
    on = "cuda" if options["gpus"] and device != "cpu" else "cpu"
    return Slots(workers, options["cpus"], on, (), options)


def _check_device(device: str) -> None:
    if device not in ("auto", "cpu", "cuda"):
        raise TensorAdaptError(f"device is {device!r}{did_you_mean(device, ('auto', 'cpu', 'cuda'))}")


def _gpus(device: str) -> list[str]:
    """The GPUs that may be used, all or the one of "cuda:1", as ``CUDA_VISIBLE_DEVICES`` names them."""
    device, _, index = device.partition(":") if re.fullmatch(r"cuda:\d+", device) else (device, "", "")
    _check_device(device)
    count = 0 if device == "cpu" else importlib.import_module("torch").cuda.device_count()
    if device == "cuda" and count <= int(index or 0):
        raise TensorAdaptError(
            f"device is 'cuda', and no GPU {index or 0} is visible; expected one: choose auto or cpu"
        )
    visible = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    gpus = (visible or [str(i) for i in range(count)])[:count]
    return [gpus[int(index)]] if index else gpus


def executor_for(executor: str, root: Path, slots: Slots) -> Executor:
    """The executor of that name over a folder of runs."""
    if executor == "inline":
        return Inline(root, slots.device)
    if executor in CLUSTERS:
        return CLUSTERS[executor](root, slots.device, slots.workers, slots.options)
    assert slots.workers is not None
    return Local(root, slots.device, slots.workers, slots.gpus)
