"""Perform one run of a sweep: claim it, compute it from where it was left, and write it once."""

from __future__ import annotations

import os
import traceback
from pathlib import Path
from typing import Any

from tensoradapt.runs.store import is_failed, is_finished, write_failure, write_run
from tensoradapt.runs.trackers import Tracking
from tensoradapt.runs.work_folder import WORK, Work, claim, state_key, versions


def perform(root: Path, name: str, device: str) -> str:
    """Compute a run that ``Work.prepare`` has prepared.

    Returns "finished", "failed", or "elsewhere" where another process computes it. An error within the run becomes its
    ``error.json``; an error in writing it is raised, as a full disk is not the run's fault.
    """
    root, work = Path(root), Work(Path(root), name)
    if not work.path.is_dir():
        return _done(root, name)
    with claim(root / WORK, name) as ours:
        if not ours:
            return "elsewhere"
        # checked under the lock, as another process may have written it before
        if is_finished(root, name) or is_failed(root, name):
            work.clear()
            return _done(root, name)
        done = _computed(root, work, device)
        work.clear()
    return done


def _done(root: Path, name: str) -> str:
    return "finished" if is_finished(root, name) else "failed" if is_failed(root, name) else "elsewhere"


def _computed(root: Path, work: Work, device: str) -> str:
    from tensoradapt.training.state import TrainingState

    config, every, track = work.config()
    tracking = Tracking(track, config.name, root, config.as_dict())
    checkpoint = TrainingState(work.path / "state.safetensors", every, state_key(work.name))
    work.note("started", device=device, gpus=os.environ.get("CUDA_VISIBLE_DEVICES"), commit=versions()["commit"])
    try:
        parts = execute(config, device, tracking.on_step, checkpoint)
    except Exception as error:  # a run that fails does not stop the others
        tracking.finish({}, config.steps)
        work.note("failed")
        record = {"kind": _kind(error), "error": str(error), "traceback": traceback.format_exc()}
        extra = {"attempts.jsonl": work.attempts()}
        write_failure(root, work.name, {**record, "config": config.as_dict(), "provenance": versions()}, extra)
        return "failed"
    except BaseException:  # on an interrupt, do not wait for trackers
        tracking.leave()
        raise
    parts["measurements"]["failed_checkpoints"] = checkpoint.failures
    result = parts["result"]
    scores = {f"{part}/{key}": value for part in ("validation", "test") for key, value in result[part].items()}
    parts["measurements"]["tracker_errors"] = tracking.finish(scores, config.steps)
    work.note("finished", resumed_at_step=checkpoint.resumed)
    arrays = parts.pop("arrays")
    write_run(root, work.name, **parts, provenance=versions(), arrays=arrays, extra={"attempts.jsonl": work.attempts()})
    return "finished"


def execute(*arguments: Any) -> dict[str, Any]:
    """Compute a run by ``runs.execute``, which is imported here: it loads torch, and executors import this module in
    processes that compute nothing, or before they have set the number of threads.
    """
    from tensoradapt.runs.execute import execute as compute

    return compute(*arguments)


def _kind(error: Exception) -> str:
    """The kind of a failure; out of memory has its own, as another machine or a smaller batch may do."""
    import torch

    return "out of memory" if isinstance(error, MemoryError | torch.OutOfMemoryError) else type(error).__name__
