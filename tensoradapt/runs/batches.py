"""Batches: a run's data encoded, drawn in the order of its seed, and predictions on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

import tensoradapt as ta
from tensoradapt.data import models
from tensoradapt.data.tasks import Data, Split, planted
from tensoradapt.data.tasks import load as load_task
from tensoradapt.runs.config import RunConfig


def encoded(split: Split, config: RunConfig) -> list[list[int]]:
    """Token ids of every example."""
    return (
        split.tokens.tolist()
        if split.tokens is not None
        else models.encoder(config.model)(split.texts or (), config.max_length)
    )


@torch.no_grad()
def predict(model: nn.Module, rows: list[list[int]], device: str, batch: int = 64) -> np.ndarray:
    """Logits, (n, n_labels); batches are of similar length, so little is computed on padding."""
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
    """Endless shuffled batches, a new order every epoch.

    Within eight shuffled batches examples are grouped by length: half the tokens of a mixed batch are padding.
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
    """A task's splits with at most the numbers asked for; small tasks give what they have."""
    if task == planted.TASK.name:
        # one training set for all seeds: the teacher's threshold, and so the test labels, follow from it
        return planted.label(load_task(task, n_train=n_train, n_test=n_test), _teacher(model))
    whole = load_task(task)
    train, test = (n and min(n, len(split)) for n, split in ((n_train, whole.train), (n_test, whole.test)))
    return load_task(task, n_train=train, n_test=test, seed=seed)


def _teacher(model_name: str) -> Callable[[np.ndarray], np.ndarray]:
    """The base model with a known rank-2 CP delta: what an adapter can learn exactly."""
    torch.manual_seed(0)
    model = models.load(model_name, planted.TASK)
    adapter = ta.attach(model, ta.plan(model, parameterization="cp", rank=2), seed=1)
    for tensor in adapter.tensors:
        nn.init.normal_(tensor.trained[tensor.network.zero.name])  # type: ignore[union-attr, operator, index, arg-type]
    model.eval()
    return lambda tokens: predict(model, tokens.tolist(), "cpu")
