"""Compute one run from its config: data, model, adapter, training, predictions; all randomness is seeded."""

from __future__ import annotations

import json
import math
import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tensoradapt.adapter.checkpoint import expected
from tensoradapt.metrics.metric import Metric
from tensoradapt.planning.plan import Plan
from tensoradapt.runs.config import RunConfig
from tensoradapt.runs.plan_run import plan_of
from tensoradapt.runs.provenance import peak_memory, reset_peak_memory
from tensoradapt.surgery.attach import attach
from tensoradapt.surgery.shared_base import SharedBase
from tensoradapt.tasks import Data, Split, Task, subsample
from tensoradapt.tasks.registry import restore
from tensoradapt.training.fit import FitResult, autocast, training
from tensoradapt.training.loss_rise import rise
from tensoradapt.training.options import TrainingOptions
from tensoradapt.training.state import TrainingState
from tensoradapt.training.turns import Pauses, Turns, to_end

EVALUATED = 64  # examples in a batch of predictions


def execute(
    config: RunConfig,
    device: str,
    on_step: Callable[[int, float], None] | None = None,
    checkpoint: TrainingState | None = None,
) -> dict[str, Any]:
    """Compute a run, from a checkpoint if there is one; return the contents of its folder.

    ``on_step``: called with each step and its loss.
    """
    return to_end(execution(config, device, on_step, checkpoint))


def execution(
    config: RunConfig,
    device: str,
    on_step: Callable[[int, float], None] | None = None,
    checkpoint: TrainingState | None = None,
    base: SharedBase | None = None,
) -> Turns[dict[str, Any]]:
    """``execute`` as work that pauses after each step; ``base`` is that of the runs that take turns with it."""
    begun, pauses = time.perf_counter(), Pauses()
    reset_peak_memory()
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)
    data = load_data(config)
    task = data.task
    model, plan = prepare(config, base)
    model.to(device)
    train, test = (encoded(split, config) for split in (data.train, data.test))
    n_validation = config.n_validation and min(config.n_validation, len(data.validation))
    validation = subsample(data.validation, n_validation, 0, "n_validation")
    torch.manual_seed(config.seed)
    heads = task.heads(model)
    options = TrainingOptions(lr=config.lr, head_lr=config.head_lr, steps=config.steps, **config.training)
    fitted = FitResult("finished", "", (), ())
    if config.kind != "head" or heads:  # a frozen base without a head has nothing to train
        stream = batches(model, train, config, device)
        steps = training(model, stream, options, loss=task.loss, heads=heads, on_step=on_step, checkpoint=checkpoint)
        fitted = yield from pauses.around(steps)
    trained = time.perf_counter()
    with autocast(config.training.get("precision", "fp32"), device):
        scores = {
            "validation": predict(task, model, encoded(validation, config), device),
            "test": predict(task, model, test, device),
        }
    result = _result(config, data, fitted, scores, validation, plan, model, heads)
    measured = {
        "seconds": time.perf_counter() - begun - pauses.seconds,
        "evaluation_seconds": time.perf_counter() - trained,
        **_measured(fitted.seconds, device),
        "resumed_at_step": checkpoint.resumed if checkpoint else 0,
        **({"adapter_bytes": 4 * sum(map(math.prod, expected(plan).values()))} if plan else {}),
    }
    arrays = {"predictions": scores["test"], "labels": data.test.labels, "losses": np.array(fitted.losses)}
    if task.metric.examples:
        arrays["scores"] = _examples(task.metric, scores["test"], data, result["status"])
    return {"config": config.as_dict(), "result": result, "measurements": measured, "arrays": arrays}


def prepare(config: RunConfig, base: SharedBase | None = None) -> tuple[nn.Module, Plan | None]:
    """The model of a run, ready to train: head drawn from the seed, adapter attached or base frozen.

    ``base``: of the runs in this process, whose frozen weights are in memory once.
    """
    random.seed(config.seed)
    torch.manual_seed(config.seed)
    task = restore(config.task, config.data)
    if base is None:
        return _trainable(task.model(config.model), task, config)
    drawn = (config.model, config.task, json.dumps(config.data, sort_keys=True), config.seed)
    model, plan = _trainable(base.model(drawn, lambda: task.model(config.model)), task, config)
    base.separate(model)
    return model, plan


def _trainable(model: nn.Module, task: Task, config: RunConfig) -> tuple[nn.Module, Plan | None]:
    heads = task.heads(model)
    if config.kind == "adapter":
        adapter = attach(model, plan_of(config, model, heads), seed=config.seed)
        if adapter.plan.spec.tasks:
            adapter.select(task=config.task)
        return model, adapter.plan
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(config.kind == "full" or any(name.startswith(f"{head}.") for head in heads))
    return model, None


def _result(
    config: RunConfig, data: Data, fitted: Any, scores: Mapping[str, np.ndarray], validation: Split, plan: Plan | None,
    model: nn.Module, heads: tuple[str, ...],
) -> dict[str, Any]:  # fmt: skip
    task = data.task
    finite = all(np.isfinite(values).all() for values in scores.values())
    splits = {"validation": validation, "test": data.test}
    evaluated = {name: task.evaluate(scores[name], split) if finite else {} for name, split in splits.items()}
    status, note = fitted.status, fitted.note
    if status == "finished" and not finite:
        status, note = "diverged", "predictions are not finite"
    metric, chance = task.metric, data.chance
    if status == "finished" and metric.at_chance(value := evaluated["test"][metric.name], chance, data.test):
        status, note = "collapsed", f"test {metric.name} {value:.4f} is within noise of chance {chance:.4f}"
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
        **evaluated,
    }


def _examples(metric: Metric, stored: np.ndarray, data: Data, status: str) -> np.ndarray:
    """What each test example contributes to the reported metric, (n_test,); of a diverged run chance throughout."""
    if status == "diverged":
        return np.full(len(data.test), data.chance)
    assert metric.examples is not None
    return metric.examples(stored, data.test)


def _rates(config: RunConfig, heads: Sequence[str]) -> dict[str, float]:
    """The learning rates of a run by what they are called, the head's first."""
    head = {"head rate": config.lr if config.head_lr is None else config.head_lr} if heads else {}
    return head if config.kind == "head" else {**head, "learning rate": config.lr}


def _measured(seconds: tuple[float, ...], device: str) -> dict[str, Any]:
    measured = {
        "step_seconds_median": statistics.median(seconds) if seconds else None,
        "peak_memory_bytes": peak_memory(),
        "threads": torch.get_num_threads(),
        "device": device,
    }
    if device.startswith("cuda"):
        peak, name = torch.cuda.max_memory_allocated(device), torch.cuda.get_device_name(device)
        measured |= {"peak_device_bytes": peak, "device_name": name}
    return measured


def encoded(split: Split, config: RunConfig) -> Sequence[Sized]:
    """The examples of a split as the task encodes them for the run's model."""
    return restore(config.task, config.data).encode(split, config.model, config.max_length)


@torch.no_grad()
def predict(task: Task, model: nn.Module, examples: Sequence[Sized], device: str) -> np.ndarray:
    """What the task stores of each example, (n, ...), from batches of similar length, which need little padding."""
    order = sorted(range(len(examples)), key=lambda i: len(examples[i]))
    pools = [order[at : at + EVALUATED] for at in range(0, len(order), EVALUATED)]
    parts = [task.predict(model, task.collate([examples[i] for i in pool], model, device)) for pool in pools]
    predictions = np.empty((len(order), *parts[0].shape[1:]), dtype=np.float32)
    predictions[order] = torch.cat(parts).float().cpu().numpy()
    return predictions


def batches(
    model: nn.Module, examples: Sequence[Sized], config: RunConfig, device: str
) -> Iterator[Mapping[str, Tensor]]:
    """Endless batches of the run's task in a new random order each epoch.

    Examples are sorted by length within eight batches, as half the tokens of a mixed batch would be padding.
    """
    task, rng = restore(config.task, config.data), np.random.default_rng([config.seed, 1])
    size, n = min(config.batch, len(examples)), len(examples)
    while True:
        order = rng.permutation(n)
        pools = (sorted(order[at : at + 8 * size], key=lambda i: len(examples[i])) for at in range(0, n, 8 * size))
        taken = [pool[at : at + size] for pool in pools for at in range(0, len(pool) - size + 1, size)]
        for i in rng.permutation(len(taken)):
            yield task.collate([examples[j] for j in taken[i]], model, device)


def load_data(config: RunConfig) -> Data:
    """The splits of a run's task, with at most the numbers of examples that the run asks for."""
    task = restore(config.task, config.data)
    return _load_data(task, config.model, config.n_train, config.n_test, config.seed, config.max_length)


@lru_cache(maxsize=4)
def _load_data(task: Task, model: str, n_train: int | None, n_test: int | None, seed: int, max_length: int) -> Data:
    return task.load_for(model, n_train, n_test, seed, max_length)
