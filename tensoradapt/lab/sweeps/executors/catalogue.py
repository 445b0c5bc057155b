"""The executors by name, and how many runs each computes at once on what."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from tensoradapt import doors
from tensoradapt.checks import one_entering, one_of, shown, whole
from tensoradapt.errors import TensorAdaptError, did_you_mean
from tensoradapt.lab.sweeps.executors.executor import Executor, Inline, Local, Slots
from tensoradapt.lab.sweeps.executors.options import read_options

BUILT_IN: Mapping[str, type[Executor]] = {"inline": Inline, "local": Local}
CLUSTERS = doors.names("executors")
DEVICES = ("auto", "cpu", "cuda")


def named(executor: str) -> type[Executor]:
    """Return the executor of a name; raise TensorAdaptError for an unknown one."""
    name = one_entering("executors", tuple(BUILT_IN), executor, "executor")
    found: type[Executor] = BUILT_IN[name] if name in BUILT_IN else doors.get("executors", name)
    return found


def slots_for(
    executor: str, workers: int | None, device: str, asked: Mapping[str, Mapping[str, Any] | Sequence[str] | None]
) -> Slots:
    """Return the slots of this machine: as many as visible GPUs, or one for all cores, or ``workers`` of them.

    ``asked``: the options of each cluster. Raises TensorAdaptError for an unknown executor, a missing device, and
    numbers and options out of range.
    """
    chosen = named(executor)
    if workers is not None:
        workers = whole(workers, "workers")
    if executor == "inline" and workers not in (None, 1):
        raise TensorAdaptError(f"workers is {workers} for the inline executor, which has one; use executor local")
    for name, given in asked.items():
        if given is not None and name != executor:
            raise TensorAdaptError(f"options of {name} are given and the executor is {executor!r}; use {name}")
    if chosen.OPTIONS:
        options = read_options(executor, chosen.OPTIONS, asked.get(executor))
        return _on_cluster(executor, workers, device, options)
    gpus = _gpus(device)
    n = workers or (1 if executor == "inline" else len(gpus) or 1)
    threads = exported_threads() or cores() if executor == "inline" else local_threads(n)
    # this process sees every GPU, and one of its own only its slot's
    seen = device if executor == "inline" and ":" in device else "cuda"
    here = [device] if ":" in device else [f"cuda:{i}" for i in range(len(gpus))]
    return Slots(n, threads, seen if gpus else "cpu", gpus, here=here if gpus else ())


def _on_cluster(executor: str, workers: int | None, device: str, options: Mapping[str, Any]) -> Slots:
    """Return the slots of a cluster; this machine need not have the devices of its nodes."""
    one_of(DEVICES, device, "device")
    if device == "cuda" and not options["gpus"]:
        raise TensorAdaptError(f"device is 'cuda' and no GPU is asked for; expected --{executor} gpus=1, or device cpu")
    on = "cuda" if options["gpus"] and device != "cpu" else "cpu"
    return Slots(workers, options["cpus"], on, (), options)


def _gpus(device: str) -> list[str]:
    """Return the GPUs that may be used, all or the one of "cuda:1", as ``CUDA_VISIBLE_DEVICES`` names them."""
    kind, _, index = device.partition(":") if re.fullmatch(r"cuda:\d{1,4}", device) else (device, "", "")
    if kind not in DEVICES:
        raise TensorAdaptError(
            f"device is {shown(device)}{did_you_mean(device, DEVICES)} (or one GPU, such as cuda:1); runs compute on "
            "no other kind of device"
        )
    if kind == "cpu":
        return []
    import torch

    count = torch.cuda.device_count()
    if kind == "cuda" and count <= int(index or 0):
        seen = ", ".join(f"cuda:{i}" for i in range(count)) or "no GPU"
        raise TensorAdaptError(
            f"device is {device!r}, and torch sees {seen}; expected one of them, or choose auto or cpu"
        )
    visible = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    gpus = (visible or [str(i) for i in range(count)])[:count]
    return [gpus[int(index)]] if index else gpus


def local_threads(n: int) -> int:
    """Return the threads of each of ``n`` processes: an equal share of the cores, and no more than were exported."""
    share = max(1, cores() // n)
    return min(share, exported_threads() or share)


def exported_threads() -> int | None:
    """Return what ``OMP_NUM_THREADS`` says of the outermost level; None where it says no number."""
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(first) if re.fullmatch(r"\d{1,6}", first) and int(first) else None


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
