"""export_lora: an adapter's updates as a LoRA folder that PEFT, vLLM, TGI and llama.cpp read alike."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from tensoradapt.adapter.adapter import Adapter
from tensoradapt.adapter.sharding import refuse_sharded
from tensoradapt.errors import TensorAdaptError, did_you_mean
from tensoradapt.lora.export_report import ExportResult, LoraExport, max_lora_rank
from tensoradapt.lora.module_pairs import Made, module_pairs
from tensoradapt.lora.pair import LoraPair
from tensoradapt.lora.write_folder import bare_name, check_place, check_prefix, check_task_type, lora_config, write_lora
from tensoradapt.sites.storage_order import is_conv1d
from tensoradapt.surgery.checks import check_site
from tensoradapt.surgery.registry import attached, original_modules

DTYPES = {name: getattr(torch, name) for name in ("float32", "float16", "bfloat16", "float64")}
HEADS = ("refuse", "leave")


@torch.no_grad()
def export_lora(
    model: nn.Module,
    path: str | Path,
    *,
    adapter: Adapter | None = None,
    rank: int | None = None,
    round_up: bool = False,
    dtype: str | torch.dtype = "float32",
    task: str | None = None,
    task_type: str | None = None,
    heads: str = "refuse",
    prefix: str = "",
) -> LoraExport:
    """Writes the updates into a LoRA folder, exactly: ``B A`` is the update of each adapted module of the base model.

    Every scale is in B, all pairs have one rank R (zero-padded) and ``r = lora_alpha = R``. R is the largest of the
    modules' minimum cuts; several sites of a fused module are stacked, with equal rows of A stored once. A projection
    that is adapted in some layers has zero pairs in the others. The model is left alone; its weights are not read.

    ``adapter``: one that is not attached, such as ``detach`` returns. ``rank``: at most this one, by truncation;
    ``round_up``: zeros up to the next rank vLLM can be set to. ``task``: of an adapter with tasks. ``task_type``: as
    PEFT calls it. ``heads="leave"``: without modules trained in place and shared biases, which a LoRA cannot hold.
    An adapter that is merged is exported for the weights as they were before. ``prefix``: where this model is inside
    the one that will be served, as in ``prefix="model"`` for a bare LlamaModel in a LlamaForCausalLM; without it the
    names are those that PEFT would write for the model itself, and the report says so where the model is a bare one.

    >>> import tempfile
    >>> import tensoradapt as ta
    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> sizes = {"hidden_size": 12, "intermediate_size": 20, "num_hidden_layers": 2, "num_attention_heads": 3}
    >>> model = LlamaForCausalLM(LlamaConfig(vocab_size=30, num_key_value_heads=3, **sizes))
    >>> adapter = ta.attach(model, ta.plan(model, "layer proj : head dim : model", "cp", 4))
    >>> report = export_lora(model, tempfile.mkdtemp())
    >>> report.rank, len(report.modules), report.exact, report.max_lora_rank
    (4, 8, True, 8)

    Returns the report, with every module's errors. Raises TensorAdaptError, with nothing written, for what a LoRA
    cannot hold, numbers that are not finite or outgrow ``dtype``, and a folder with other files in it.
    """
    path, name = Path(path), str(dtype).removeprefix("torch.")
    adapter = attached(model) if adapter is None else adapter
    refuse_sharded(model, "export")
    _check(adapter, name, task, heads)
    check_task_type(task_type)
    check_prefix(prefix)
    check_place(path)
    modules = original_modules(model)
    for site in adapter.plan.sites:
        check_site(modules, site, type(model).__name__)
    made = module_pairs(adapter, modules, task, rank)
    full = max(1, *(one.pair.rank for one in made.values()))
    full = (round_up and max_lora_rank(full)) or full
    pairs = {module: _cast(module, one.pair.padded(full), name) for module, one in made.items()}
    inside = {module: f"{prefix}.{module}" if prefix else module for module in modules}
    exported = tuple(_exported(inside[module], made[module], *pairs[module]) for module in made)
    transposed = any(is_conv1d(modules[module]) for module in made)
    served = {inside[module]: pair for module, pair in pairs.items()}
    config = lora_config(model, full, served, inside.values(), transposed, task_type, own=not prefix)
    write_lora(path, config, served)
    n_bytes = sum(half.nbytes for pair in pairs.values() for half in pair)
    held_as = "" if prefix else bare_name(model)
    return LoraExport(path, full, name, exported, adapter.n_bytes, n_bytes, tuple(_besides(adapter)), held_as)


def _check(adapter: Adapter, dtype: str, task: str | None, heads: str) -> None:
    """What can be refused before any pair is made."""
    for what, value, valid in (("dtype", dtype, DTYPES), ("heads", heads, HEADS)):
        if value not in valid:
            raise TensorAdaptError(f"{what} is {value!r}{did_you_mean(value, valid)}")
    if adapter.plan.rule != "add":
        raise TensorAdaptError(
            f"the adapter has rule {adapter.plan.rule!r}, and a LoRA can only add; merge(model) and save the model"
        )
    if (found := list(_besides(adapter))) and heads != "leave":
        raise TensorAdaptError(
            f"besides its updates the adapter trains {' and '.join(found)}, and a LoRA folder that every server reads "
            "has no place for them. Save them with the model (merge(model), then its save_pretrained), or pass "
            "heads='leave' to export the updates alone"
        )
    _check_task(adapter, task)


def _check_task(adapter: Adapter, task: str | None) -> None:
    tasks = adapter.plan.tasks
    if tasks and task is None:
        raise TensorAdaptError(
            f"the adapter has tasks {', '.join(tasks)}, and a LoRA folder holds one; pass task={tasks[0]!r}"
        )
    if task is not None and not tasks:
        raise TensorAdaptError(f"task={task!r} was given, and this adapter has no tasks; leave it out")


def _besides(adapter: Adapter) -> Iterator[str]:
    """What was trained and is no update of a matrix."""
    if adapter.plan.train:
        yield f"the modules {', '.join(adapter.plan.train)}"
    if adapter.plan.biases:
        yield f"the shared biases of {', '.join(proj for proj, _ in adapter.plan.biases)}"


def _cast(module: str, pair: LoraPair, dtype: str) -> tuple[Tensor, Tensor]:
    a, b = (torch.from_numpy(np.ascontiguousarray(half)).to(DTYPES[dtype]) for half in (pair.a, pair.b))
    if not (a.isfinite().all() and b.isfinite().all()):
        largest = max(float(np.abs(half).max()) for half in (pair.a, pair.b))
        raise TensorAdaptError(
            f"the pair of module {module} has entries up to {largest:.3g}, above {dtype}'s largest number "
            f"{torch.finfo(DTYPES[dtype]).max:.3g}; export it in float32 or bfloat16"
        )
    return a, b


def _exported(module: str, made: Made, a: Tensor, b: Tensor) -> ExportResult:
    """The errors, relative to the adapter's update: of truncation, and of rounding to the dtype after it."""
    written = LoraPair(a.double().numpy(), b.double().numpy())
    whole = made.own.norm or 1.0
    return ExportResult(
        module, made.pair.rank, made.lost / whole, made.pair.padded(written.rank).rounded(written) / whole
    )
