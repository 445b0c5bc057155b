"""load and from_pretrained: attach a saved adapter, from a folder or the hub, and restore its trained heads."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from tensoradapt.adapter import checkpoint
from tensoradapt.adapter.adapter import Adapter
from tensoradapt.adapter.sharding import ATTACH_FIRST, refuse_sharded, reshard
from tensoradapt.errors import TensorAdaptError, located
from tensoradapt.planning.record import plan_record
from tensoradapt.storage import hub
from tensoradapt.storage.saved import _from_weights, head_shapes
from tensoradapt.surgery.attach import attach_with
from tensoradapt.surgery.base_weights import base_hash
from tensoradapt.surgery.registry import attached, original_modules


def load(model: nn.Module, path: str | Path, *, strict: bool = True, name: str = "default") -> Adapter:
    """The saved adapter, attached to a base model, with its trained heads: the saved model's outputs, bit for bit.

    ``name``: what it is to be called in the model, which may have other adapters; it is used alone then.
    Raises TensorAdaptError, with the model untouched, for a missing, damaged or future file, tensors that do not fit
    the plan, and (``strict``) a base with other weights than the adapter was attached to when it was saved.
    """
    path = Path(path)
    refuse_sharded(model, "load", ATTACH_FIRST)
    saved = checkpoint.read(path, lambda plan: head_shapes(model, plan))
    if strict and (found := base_hash(original_modules(model), saved.plan)) != saved.base:
        raise TensorAdaptError(
            f"the base weights of this {type(model).__name__} (hash {found[:12]}) are not those the adapter in "
            f"{path} was trained on "
            f"({saved.base[:12]}); load the same base in the same dtype, or pass strict=False to attach it all the same"
        )
    dropouts = saved.dropout, saved.rank_dropout
    adapter = attach_with(model, saved.plan, saved.seed, dropouts, _from_weights(saved), scales=saved.scales, name=name)
    adapter.restore(saved)
    return adapter


def from_pretrained(
    model: nn.Module,
    source: str | Path,
    *,
    revision: str | None = None,
    strict: bool = True,
    name: str = "default",
    token: str | bool | None = None,
    endpoint: str | None = None,
    cache_dir: str | Path | None = None,
) -> Adapter:
    """``load``, from a folder or from a repository on the hub that ``push_to_hub`` wrote.

    Of a repository adapter.json, adapter.safetensors and trained/model.safetensors are downloaded, all of one commit,
    into huggingface_hub's cache, and nothing else. ``revision``: a branch, tag or commit. ``token``, ``endpoint`` and
    ``cache_dir``: as huggingface_hub takes them; ``strict`` and ``name``: as ``load`` does. Raises TensorAdaptError,
    with the model untouched, for what ``load`` refuses, a repository that is not there or holds something else, and a
    hub that cannot be reached.
    """
    if not Path(source).is_dir():

        def listed(path: Path) -> dict[str, int]:
            return checkpoint.files(path, lambda plan: head_shapes(model, plan))

        where = {"token": token, "endpoint": endpoint, "cache_dir": cache_dir}
        found = hub.fetch(str(source), listed, revision, where)
        with located(f"{source} at {found.name[:12]}"):
            return load(model, found, strict=strict, name=name)
    if revision is not None:
        raise TensorAdaptError(f"{source} is a folder here, which has no revision {revision!r}; leave revision= out")
    return load(model, source, strict=strict, name=name)


def restore(model: nn.Module, path: str | Path, name: str | None = None) -> None:
    """Puts saved factors, multipliers and trained heads into the adapter that is attached to a model.

    For a training run that goes on: parameters stay the same objects, so optimizers, DDP and FSDP2 keep theirs. Of a
    model under FSDP2, every rank calls it. ``name``: which of several adapters. Raises TensorAdaptError, with nothing
    changed, while merged, for an adapter of another plan or seed, for one whose heads another adapter in use has
    replaced, and for what ``load`` refuses of a file.
    """
    adapter = attached(model, name)
    if adapter.gate.merged:
        raise TensorAdaptError("the adapter is merged into the weights; call unmerge(model) before restoring")
    if adapter.attachment.inactive_heads:
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
