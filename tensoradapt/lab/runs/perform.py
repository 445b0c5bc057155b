"""Perform a run of a sweep: claim it, compute it from where it was left, and write it once."""

from __future__ import annotations

import gc
import os
import traceback
from pathlib import Path
from typing import Any

from tensoradapt.lab.runs import kept
from tensoradapt.lab.runs.store import is_failed, is_finished, write_failure, write_run
from tensoradapt.lab.runs.trackers import Tracking
from tensoradapt.lab.runs.work_folder import WORK, Work, claim, state_key, versions

MEMORY = "out of memory"
CROWDED = "crowded"
# what CUDA's libraries say where other processes have the memory, beside torch's own error
NO_ROOM = ("CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")


def perform(root: Path, name: str, device: str, shared: bool = False) -> str:
    """Compute a run that ``Work.prepare`` has prepared.

    Returns "finished", "failed", "elsewhere" where another process computes it, or "crowded" where it had no memory on
    a device that is ``shared`` with other processes: it has not failed, and goes on from its state. An error within a
    run becomes its ``error.json``; an error in writing it is raised, as a full disk is not the run's fault.
    """
    root = Path(root)
    work = Work(root, name)
    if not work.path.is_dir():
        return _done(root, name)
    with claim(root / WORK, name) as ours:
        if not ours:
            return "elsewhere"
        if is_finished(root, name) or is_failed(root, name):
            # checked under the lock, as another process may have written it before
            work.clear()
            return _done(root, name)
        how = _compute(root, work, device, shared)
        _give_back(device)
        return how


def _done(root: Path, name: str) -> str:
    return "finished" if is_finished(root, name) else "failed" if is_failed(root, name) else "elsewhere"


def _give_back(device: str) -> None:
    """Give a GPU the memory that this process keeps for its next run, as other processes may need it now."""
    if device.startswith("cuda"):
        import torch

        gc.collect()
        torch.cuda.empty_cache()


def _compute(root: Path, work: Work, device: str, shared: bool) -> str:
    """Compute a run and return how it ended."""
    from tensoradapt.training.state import TrainingState

    config, every, track, keep = work.config()
    tracking = Tracking(track, config.name, root, config.as_dict())
    checkpoint = TrainingState(work.path / "state.safetensors", every, state_key(work.name))
    work.note("started", device=device, gpus=os.environ.get("CUDA_VISIBLE_DEVICES"), commit=versions()["commit"])
    try:
        parts = execute(config, device, tracking.on_step, checkpoint)
    except Exception as error:  # a run that fails does not stop the others
        tracking.finish({}, config.training.steps)
        work.note("failed")
        if shared and _kind(error) == MEMORY:
            return CROWDED
        record = {"kind": _kind(error), "error": str(error), "traceback": traceback.format_exc()}
        extra = {"attempts.jsonl": work.attempts()}
        write_failure(root, work.name, {**record, "config": config.as_dict(), "provenance": versions()}, extra)
        work.clear()
        return "failed"
    except BaseException:  # on an interrupt, do not wait for trackers
        tracking.leave()
        raise
    parts["measurements"]["failed_checkpoints"] = checkpoint.failures
    parts["measurements"]["begun"] = work.begun()
    result = parts["result"]
    scores = {f"{part}/{key}": value for part in ("validation", "test") for key, value in result[part].items()}
    parts["measurements"]["tracker_errors"] = tracking.finish(scores, config.training.steps)
    work.note("finished", resumed_at_step=checkpoint.resumed)
    if lost := kept.keep(root, config, result["status"], parts.pop("model", None), keep):
        parts["measurements"]["adapter_not_kept"] = lost
    arrays = parts.pop("arrays")
    write_run(root, work.name, **parts, provenance=versions(), arrays=arrays, extra={"attempts.jsonl": work.attempts()})
    if keep == "best":
        kept.keep_best(root, config)
    work.clear()
    return "finished"


def execute(*arguments: Any) -> dict[str, Any]:
    """Compute a run by ``runs.execute``, with its model.

    That module is imported here as it loads torch, and executors import this one in processes that compute nothing, or
    before they have set the number of threads.
    """
    from tensoradapt.lab.runs.execute import execution

    return execution(*arguments)


def _kind(error: Exception) -> str:
    """Return the kind of a failure; out of memory has its own, as another machine or a smaller batch may do."""
    import torch

    full = isinstance(error, MemoryError | torch.OutOfMemoryError) or any(said in str(error) for said in NO_ROOM)
    return MEMORY if full else type(error).__name__
