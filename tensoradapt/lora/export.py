"""export_lora writes an adapter's updates as a LoRA folder that PEFT, vLLM, TGI and llama.cpp read alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tensoradapt.adapter.adapter import Adapter
from tensoradapt.adapter.sharding import refuse_sharded
from tensoradapt.checks import Check, as_path, check_arguments, dtype_of, flag, named, of_kind, one_of, optional, text
from tensoradapt.errors import TensorAdaptError, did_you_mean
from tensoradapt.lora.experts import ExpertMatrix, for_llama_cpp, for_peft, side_by_side
from tensoradapt.lora.pair import LoraPair, ModulePair, Part, module_pairs, sites_of
from tensoradapt.lora.write_folder import (
    NAMED,
    bare_name,
    check_folder,
    lora_config,
    module_path,
    task_type_known,
    write_lora,
)
from tensoradapt.networks.modes import only
from tensoradapt.sites.modules import is_conv1d
from tensoradapt.sites.site import Site
from tensoradapt.surgery.checks import check_site
from tensoradapt.surgery.registry import attached, original_modules, required
from tensoradapt.text import align

DTYPES = {name: getattr(torch, name) for name in ("float32", "float16", "bfloat16", "float64")}
HEADS = ("refuse", "leave")
TARGETS = ("every", "peft", "llama.cpp")
BANK = "tensoradapt_bank"  # where a PeftModel of the plug-in has its adapters
TURNS = (
    "llama.cpp turns the pairs of Conv1D modules ({}): there this folder is refused or, for square modules, wrong; "
    'export it with target="llama.cpp" to serve it there'
)
TURNED = "pairs of Conv1D modules are turned for llama.cpp alone: PEFT and vLLM would compute another update"
EXPERTS = {
    "peft": "pairs of experts are stacked for PEFT 0.17 and later (target_parameters): other readers were not tried",
    "llama.cpp": "pairs of single experts are named for llama.cpp alone: PEFT and vLLM have no modules of these names",
}
VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # the values of vLLM's --max-lora-rank
WITHOUT_HEAD = (
    "the model has no head, and names are those of the model alone; to serve it in one with a head, such as "
    "...ForCausalLM, call export_lora(model, path, prefix={0!r}) (command line: --prefix {0})"
)


@dataclass(frozen=True)
class ExportResult:
    """An exported module: the rank of its own pair, before padding, and the relative Frobenius errors.

    ``truncation`` is 0 for an exact export, ``rounding`` what the dtype then changed.
    """

    module: str
    rank: int
    truncation: float
    rounding: float


@dataclass(frozen=True)
class LoraExport:
    """A LoRA folder that was written, with the rank of all its pairs and the errors of each module.

    Bytes are those of the tensors. ``left_out`` lists trained parameters that are not in the folder. ``held_as`` is the
    ``prefix`` under which models with a head have this model, where it has none and was exported under its own names.
    """

    path: Path
    rank: int
    dtype: str
    modules: tuple[ExportResult, ...]
    n_bytes_native: int
    n_bytes: int
    left_out: tuple[str, ...] = ()
    held_as: str = ""
    readers: str = ""  # who reads it, where not every reader does

    @property
    def max_lora_rank(self) -> int | None:
        """The ``--max-lora-rank`` that vLLM needs for the folder; None above the largest there is."""
        return max_lora_rank(self.rank)

    @property
    def exact(self) -> bool:
        """Whether nothing was truncated."""
        return not any(module.truncation for module in self.modules)

    def lines(self) -> list[str]:
        """Return what is said of the whole folder."""
        return [
            f"LoRA of {len(self.modules)} modules in {self.path}: r = lora_alpha = {self.rank}, {self.dtype}, "
            f"{'exact but for rounding' if self.exact else 'truncated'}",
            f"{self.n_bytes_native:,} bytes native, {self.n_bytes:,} exported "
            f"({self.n_bytes / self.n_bytes_native:.3g} times)",
            f"vLLM needs --max-lora-rank {self.max_lora_rank}"
            if self.max_lora_rank
            else f"vLLM takes ranks up to {VLLM_RANKS[-1]}; export it with a smaller rank= to serve it there",
            *(f"left out: {what}" for what in self.left_out),
            *([WITHOUT_HEAD.format(self.held_as)] if self.held_as else ()),
            *([self.readers] if self.readers else ()),
        ]

    def rows(self) -> list[tuple[str, ...]]:
        """Return the table of modules, its head first."""
        rows: list[tuple[str, ...]] = [("module", "rank", "truncation error", "rounding error")]
        return rows + [(m.module, str(m.rank), f"{m.truncation:.3g}", f"{m.rounding:.3g}") for m in self.modules]

    def __str__(self) -> str:
        return "\n".join([*self.lines(), "", *align(self.rows())])


_dtype: Check = partial(dtype_of, tuple(DTYPES))
CHECKS: Mapping[str, Check] = {
    "model": of_kind(nn.Module),
    "path": as_path,
    "adapter": optional(of_kind(Adapter)),
    "round_up": flag,
    "dtype": _dtype,
    "task": optional(lambda given, where: (partial(named, text) if isinstance(given, Mapping) else text)(given, where)),
    "task_type": optional(task_type_known),
    "heads": partial(one_of, HEADS),
    "prefix": module_path,
    "target": partial(one_of, TARGETS),
    "base_model": optional(text),
}


@torch.no_grad()
def export_lora(
    model: nn.Module,
    path: str | Path,
    *,
    adapter: Adapter | None = None,
    rank: int | None = None,
    round_up: bool = False,
    dtype: str | torch.dtype = "float32",
    task: str | Mapping[str, str] | None = None,
    task_type: str | None = None,
    heads: str = "refuse",
    prefix: str = "",
    target: str = "every",
    base_model: str | None = None,
) -> LoraExport:
    """Write the updates into a LoRA folder, exactly: ``B A`` is the update of each adapted module of the base model.

    All pairs have one rank R (zero-padded), the largest of the modules' minimum cuts, ``r = lora_alpha = R``, and every
    scale is in B. Sites of a fused module become one pair, with equal rows of A stored once. A projection that is
    adapted in some layers has zero pairs in the others. A merged adapter is exported for the weights before merging.
    The model does not change, and its weights are not read.

    Args:
        model: the model that the adapter is for, or a PeftModel of a TensorConfig.
        path: a new or empty folder, or an earlier export, which is replaced.
        adapter: one that is not attached, such as ``detach`` returns; default PEFT's active one, or those in use, whose
            pairs are written one below another, times their factors of ``use``.
        rank: truncate every pair to at most this rank; default exact.
        round_up: zero-pad to the next rank that vLLM supports.
        dtype: float32, float16, bfloat16 or float64.
        task: the task to export, of an adapter with tasks; of one with several runtime modes a name for each, such as
            ``{"scene": "hall", "env": "rain"}``.
        task_type: PEFT's name of the task; default CAUSAL_LM for a causal language model, else none.
        heads: "leave" exports without trained modules and shared biases, which a LoRA cannot hold. With target "peft"
            an attached adapter's trained modules are written too, as ``modules_to_save``.
        prefix: path of this model in the one that will be served: "model" for a LlamaModel in a LlamaForCausalLM.
        target: "every" reader, "peft" or "llama.cpp" alone. These two have a place for stacked experts: PEFT 0.17 and
            later for any model's, llama.cpp for those of Mixtral and Qwen's MoE models. llama.cpp's converter also
            turns the pairs of GPT-2's Conv1D modules: A and B are written as B^T and A^T there. Models without either
            have one and the same folder.
        base_model: the base's name or path in the folder; default the one that the model knows.

    Returns:
        The report, with every module's errors.

    Raises:
        TensorAdaptError: with nothing written, for what a LoRA cannot hold, numbers that are not finite or too large
            for ``dtype``, and a folder with other files in it.

    >>> import tempfile
    >>> import tensoradapt as ta
    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> sizes = {"hidden_size": 12, "intermediate_size": 20, "num_hidden_layers": 2, "num_attention_heads": 3}
    >>> model = LlamaForCausalLM(LlamaConfig(vocab_size=30, num_key_value_heads=3, **sizes))
    >>> adapter = ta.attach(model, ta.plan(model, "layer proj : head dim : model", "cp", 4))
    >>> report = ta.export_lora(model, tempfile.mkdtemp())
    >>> report.rank, len(report.modules), report.exact, report.max_lora_rank
    (4, 8, True, 8)
    """
    check_arguments(locals(), **CHECKS)
    path = Path(path)
    name = _dtype(dtype, "dtype")
    refuse_sharded(model, "export")
    model, parts, modules, left_out = _source(model, adapter)
    exported = [part.adapter for part in parts]
    trained = _heads(model, exported) if target == "peft" and heads != "leave" else {}
    left_out = tuple(_left_out(exported, with_heads=True)) if trained else left_out
    _check(exported, task, heads, left_out)
    check_folder(path)
    experts = _experts(model, modules, sites_of(parts), target)
    pairs = module_pairs(parts, modules, task, rank, experts)
    r = max(1, *(pair.exported.rank for pair in pairs.values()))
    r = (round_up and max_lora_rank(r)) or r
    halves = {module: _cast(module, pair.exported.padded(r), name) for module, pair in pairs.items()}
    results = tuple(_result(_under(prefix, module), pair, *halves[module]) for module, pair in pairs.items())
    turned = [module for module in pairs if module in modules and is_conv1d(modules[module])]
    if target == "llama.cpp":
        halves |= {module: (halves[module][1].T, halves[module][0].T) for module in turned}
    stacks = side_by_side(modules, experts, halves) if target == "peft" else {}
    alone = {_under(prefix, module): pair for module, pair in halves.items() if not (stacks and module in experts)}
    names = {_under(prefix, module) for module in modules}
    config = lora_config(model, r, set(alone), names, bool(turned), task_type, alone=not prefix)
    if stacks:
        config["target_parameters"] = sorted({_under(prefix, matrix.parameter) for matrix in experts.values()})
    if trained:
        config["modules_to_save"] = [_under(prefix, module) for one in exported for module in one.attachment.heads]
    served = alone | {_under(prefix, module): pair for module, pair in stacks.items()}
    saved = {_under(prefix, key): value.to(DTYPES[name]) for key, value in trained.items()}
    write_lora(path, config if base_model is None else {**config, NAMED: base_model}, served, saved)
    n_bytes = sum(half.nbytes for pair in (*served.values(), tuple(saved.values())) for half in pair)
    held_as, readers = "" if prefix else bare_name(model), _readers(target, turned, bool(experts))
    n_bytes_before = sum(one.n_bytes for one in exported)
    return LoraExport(path, r, name, results, n_bytes_before, n_bytes, left_out, held_as, readers)


def _experts(
    model: Any, modules: Mapping[str, nn.Module], sites: Sequence[Site], target: str
) -> dict[str, ExpertMatrix]:
    """Return the matrices of single experts that the target has a place for, by name, once all sites are checked."""
    for site in sites:
        check_site(modules, site, type(model).__name__)
    places = {"llama.cpp": for_llama_cpp, "peft": for_peft}.get(target)
    return places(model, modules, sites) if places else {}


def _heads(model: Any, exported: Sequence[Adapter]) -> dict[str, Tensor]:
    """Return the trained modules by name; raise TensorAdaptError where they read what no folder has."""
    trained = {key: value for one in exported for key, value in one.attachment.head_tensors().items()}
    if trained and getattr(model.base_model, "_forward_hooks", None):
        raise TensorAdaptError(
            'a hook changes what the head reads, as readout = "mean" of a run sets, and a folder has none; pass '
            "heads='leave' to export the updates alone"
        )
    return trained


def _readers(target: str, turned: Sequence[str], has_experts: bool) -> str:
    """Say who reads a folder, where not every reader does."""
    if turned:
        ends = ", ".join(dict.fromkeys(module.rpartition(".")[2] for module in turned))
        return TURNED if target == "llama.cpp" else TURNS.format(ends)
    return EXPERTS[target] if has_experts else ""


def _under(prefix: str, module: str) -> str:
    """Return a module's name in the model that is served."""
    return f"{prefix}.{module}" if prefix else module


def _source(
    model: nn.Module, adapter: Adapter | None
) -> tuple[nn.Module, list[Part], dict[str, nn.Module], tuple[str, ...]]:
    """Return the base model, the adapters, the base's modules by name, and what is trained besides the updates."""
    bank: Any = getattr(getattr(model, "base_model", None), BANK, None)
    if bank is None:
        parts = _in_use(model) if adapter is None else [Part(adapter)]
        return model, parts, original_modules(model), tuple(_left_out([part.adapter for part in parts]))
    peft_model: Any = model
    active = [name for name in peft_model.base_model.active_adapters if name in bank]
    if adapter is None and len(active) != 1:
        raise TensorAdaptError(
            f"{len(active)} of the adapters {', '.join(bank)} are active, and a LoRA folder holds one; call "
            f"model.set_adapter({next(iter(bank), 'default')!r}) first, or pass adapter="
        )
    base = peft_model.get_base_model()
    name = active[0] if active else next(iter(bank))
    chosen: Adapter = bank[name] if adapter is None else adapter
    config = peft_model.peft_config[name]
    saved = [f"the modules {', '.join(config.modules_to_save)}"] if config.modules_to_save else []
    biases = [f"biases (bias={config.bias!r})"] if config.bias != "none" else []
    return base, [Part(chosen)], _unwrapped(base), (*(saved or _left_out([chosen])), *biases)


def _in_use(model: nn.Module) -> list[Part]:
    """Return the adapters in use with their factors, or else the only adapter; samples of their own have no LoRA."""
    used = [adapter for adapter in required(model).used.values() if not adapter.gate.per_sample]
    parts = [Part(adapter, float(adapter.gate.share) if adapter.gate.by_share else 1.0) for adapter in used]
    return [part for part in parts if part.share] or [Part(attached(model))]


def _unwrapped(base: nn.Module) -> dict[str, nn.Module]:
    """Return a PeftModel's modules under their names in the base model, without copies that it trains."""
    modules = {}
    for name, module in base.named_modules():
        parts = name.split(".")
        if "modules_to_save" not in parts:
            modules[".".join(part for part in parts if part not in ("base_layer", "original_module"))] = module
    return {name: module for name, module in modules.items() if name}


def _check(
    exported: Sequence[Adapter], task: str | Mapping[str, str] | None, heads: str, left_out: Sequence[str]
) -> None:
    """Raise for what a LoRA of these adapters cannot hold, before any pair is made."""
    if rules := [one.plan.spec.rule for one in exported if one.plan.spec.rule != "add"]:
        raise TensorAdaptError(
            f"the adapter has rule {rules[0]!r}, and a LoRA can only add; call "
            "ta.merge_and_unload(model) and save the model"
        )
    if left_out and heads != "leave":
        raise TensorAdaptError(
            f"besides its updates the adapter trains {' and '.join(left_out)}, and a LoRA folder that every server "
            "reads has no place for them. Save the whole model (ta.save_model(ta.merge_and_unload(model), folder)), "
            "write the modules for PEFT alone (target='peft'), or pass heads='leave' to export the updates alone"
        )
    tasks = {mode: names for one in exported for mode, names in one.plan.spec.runtime.items()}
    if tasks and not isinstance(task, Mapping) and (task is None or len(tasks) > 1):
        listed = " and ".join(f"{mode}s {', '.join(names)}" for mode, names in tasks.items())
        first = only({mode: names[0] for mode, names in tasks.items()})
        raise TensorAdaptError(f"the adapter has {listed}, and a LoRA folder holds one; pass task={first!r}")
    if isinstance(task, Mapping) and (odd := [mode for mode in task if mode not in tasks]):
        raise TensorAdaptError(f"task names {odd[0]!r}{did_you_mean(odd[0], tasks)}")
    if task is not None and not tasks:
        raise TensorAdaptError(f"task={task!r} was given, and this adapter has no tasks; leave it out")


def _left_out(exported: Sequence[Adapter], with_heads: bool = False) -> Iterator[str]:
    """Name the trained parameters that are no update of a matrix, and of no module that is written with them."""
    for plan in (one.plan for one in exported):
        if plan.train and not with_heads:
            yield f"the modules {', '.join(plan.train)}"
        if plan.biases:
            yield f"the shared biases of {', '.join(proj for proj, _ in plan.biases)}"


def _cast(module: str, pair: LoraPair, dtype: str) -> tuple[Tensor, Tensor]:
    a, b = (torch.from_numpy(np.ascontiguousarray(half)).to(DTYPES[dtype]) for half in (pair.a, pair.b))
    if not (a.isfinite().all() and b.isfinite().all()):
        largest = max(float(np.abs(half).max()) for half in (pair.a, pair.b))
        raise TensorAdaptError(
            f"the pair of module {module} has entries up to {largest:.3g}, above {dtype}'s largest number "
            f"{torch.finfo(DTYPES[dtype]).max:.3g}; export it in float32 or bfloat16"
        )
    return a, b


def _result(module: str, pair: ModulePair, a: Tensor, b: Tensor) -> ExportResult:
    """Measure the errors of truncation, and of rounding to the dtype after it, relative to the adapter's update."""
    written = LoraPair(a.double().numpy(), b.double().numpy())
    norm = pair.exact.norm or 1.0
    rounding = pair.exported.padded(written.rank).rounded(written)
    return ExportResult(module, pair.exported.rank, pair.truncation / norm, rounding / norm)


def max_lora_rank(rank: int) -> int | None:
    """Return the smallest of vLLM's settings that a rank fits in; None above all of them."""
    return next((setting for setting in VLLM_RANKS if setting >= rank), None)
