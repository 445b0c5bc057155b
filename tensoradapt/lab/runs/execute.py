"""Compute one run from its config: data, model, adapter, training, predictions; all randomness is seeded."""

from __future__ import annotations

import math
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence, Sized
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import nn

from tensoradapt.adapter.checkpoint import expected
from tensoradapt.errors import TensorAdaptError
from tensoradapt.lab.runs.batches import batches, predict
from tensoradapt.lab.runs.config import RunConfig
from tensoradapt.lab.runs.fitted_head import fit_head
from tensoradapt.lab.runs.measures import growth, measured
from tensoradapt.lab.runs.provenance import peak_memory, reset_peak_memory
from tensoradapt.lab.tasks import Data, DataSpec, Task
from tensoradapt.lab.tasks.lengths import cut
from tensoradapt.lab.tasks.readout import read_mean
from tensoradapt.lab.tasks.registry import restore
from tensoradapt.lab.tasks.splits import Split
from tensoradapt.planning.build_plan import build_plan
from tensoradapt.planning.plan import Plan
from tensoradapt.planning.spec import AdapterSpec
from tensoradapt.records import as_json
from tensoradapt.surgery.attach import attach
from tensoradapt.training.fit import FitResult, autocast, computed_in, training
from tensoradapt.training.loss_rise import rise
from tensoradapt.training.state import TrainingState

TRAINED = "without validation examples no head is fitted: it was trained in steps, and may be below what it can reach"


def execute(
    config: RunConfig,
    device: str,
    on_step: Callable[[int, float], None] | None = None,
    checkpoint: TrainingState | None = None,
) -> dict[str, Any]:
    """Compute a run, from a checkpoint if there is one; return the contents of its folder.

    ``on_step``: called with each step and its loss.
    """
    parts = execution(config, device, on_step, checkpoint)
    del parts["model"]
    return parts


def execution(
    config: RunConfig,
    device: str,
    on_step: Callable[[int, float], None] | None = None,
    checkpoint: TrainingState | None = None,
) -> dict[str, Any]:
    """Compute a run as ``execute`` does, and return its model too."""
    begun = time.perf_counter()
    _reset_peaks(device)
    data = load_data(config)
    task = data.task
    model, plan = prepare(task, config)
    model.to(device)
    train, validation, test = (task.encode(part, config.model, config.data.max_length) for part in data.parts)
    before, missed = measured(task, config, model, device, trained=False)
    torch.manual_seed(config.seed)
    parts = {"validation": validation} | ({} if config.tuning else {"test": test})
    fitted, floor = FitResult("finished", "", (), ()), None
    if config.fitted and len(validation):
        floor = fit_head(model, data, {"train": train, **parts}, config.training.precision, device)
        fitted = replace(fitted, note=floor.note)
    elif config.kind != "head" or task.heads(model):  # a frozen base without a head has nothing to train
        stream = batches(task, model, train, config.data.batch, config.seed)
        settings: dict[str, Any] = {"heads": task.heads(model), "loss": task.loss}
        settings |= {"on_step": on_step, "checkpoint": checkpoint}
        fitted = training(model, stream, config.training, **settings)
    trained = time.perf_counter()
    scores = floor.predictions if floor else _predictions(task, model, parts, config.training.precision, device)
    result = _result(config, data, fitted, scores, plan, model)
    if floor:
        result["n_trained_base"] = floor.n_params
    if found := cut(task, data.parts, (train, validation, test), config.model, config.data.max_length):
        result["cut"] = found
    after, _ = measured(task, config, model, device, trained=True) if before else ({}, "")
    result |= growth(before, after)
    trained_head = TRAINED if config.fitted and not floor else ""
    result["note"] = "; ".join(filter(None, (result["note"], missed, trained_head)))
    measurements = {
        "seconds": time.perf_counter() - begun,
        "evaluation_seconds": time.perf_counter() - trained,
        **_costs(config, fitted, device, plan),
        "resumed_at_step": checkpoint.resumed if checkpoint else 0,
    }
    arrays = _arrays(config, data, scores[config.judged], result["status"]) | {"losses": np.array(fitted.losses)}
    made = {"config": config.as_dict(), "result": result, "measurements": measurements, "arrays": arrays}
    return {**made, "model": model}


def _reset_peaks(device: str) -> None:
    reset_peak_memory()
    if device.startswith("cuda"):
        torch.cuda.init()  # the allocator of an indexed device is not there before
        torch.cuda.reset_peak_memory_stats(device)


def _predictions(
    task: Task, model: nn.Module, parts: Mapping[str, Sequence[Sized]], precision: str, device: str
) -> dict[str, np.ndarray]:
    """Return the predictions for each part by name, but for one without examples."""
    with autocast(precision, device):
        return {name: predict(task, model, part, device) for name, part in parts.items() if len(part)}


def prepare(task: Task, config: RunConfig) -> tuple[nn.Module, Plan | None]:
    """Return the model of a run, ready to train: head drawn from the seed, adapter attached or base frozen."""
    random.seed(config.seed)
    torch.manual_seed(config.seed)
    return _trainable(model_of(task, config), task, config)


def model_of(task: Task, config: RunConfig) -> nn.Module:
    """Return the model of a run as it is loaded, without an adapter."""
    model = task.model(config.model)
    return read_mean(model) if config.data.readout == "mean" else model


def _trainable(model: nn.Module, task: Task, config: RunConfig) -> tuple[nn.Module, Plan | None]:
    heads = task.heads(model)
    if config.kind == "adapter":
        adapter = attach(model, build_plan(model, config.to_plan(heads)), seed=config.seed)
        if adapter.plan.spec.tasks:
            adapter.select()  # the one value of each mode
        return model, adapter.plan
    in_head = {name for name, _ in model.named_parameters() if any(name.startswith(f"{head}.") for head in heads)}
    in_base = _trained_of_base(model, config.kind) - in_head
    if config.kind == "bitfit" and not in_base:
        raise TensorAdaptError(
            f"reference 'bitfit' trains the biases of a model, and {config.model} has none; leave it out"
        )
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in in_head or name in in_base)
    return model, None


def _trained_of_base(model: nn.Module, kind: str) -> set[str]:
    """Return the parameters that a reference trains: all, none, or the biases (Ben Zaken et al., arXiv 2106.10199)."""
    ends = {"full": "", "bitfit": "bias"}
    return {name for name, _ in model.named_parameters() if kind in ends and name.endswith(ends[kind])}


def _result(
    config: RunConfig,
    data: Data,
    fitted: FitResult,
    scores: Mapping[str, np.ndarray],
    plan: Plan | None,
    model: nn.Module,
) -> dict[str, Any]:
    """Return the contents of result.json; ``scores`` are predictions of validation and, where that counts, of test."""
    task, heads = data.task, data.task.heads(model)
    finite = all(np.isfinite(values).all() for values in scores.values())
    splits = {"validation": data.validation, "test": data.test}
    evaluated = {
        name: task.evaluate(scores[name], split) if finite and name in scores else {} for name, split in splits.items()
    }
    status, note = fitted.status, fitted.note
    if status == "finished" and not finite:
        status, note = "diverged", "predictions are not finite"
    metric, chance, part = task.metric, data.chance, config.judged
    if status == "finished" and metric.at_chance(value := evaluated[part][metric.name], chance, splits[part]):
        status = "at chance"
        why = f"{part} {metric.name} {value:.4f} is within noise of chance {chance:.4f}"
        note = "; ".join(filter(None, (note, why)))
    note = "; ".join(text for text in (note, rise(fitted.losses, _rates(config, heads))) if text)
    in_head = sum(p.numel() for n, p in model.named_parameters() if any(n.startswith(f"{head}.") for head in heads))
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    n_params = plan.n_params if plan else 0 if config.kind == "head" else trained - in_head
    return {
        "status": status,
        "note": note,
        "metric": {"name": metric.name, "low": metric.low, "high": metric.high, "chance": chance},
        "n_params": n_params,
        "n_trained_base": in_head,
        "n_train": len(data.train),
        "adapter": as_json(_resolved(plan)) if plan else None,
        **evaluated,
    }


def _resolved(plan: Plan) -> AdapterSpec:
    """Return the adapter of a plan with only those of its layouts that a matrix took."""
    layouts, taken = plan.spec.layout, {str(group.network.layout) for group in plan.groups}
    used = tuple(one for one in layouts if one in taken)
    # a layout with parts of widths, or for some projections, is written otherwise in its network
    return replace(plan.spec, layout=used) if set(used) == taken else plan.spec


def _arrays(config: RunConfig, data: Data, predicted: np.ndarray, status: str) -> dict[str, np.ndarray]:
    """Return predictions, labels and, if the metric has them, scores of the examples that count; chance if diverged."""
    split: Split = getattr(data, config.judged)
    arrays = {"predictions": predicted, "labels": split.labels}
    if examples := data.task.metric.examples:
        lost = status == "diverged"
        arrays["scores"] = np.full(len(split), data.chance) if lost else examples(predicted, split)
    return arrays


def _rates(config: RunConfig, heads: Sequence[str]) -> dict[str, float]:
    """Return the learning rates of a run under the names that notes give them, the head's first."""
    lr, head_lr = config.training.lr, config.training.head_lr
    head = {"head rate": lr if head_lr is None else head_lr} if heads else {}
    return head if config.kind == "head" else {**head, "learning rate": lr}


def _costs(config: RunConfig, fitted: FitResult, device: str, plan: Plan | None) -> dict[str, Any]:
    costs = {
        "precision": computed_in(config.training.precision, device),
        "step_seconds_median": statistics.median(fitted.seconds) if fitted.seconds else None,
        "peak_memory_bytes": peak_memory(),
        "threads": torch.get_num_threads(),
        "device": device,
    }
    if device.startswith("cuda"):
        peak, name = torch.cuda.max_memory_allocated(device), torch.cuda.get_device_name(device)
        costs |= {"peak_device_bytes": peak, "device_name": name}
    return {**costs, "adapter_bytes": 4 * sum(map(math.prod, expected(plan).values()))} if plan else costs


def load_data(config: RunConfig) -> Data:
    """Return the splits of a run's task; a few are kept, as runs that share a process often share their data."""
    return _load_data(restore(config.task, config.own), config.model, config.data, config.seed)


@lru_cache(maxsize=4)
def _load_data(task: Task, model: str, data: DataSpec, seed: int) -> Data:
    return task.load(model, data, seed)
