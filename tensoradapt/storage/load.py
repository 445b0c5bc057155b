"""load and from_pretrained: attach a saved adapter, from a folder or the hub, and restore its trained heads."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from tensoradapt.adapter import checkpoint
from tensoradapt.adapter.adapter import Adapter
from tensoradapt.adapter.sharding import ATTACH_FIRST, refuse_sharded
from tensoradapt.errors import TensorAdaptError, located
from tensoradapt.planning.plan import Plan
from tensoradapt.planning.trained_modules import trained_modules
from tensoradapt.storage import hub
from tensoradapt.surgery.attach import attach_with, base_hash
from tensoradapt.surgery.registry import original_modules


def _from_weights(saved: checkpoint.Checkpoint) -> list[dict[str, Tensor]]:
    """Saved factors that would otherwise be taken from the base weights again."""
    parts = [[f for f in group.network.factors if f.source == "base"] for group in saved.plan.groups]
    return [
        {f.name: saved.factors[f"{i}.{f.name}" if f.trainable else f"{i}.fixed.{f.name}"] for f in factors}
        for i, factors in enumerate(parts)
    ]


def unattached(path: str | Path) -> Adapter:
    """The saved adapter without a model, for what needs its updates alone; trained heads stay in their file."""
    saved = checkpoint.read(Path(path))
    adapter = Adapter(saved.plan, saved.seed, _from_weights(saved), saved.scales)
    adapter.restore(saved)
    return adapter


def head_shapes(model: nn.Module, plan: Plan) -> dict[str, tuple[int, ...]]:
    """The trained numbers of a plan's heads, in the model at hand."""
    heads = trained_modules(model, plan.train, plan.published)
    return {f"{head}.{k}": tuple(p.shape) for head, m in heads.items() for k, p in m.named_parameters()}


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
