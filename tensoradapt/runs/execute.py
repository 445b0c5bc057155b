"""Compute one run from its config: data, model, adapter, training, predictions; all randomness is seeded."""

from __future__ import annotations

import math
import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tensoradapt.adapter.checkpoint import expected
from tensoradapt.data import models
from tensoradapt.data.tasks import Data, Split, metrics, planted, subsample
from tensoradapt.data.tasks import get as get_task
from tensoradapt.data.tasks import load as load_task
from tensoradapt.planning.build_plan import plan as build_plan
from tensoradapt.planning.plan import Plan
from tensoradapt.runs.config import RunConfig
from tensoradapt.runs.plan_run import plan_of
from tensoradapt.runs.provenance import peak_memory, reset_peak_memory
from tensoradapt.surgery.attach import attach
from tensoradapt.training.fit import fit
from tensoradapt.training.precision import autocast
from tensoradapt.training.state import TrainingState

HEADS = ("classifier", "score")


def execute(
    config: RunConfig,
    device: str,
    on_step: Callable[[int, float], None] | None = None,
    checkpoint: TrainingState | None = None,
) -> dict[str, Any]:
    """Compute a run, from a checkpoint if there is one; return the contents of its folder.

    ``on_step``: called with each step and its loss.
    """
    begun = time.perf_counter()
    reset_peak_memory()
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)
    data = load_data(config.task, config.model, config.n_train, config.n_test, config.seed)
    model, plan = prepare(config)
    model.to(device)
    train, test = (encoded(split, config) for split in (data.train, data.test))
    n_validation = config.n_validation and min(config.n_validation, len(data.validation))
    validation = subsample(data.validation, n_validation, 0, "n_validation")
    torch.manual_seed(config.seed)
    heads = head_of(model)
    fitted = fit(
        model,
        batches(train, data.train.labels, config, device),
        lr=config.lr,
        head_lr=config.head_lr,
        steps=config.steps,
        **config.training,
        heads=heads,
        on_step=on_step,
        checkpoint=checkpoint,
    )
    trained = time.perf_counter()
    with autocast(config.training.get("precision", "fp32"), device):
        scores = {
            "validation": predict(model, encoded(validation, config), device),
            "test": predict(model, test, device),
        }
    result = _result(config, data, fitted, scores, validation, plan, model, heads)
    measured = {
        "seconds": time.perf_counter() - begun,
        "evaluation_seconds": time.perf_counter() - trained,
        **_measured(fitted.seconds, device),
        "resumed_at_step": checkpoint.resumed if checkpoint else 0,
        **({"adapter_bytes": 4 * sum(map(math.prod, expected(plan).values()))} if plan else {}),
    }
    arrays = {"predictions": scores["test"], "labels": data.test.labels, "losses": np.array(fitted.losses)}
    return {"config": config.as_dict(), "result": result, "measurements": measured, "arrays": arrays}


def prepare(config: RunConfig) -> tuple[nn.Module, Plan | None]:
    """The model of a run, ready to train: head drawn from the seed, adapter attached or base frozen."""
    random.seed(config.seed)
    torch.manual_seed(config.seed)
    model = models.load(config.model, get_task(config.task))
    heads = head_of(model)
    if config.kind == "adapter":
        adapter = attach(model, plan_of(config, model, heads), seed=config.seed)
        if adapter.plan.tasks:
            adapter.select(task=config.task)
        return model, adapter.plan
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(config.kind == "full" or any(name.startswith(f"{head}.") for head in heads))
    return model, None


def head_of(model: nn.Module) -> tuple[str, ...]:
    """The names of the head of a transformers classifier."""
    return tuple(name for name, _ in model.named_children() if name in HEADS)


def _result(
    config: RunConfig, data: Data, fitted: Any, scores: Mapping[str, np.ndarray], validation: Split, plan: Plan | None,
    model: nn.Module, heads: tuple[str, ...],
) -> dict[str, Any]:  # fmt: skip
    task = data.task
    finite = all(np.isfinite(values).all() for values in scores.values())
    splits = {"validation": validation, "test": data.test}
    evaluated = {
        name: metrics.evaluate(task, scores[name], split.labels) if finite else {} for name, split in splits.items()
    }
    status, note = fitted.status, fitted.note
    if status == "finished" and not finite:
        status, note = "diverged", "predictions are not finite"
    if status == "finished" and at_chance(evaluated["test"][task.metric], data.chance, task.metric, len(data.test)):
        status = "collapsed"
        note = f"test {task.metric} {evaluated['test'][task.metric]:.4f} is within noise of chance {data.chance:.4f}"
    in_head = sum(p.numel() for n, p in model.named_parameters() if any(n.startswith(f"{head}.") for head in heads))
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    n_params = plan.n_params if plan else 0 if config.kind == "head" else trained - in_head
    return {
        "status": status,
        "note": note,
        "metric": task.metric,
        "chance": data.chance,
        "n_params": n_params,
        "n_trained_base": in_head,
        "n_train": len(data.train),
        **evaluated,
    }


def at_chance(value: float, chance: float, metric: str, n: int) -> bool:
    """Whether a score of ``n`` examples is within two standard errors of a constant answer's."""
    spread = math.sqrt(max(chance * (1 - chance), 0) / n) if metric in ("accuracy", "f1") else 1 / math.sqrt(n)
    return not value > chance + 2 * spread


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


def encoded(split: Split, config: RunConfig) -> list[list[int]]:
    """The token ids of each example."""
    if split.tokens is not None:
        return split.tokens.tolist()
    return models.encoder(config.model)(split.texts or (), config.max_length)


@torch.no_grad()
def predict(model: nn.Module, rows: list[list[int]], device: str, batch: int = 64) -> np.ndarray:
    """Logits, (n, n_labels), computed in batches of similar length, which need little padding."""
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    parts = [
        model(**collate([rows[i] for i in order[at : at + batch]], device)).logits for at in range(0, len(rows), batch)
    ]
    logits = np.empty((len(rows), parts[0].shape[-1]), dtype=np.float32)
    logits[order] = torch.cat(parts).float().cpu().numpy()
    return logits


def collate(rows: list[list[int]], device: str) -> dict[str, Tensor]:
    """Padded ids and their mask, (batch, longest)."""
    width = max(map(len, rows))
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    return {"input_ids": ids.to(device), "attention_mask": mask.to(device)}


def batches(
    rows: list[list[int]], labels: np.ndarray, config: RunConfig, device: str
) -> Iterator[Mapping[str, Tensor]]:
    """Endless batches in a new random order each epoch.

    Examples are sorted by length within eight batches, as half the tokens of a mixed batch would be padding.
    """
    rng = np.random.default_rng([config.seed, 1])
    target = torch.as_tensor(labels, dtype=torch.float32 if labels.dtype.kind == "f" else torch.int64)
    size = min(config.batch, len(rows))
    while True:
        order = rng.permutation(len(rows))
        pools = (sorted(order[at : at + 8 * size], key=lambda i: len(rows[i])) for at in range(0, len(rows), 8 * size))
        taken = [pool[at : at + size] for pool in pools for at in range(0, len(pool) - size + 1, size)]
        for i in rng.permutation(len(taken)):
            yield {**collate([rows[j] for j in taken[i]], device), "labels": target[taken[i]].to(device)}


@lru_cache(maxsize=4)
def load_data(task: str, model: str, n_train: int | None, n_test: int | None, seed: int) -> Data:
    """A task's splits with at most these numbers of examples."""
    if task == planted.TASK.name:
        # one training set for all seeds, as the teacher's threshold, and so the test labels, depend on it
        return planted.label(load_task(task, n_train=n_train, n_test=n_test), _teacher(model))
    whole = load_task(task)
    train, test = (n and min(n, len(split)) for n, split in ((n_train, whole.train), (n_test, whole.test)))
    return load_task(task, n_train=train, n_test=test, seed=seed)


def _teacher(model_name: str) -> Callable[[np.ndarray], np.ndarray]:
    """The logits of the base model with a known rank-2 CP delta, which an adapter can learn exactly."""
    torch.manual_seed(0)
    model = models.load(model_name, planted.TASK)
    adapter = attach(model, build_plan(model, parameterization="cp", rank=2), seed=1)
    for tensor in adapter.tensors:
        nn.init.normal_(tensor.trained[tensor.network.zero.name])  # type: ignore[union-attr, operator, index, arg-type]
    model.eval()
    return lambda tokens: predict(model, tokens.tolist(), "cpu")
