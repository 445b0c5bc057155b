"""load and from_pretrained attach a saved adapter, from a folder or the hub, and restore its trained heads."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial, reduce
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tensoradapt.adapter import checkpoint
from tensoradapt.adapter.adapter import Adapter
from tensoradapt.adapter.attachment import Attachment, class_names
from tensoradapt.adapter.sharding import ATTACH_FIRST, refuse_sharded, reshard
from tensoradapt.checks import as_path, check_arguments, flag, of_kind, optional
from tensoradapt.errors import TensorAdaptError, located
from tensoradapt.layers.stored_matrix import stored_matrices
from tensoradapt.networks.network import MADE
from tensoradapt.planning.plan import Plan
from tensoradapt.planning.record import plan_record
from tensoradapt.planning.trained_modules import has_head, trained_modules
from tensoradapt.storage import hub
from tensoradapt.surgery.attach import attach_with
from tensoradapt.surgery.base_hash import base_hash
from tensoradapt.surgery.checks import check_site
from tensoradapt.surgery.memory import CPU, check_memory
from tensoradapt.surgery.registry import attached, original_modules, registered, untouched
from tensoradapt.surgery.same_model import check_same_model, layer_left_out
from tensoradapt.surgery.transaction import transaction


def load(model: nn.Module, path: str | Path, *, strict: bool = True, name: str = "default") -> Adapter:
    """Attach a saved adapter to a base model, with its trained heads (docs/guides/checkpoints.md).

    The outputs are those of the saved model, bit for bit: numbers have the dtypes that they were saved in. Frozen ones
    that are drawn are not saved; they are cast alike, and drawn in torch's default dtype, which must be that of then.

    Args:
        model: the base model; it may have other adapters.
        path: the folder that ``adapter.save`` wrote.
        strict: refuse a base with other weights than the adapter was attached to when it was saved. Without it, a
            warning says where the model has more layers than the adapter.
        name: the adapter's name in the model; it is used alone until ``use`` says otherwise.

    Returns:
        The adapter, attached.

    Raises:
        TensorAdaptError: with the model untouched, for a missing, damaged or future file, tensors that do not fit the
            plan, a model with other matrices or heads, and what ``strict`` refuses.

    >>> import copy, tempfile
    >>> import tensoradapt as ta
    >>> from transformers import BertConfig, BertForSequenceClassification
    >>> model = BertForSequenceClassification(BertConfig(hidden_size=12, num_hidden_layers=2, num_attention_heads=3))
    >>> base, folder = copy.deepcopy(model), tempfile.mkdtemp()
    >>> ta.attach(model, "cp", rank=2).save(folder)
    >>> ta.load(base, folder).n_params
    50
    """
    check_arguments(locals(), model=of_kind(nn.Module), path=as_path, strict=flag)
    path = Path(path)
    refuse_sharded(model, "load", ATTACH_FIRST)
    saved = _read(model, path, partial(_heads_that_fit, model, path))
    matrices = stored_matrices(original_modules(model), saved.plan.sites)
    if strict and (base := base_hash(matrices)) != saved.base:
        raise TensorAdaptError(
            f"the base weights of this {type(model).__name__} (hash {base[-12:]}) are not those the adapter in {path} "
            f"was trained on ({saved.base[-12:]}); load the same base in the same dtype, or pass strict=False to "
            "attach it all the same"
        )
    if not strict and (left := layer_left_out(model, saved.plan)):
        warnings.warn(
            f"this {type(model).__name__} has {left}, which the adapter in {path} does not adapt, though it adapts "
            "such a matrix in other layers: it may be of a model with fewer layers",
            stacklevel=2,
        )
    numbers = saved.seed, factors_from_base(saved)
    with transaction(model, apart=untouched(model)) as change:
        adapter = attach_with(model, saved.plan, *numbers, scales=saved.scales, name=name)
        _cast(adapter, saved)
        adapter.restore(saved, change.write)
    _name_classes(model, adapter, saved.classes)
    return adapter


def _name_classes(model: Any, adapter: Adapter, classes: tuple[str, ...]) -> None:
    """Give the names of classes to a model whose config has none, until the adapter is taken out."""
    config: Any = getattr(model, "config", None)
    registry = registered(model)
    if not classes or registry is None or class_names(config) or getattr(config, "num_labels", 0) != len(classes):
        return
    registry.changed += [(config, name, getattr(config, name)) for name in ("id2label", "label2id")]
    config.id2label, config.label2id = dict(enumerate(classes)), {name: i for i, name in enumerate(classes)}
    adapter.attachment.origin = replace(adapter.attachment.origin, classes=classes)


def _cast(adapter: Adapter, saved: checkpoint.Checkpoint) -> None:
    """Give an adapter's numbers the dtypes that they were saved in; the drawn ones have the widest of these."""
    dtypes = [saved.factors[name].dtype for name, _ in adapter.stored()]
    adapter.to(reduce(torch.promote_types, dtypes))
    for (_, number), dtype in zip(adapter.stored(), dtypes, strict=True):
        number.data = number.data.to(dtype)


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
    """Load an adapter from a folder, or from a repository on the hub that ``push_to_hub`` wrote.

    See docs/guides/checkpoints.md. Only adapter.json, adapter.safetensors and trained/model.safetensors are downloaded,
    all of one commit, into huggingface_hub's cache.

    Args:
        model: the base model; it may have other adapters.
        source: a folder, or a repository such as me/my-adapter.
        revision: a branch, tag or commit of the repository; by default its main branch.
        strict, name: as in ``load``.
        token, endpoint, cache_dir: as huggingface_hub takes them.

    Returns:
        The adapter, attached.

    Raises:
        TensorAdaptError: with the model untouched, for what ``load`` refuses, a repository that is not there or holds
            something else, and a hub that cannot be reached.

    >>> import copy, tempfile
    >>> import tensoradapt as ta
    >>> from transformers import BertConfig, BertForSequenceClassification
    >>> model = BertForSequenceClassification(BertConfig(hidden_size=12, num_hidden_layers=2, num_attention_heads=3))
    >>> base, folder = copy.deepcopy(model), tempfile.mkdtemp()
    >>> ta.attach(model, "cp", rank=2).save(folder)
    >>> ta.from_pretrained(base, folder).n_params
    50
    """
    check_arguments(
        locals(), model=of_kind(nn.Module), source=as_path, strict=flag, cache_dir=optional(as_path), **hub.WHERE
    )
    if not Path(source).is_dir():

        def listed(path: Path) -> dict[str, int]:
            return checkpoint.files(path, lambda plan: head_shapes(model, plan))

        where = {"token": token, "endpoint": endpoint, "cache_dir": cache_dir}
        folder = hub.fetch(os.fspath(source), listed, revision, where)
        with located(f"{source} at {folder.name[:12]}"):
            return load(model, folder, strict=strict, name=name)
    if revision is not None:
        raise TensorAdaptError(f"{source} is a folder here, which has no revision {revision!r}; leave revision= out")
    return load(model, source, strict=strict, name=name)


def restore(model: nn.Module, path: str | Path, name: str | None = None) -> None:
    """Copy saved factors, multipliers and trained heads into the adapter that is attached to a model.

    For resuming a training run: parameters stay the same objects, so optimizers, DDP and FSDP2 keep theirs. Under
    FSDP2 every rank calls it (docs/guides/distributed.md).

    Args:
        model: the model with the adapter, sharded or not.
        path: the folder that ``adapter.save`` wrote.
        name: which of several adapters.

    Raises:
        TensorAdaptError: with nothing changed, while merged, for an adapter of another plan or seed, for one whose
            heads another adapter in use has replaced, and for files that ``load`` refuses.

    >>> import tempfile
    >>> import tensoradapt as ta
    >>> from transformers import BertConfig, BertForSequenceClassification
    >>> model = BertForSequenceClassification(BertConfig(hidden_size=12, num_hidden_layers=2, num_attention_heads=3))
    >>> adapter = ta.attach(model, "cp", rank=2)
    >>> folder = tempfile.mkdtemp()
    >>> adapter.save(folder)
    >>> ta.restore(model, folder)
    """
    adapter, path = attached(model, name), as_path(path, "path")
    if adapter.gate.merged:
        raise TensorAdaptError("the adapter is merged into the weights; call unmerge(model) before restoring")
    if adapter.attachment.inactive_heads:
        raise TensorAdaptError("the model has other heads than those of this adapter; use(model, name) it first")
    saved = _read(model, path, lambda plan: head_shapes(model, plan))
    if _computed(saved.plan) != _computed(adapter.plan) or saved.seed != adapter.seed:
        raise TensorAdaptError(
            f"{path} holds an adapter of another plan or seed ({saved.plan.spec.name}, seed {saved.seed}) than "
            f"the attached one ({adapter.plan.spec.name}, seed {adapter.seed}); detach(model), then "
            "load(model, path)"
        )
    reshard(model)
    with transaction(model) as change:
        adapter.restore(saved, change.write)


def _computed(plan: Plan) -> list[Any]:
    """Return what of a plan decides how its numbers are used: neither how it was asked for, nor its dropout."""
    record, asked = plan_record(plan), ("scale", "alpha", "start", "rule", "tasks", "map")
    multipliers = [plan.multiplier(group.network, member.site) for group in plan.groups for member in group.members]
    return [{**record, "spec": [record["spec"][name] for name in asked]}, multipliers]


def unattached(path: str | Path) -> Adapter:
    """Return a saved adapter without a model, for what needs its updates alone; trained heads stay in their file."""
    saved = checkpoint.read(as_path(path, "path"))
    adapter = Adapter(saved.plan, saved.seed, factors_from_base(saved), saved.scales)
    _cast(adapter, saved)
    adapter.restore(saved)
    return adapter


def factors_from_base(saved: checkpoint.Checkpoint) -> list[dict[str, Tensor]]:
    """Return for each tensor its saved factors that are not drawn: from the base weights, or given."""
    factors = [[f for f in group.network.factors if f.source not in MADE] for group in saved.plan.groups]
    return [
        {f.name: saved.factors[f"{i}.{f.name}" if f.trainable else f"{i}.fixed.{f.name}"] for f in based}
        for i, based in enumerate(factors)
    ]


def _read(model: nn.Module, path: Path, shapes: Callable[[Plan], checkpoint.Shapes]) -> checkpoint.Checkpoint:
    """Read a checkpoint; raises TensorAdaptError, with the model that is needed, where its heads have other shapes."""
    try:
        return checkpoint.read(path, shapes)
    except checkpoint.OtherHead as other:
        raise TensorAdaptError(
            f"{path} does not fit this {type(model).__name__}: {other}; {_needed(model, other)}"
        ) from None


def _needed(model: nn.Module, other: checkpoint.OtherHead) -> str:
    """Say what model has the saved head: a classifier with another number of labels, if that is all that differs."""
    labels = getattr(getattr(model, "config", None), "num_labels", None)
    if has_head(model) and other.expected[0] == labels and other.expected[1:] == other.found[1:]:
        return f"load the base with num_labels={other.found[0]}"
    return "load the base with the head that the adapter was trained with"


def _heads_that_fit(model: nn.Module, path: Path, plan: Plan) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the heads, once the plan fits model and memory: before the files with numbers are read."""
    modules = original_modules(model)
    with located(f"the adapter in {path}"):
        for site in plan.sites:
            check_site(modules, site, type(model).__name__)
        check_same_model(model, plan)
    check_memory(plan, [CPU])
    return head_shapes(model, plan)


def head_shapes(model: nn.Module, plan: Plan) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the plan's trained heads in a model, by name."""
    heads = Attachment(heads=trained_modules(model, plan.train, plan.paper))
    return {name: tuple(p.shape) for name, p in heads.head_parameters().items()}
