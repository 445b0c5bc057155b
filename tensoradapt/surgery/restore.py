"""restore: a saved adapter's numbers into the adapter that is attached, whole or sharded."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from tensoradapt.adapter import checkpoint
from tensoradapt.adapter.sharding import reshard
from tensoradapt.errors import TensorAdaptError
from tensoradapt.planning.record import plan_record
from tensoradapt.storage.load import head_shapes
from tensoradapt.surgery.registry import attached


def restore(model: nn.Module, path: str | Path, name: str | None = None) -> None:
    """Puts saved factors, multipliers and trained heads into the adapter that is attached to a model.

    For a training run that goes on: parameters stay the same objects, so optimizers, DDP and FSDP2 keep theirs. Of a
    model under FSDP2, every rank calls it. ``name``: which of several adapters. Raises TensorAdaptError, with nothing
    changed, while merged, for an adapter of another plan or seed, for one whose heads another adapter in use has
    replaced, and for what ``load`` refuses of a file.
    """
    adapter = attached(model, name)
    if adapter.merged:
        raise TensorAdaptError("the adapter is merged into the weights; call unmerge(model) before restoring")
    if adapter.shelf:
        raise TensorAdaptError("the model has other heads than those of this adapter; use(model, name) it first")
    saved = checkpoint.read(Path(path), lambda plan: head_shapes(model, plan))
    if plan_record(saved.plan) != plan_record(adapter.plan) or saved.seed != adapter.seed:
        raise TensorAdaptError(
            f"{path} holds an adapter of another plan or seed ({saved.plan.parameterization}, seed {saved.seed}) than "
            f"the attached one ({adapter.plan.parameterization}, seed {adapter.seed}); detach(model), then "
            "load(model, path)"
        )
    reshard(model)
    for tensor, scale in zip(adapter.factored, saved.scales, strict=True):
        tensor.scale = scale
    adapter.restore(saved)
