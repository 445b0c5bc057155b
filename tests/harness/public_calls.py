"""Every public call with arguments that are well, of which fuzzing replaces some."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import cache
from typing import Any

import pandas
import torch
from matplotlib.figure import Figure
from support.copies import made_once
from transformers import BertConfig, BertForSequenceClassification

import tensoradapt as ta
from tensoradapt import doors
from tensoradapt.adapter.factored import FactoredTensor

CONFIG = BertConfig(
    hidden_size=16, num_attention_heads=4, num_hidden_layers=2, intermediate_size=24, vocab_size=40,
    max_position_embeddings=16,
)  # fmt: skip
IDS = torch.arange(8).view(2, 4)


@made_once
def bert() -> torch.nn.Module:
    torch.manual_seed(0)
    return BertForSequenceClassification(CONFIG).eval()


def with_adapter() -> torch.nn.Module:
    model = bert()
    adapter = ta.attach(model, ta.plan(model, ": out : in", "lora", 2, train=()))
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model


def on_new(call: Callable[..., Any]) -> Callable[..., Any]:
    """The call on a model with an adapter; the next call takes that model too if this one was refused."""
    refused: list[torch.nn.Module] = []

    def fresh(**arguments: Any) -> Any:
        model = refused.pop() if refused else with_adapter()
        try:
            return call(model, **arguments)
        except ta.TensorAdaptError:
            refused.append(model)
            raise

    return fresh


@cache
def adapted() -> torch.nn.Module:
    """One model with an adapter, for calls that leave it as it is."""
    return with_adapter()


def adapter() -> ta.Adapter:
    return ta.adapters(adapted())["default"]


def taken_out(call: Callable[..., ta.Adapter]) -> Callable[..., None]:
    """A call that attaches an adapter to a model without one; it is taken out again."""
    plain = cache(bert)

    def then_detached(**arguments: Any) -> None:
        model = plain() if isinstance(arguments["model"], str) else arguments["model"]
        call(**{**arguments, "model": model})
        ta.detach(model)

    return then_detached


def compress_update(update: Any, **arguments: Any) -> Any:
    return ta.compress({SITE.name: update}, [SITE], ": out : in", **arguments)


def library() -> Any:
    updates = {name: {SITE.name: torch.ones(16, 16)} for name in "ab"}
    return ta.compress(updates, [SITE], "task : out : in", "cp", rank=2)


def dry_sweep(spec: Any, **arguments: Any) -> Any:
    return ta.sweep(spec, **{"dry_run": True, "say": lambda *_: None, "out": "runs", **arguments})


def attach(**arguments: Any) -> Any:
    model = arguments.pop("model")
    return ta.attach(bert() if isinstance(model, str) and model == "bert" else model, **arguments)


def batches() -> list[dict[str, torch.Tensor]]:
    return [{"input_ids": IDS, "labels": torch.tensor([0, 1])}] * 2


PLAN = {
    **{f.name: f.default for f in fields(ta.AdapterSpec)},
    "sites": ta.find_sites(CONFIG), "method": "lora", "layout": ": out : in", "rank": 2, "train": (),
}  # fmt: skip
SITES = {
    "model_or_config": CONFIG, "projections": "attention", "layers": None, "exclude": (), "recipe": None,
    "blocks": False, "scope": None, "modules": (),
}  # fmt: skip
ATTACH = {
    "model": "bert", "plan": ta.plan(CONFIG, ": out : in", "lora", 2, train=()), "seed": 0, "values": None,
    "batches": None, "loss": None, "name": "default",
}  # fmt: skip
FIT = {
    "batches": batches(), "lr": 1e-3, "steps": 1, "head_lr": None, "heads": (), "warmup": 0.1, "clip": 1.0,
    "weight_decay": 0.0, "loss": None, "optimizer": "adamw", "precondition": None, "orthonormal": None,
    "precision": "fp32", "reduce": None, "on_step": None, "checkpoint": None,
}  # fmt: skip
SITE = ta.find_sites(CONFIG)[0]
MODEL = adapted()
OPTIMIZER = torch.optim.AdamW(adapter().parameters())
COMPRESS = {
    "source": "lora", "sites": CONFIG, "layout": "layer proj : out : in", "method": "cp", "rank": 2,
    "max_error": None, "budget": None, "options": None, "split": None, "seed": 0, "order": "given",
    "damaged": "error",
}  # fmt: skip
EXPORT = {
    "model": MODEL, "path": "exported", "adapter": None, "rank": None, "round_up": False, "dtype": "float32",
    "task": None, "task_type": None, "heads": "refuse", "prefix": "", "target": "every", "base_model": None,
}  # fmt: skip
LOAD = {"model": "bert", "strict": True, "name": "default"}
HUB = {"revision": None, "token": None, "endpoint": None}
CARD = {"source": adapter(), "repo_id": "me/adapter", "base_model": None, "license": None, "tags": ()}
SPEC = {
    "model": "tiny-random-bert", "task": "planted", "method": ["cp", "lora"],
    "rank": 1, "reference": "head", "lr": 1e-3, "seed": 0, "steps": 2, "batch": 2, "n_train": 10,
    "n_validation": 4, "n_test": 4, "head_lr": 0.01, "precision": "bf16",
    "layout": "layer proj : out : in", "optimizer": "equal_steps", "tuning": {"seed": 1},
}  # fmt: skip
OWN = {
    "train": "data.csv", "split": {"validation": 0.2, "test": 0.3}, "seed": 0, "text": "text", "label": "label",
    "labels": ["no", "yes"], "kind": "classification", "metric": "f1", "max_length": 16,
}  # fmt: skip
SWEEP = {
    "spec": SPEC, "out": "runs", "executor": "inline", "workers": None, "device": "cpu", "stale": "keep",
    "retry_failed": False, "checkpoint_every": 25, "track": (), "dry_run": True, "say": lambda *_: None,
}  # fmt: skip
FACTORED = {
    "network": ta.plan(CONFIG, ": out : in", "lora", 2).groups[0].network, "seed": 0, "name": "0", "scale": "matched",
    "alpha": None, "bases": None, "start": "zero", "values": None,
}  # fmt: skip
TABLE = pandas.DataFrame(
    {"method": ["lora", "lora", "cp", "cp"], "n_params": [10, 20, 10, 20], "rank": [1, 2, 1, 2], "seed": [0] * 4,
     "task": ["rte"] * 4, "test": [0.5, 0.6, 0.7, 0.8]}
)  # fmt: skip
FIGURE = {
    "ax": Figure().add_subplot(), "figsize": None, "caption": False, "headline": False, "col": None, "looks": None,
}  # fmt: skip
CALLS: Mapping[str, tuple[Callable[..., Any], Mapping[str, Any]]] = {
    "plan": (ta.plan, PLAN),
    "plan of a published row": (ta.plan, {**PLAN, "method": "lorta", "paper": True, "layout": None}),
    "plan of a ring": (ta.plan, {**PLAN, "method": "tensor_ring", "layout": "layer proj : out : in"}),
    "find_sites": (ta.find_sites, SITES),
    "attach": (attach, ATTACH),
    "use": (on_new(ta.use), {"names": "default", "samples": None, "every": False}),
    "use samples": (on_new(ta.use), {"names": None, "samples": ["default", None], "every": False}),
    "merge": (on_new(ta.merge), {"keep": True}),
    "detach": (on_new(ta.detach), {"name": None}),
    "fit": (on_new(ta.fit), FIT),
    "compress": (ta.compress, COMPRESS),
    "compress a library": (
        lambda **given: ta.compress({"a": given.pop("source"), "b": given.pop("other")}, **given),
        {
            **COMPRESS,
            "layout": "task : out : in",
            "sites": [SITE],
            "source": {SITE.name: torch.ones(16, 16)},
            "other": {SITE.name: torch.ones(16, 16)},
        },
    ),
    "compress an update": (compress_update, {"update": torch.ones(16, 16), "method": "cp", "rank": 2}),
    "export_lora": (ta.export_lora, EXPORT),
    "load": (taken_out(ta.load), {**LOAD, "path": "saved"}),
    "from_pretrained": (taken_out(ta.from_pretrained), {**LOAD, **HUB, "source": "saved", "cache_dir": None}),
    "restore": (ta.restore, {"model": MODEL, "path": "saved", "name": None}),
    "save": (adapter().save, {"path": "again"}),
    "Compressed.save": (compress_update(torch.ones(16, 16), method="cp", rank=2).save, {"path": "again"}),
    "Compressed.with_adapter": (library().with_adapter, {"name": "c", "source": {SITE.name: torch.ones(16, 16)}}),
    "push_to_hub": (ta.push_to_hub, {**CARD, **HUB, "private": None, "message": "saved", "card": None}),
    "model_card": (ta.model_card, CARD),
    "unmerge": (ta.unmerge, {"model": MODEL}),
    "adapters": (ta.adapters, {"model": MODEL}),
    "print_trainable_parameters": (ta.print_trainable_parameters, {"model": MODEL}),
    "disabled": (lambda model: ta.disabled(model).__enter__(), {"model": MODEL}),
    "reduce_rank": (
        on_new(ta.reduce_rank),
        {"optimizer": None, "rank": 1, "budget": None, "energy": None, "sweeps": 1, "moments": "carry"},
    ),
    "equal_steps": (ta.equal_steps, {"optimizer": OPTIMIZER, "model": MODEL}),
    "preconditioned": (ta.preconditioned, {"optimizer": OPTIMIZER, "model": MODEL, "epsilon": 1e-6}),
    "parameter_groups": (ta.parameter_groups, {"model": MODEL, "lr": 1e-3, "head_lr": None, "heads": ()}),
    "FactoredTensor": (FactoredTensor, FACTORED),
    "register_task": (ta.register_task, {"task": "mine", "replace": True, **OWN}),
    "load_task": (ta.load_task, {"name": "data.csv", "n_train": 4, "n_test": 4, "seed": 0}),
    "load_runs": (ta.load_runs, {"root": "."}),
    "summarise": (ta.summarise, {"runs": TABLE, "cost": "n_params"}),
    "frontier": (ta.frontier, {"runs": TABLE, "cost": "n_params"}),
    "paper_table": (ta.paper_table, {"source": TABLE, "path": "table.tex", "caption": None, "label": "tab:results"}),
    "compare": (ta.compare, {"runs": TABLE, "reference": "lora", "at": "auto", "margin": 0.01}),
    "results": (ta.results, {"source": ".", "tuning": False, "where": (), "spec": None}),
    "plots.frontier": (
        ta.plots.frontier,
        {"data": TABLE, **FIGURE, "x": "n_params", "focus": None, "baseline": ("lora", 8), "names": True},
    ),
    "plots.curves": (ta.plots.curves, {"data": TABLE, **FIGURE, "x": "rank", "focus": None, "names": True}),
    "plots.differences": (
        ta.plots.differences,
        {"data": TABLE, **FIGURE, "reference": None, "at": "auto", "margin": 0.01},
    ),
    "sweep": (dry_sweep, SWEEP),
    "sweep of a specification": (lambda **spec: dry_sweep(spec), SPEC),
    "sweep on slurm": (lambda **options: dry_sweep(SPEC, executor="slurm", **options), {"slurm": {"time": 60}}),
    "sweep on ray": (lambda **options: dry_sweep(SPEC, executor="ray", ray=options), {"cpus": 1, "gpus": 0}),
}
OF_EXTRAS: Mapping[str, Mapping[str, Any]] = {
    "alignment": {"model": MODEL, "batch": batches()[0], "optimizer": None, "loss": None},
    "orthonormal": {"optimizer": OPTIMIZER, "model": MODEL, "by": "landing", "weight": 5e-3},
}
CALLS = {**CALLS, **{name: (getattr(ta, name), OF_EXTRAS[name]) for name in doors.names("names")}}
LIGHT = ("plan", "plan of a published row", "plan of a ring", "find_sites")  # their calls take no model
