"""Shared by the benchmarks on a real model: train and score all-MiniLM-L6-v2, by default on the rated sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import tensoradapt as ta
from tensoradapt.lab.runs.batches import batches, predict
from tensoradapt.lab.sweeps.frontier import rate
from tensoradapt.lab.tasks import DataSpec, get
from tensoradapt.lab.tasks.classification import head_of

MODEL, TASK = "all-minilm-l6-v2", "snippets"


@dataclass(frozen=True)
class Setting:
    """Sizes of the data, and the steps of one training."""

    steps: int = 30
    n_train: int = 2000
    n_validation: int = 300
    n_test: int = 500
    batch: int = 32
    max_length: int = 64

    @property
    def data(self) -> DataSpec:
        """Return the data of runs with these sizes."""
        return DataSpec(self.n_train, self.n_validation, self.n_test, self.batch, self.max_length)


class Bench:
    """One seed's model and data; every ``fresh`` model is the same."""

    def __init__(self, setting: Setting, seed: int, task: str = TASK, model: str = MODEL) -> None:
        self.setting, self.seed, self.task, self.model = setting, seed, task, model

    @cached_property
    def data(self) -> Any:
        return get(self.task).load(self.model, self.setting.data, self.seed)

    def fresh(self) -> nn.Module:
        """The pretrained model with its head drawn from the seed."""
        torch.manual_seed(self.seed)
        return get(self.task).model(self.model)

    @cached_property
    def _rows(self) -> dict[str, Sequence[Sized]]:
        encoded = (get(self.task).encode(split, self.model, self.setting.data.max_length) for split in self.data.parts)
        return dict(zip(("train", "validation", "test"), encoded, strict=True))

    def batches(self, model: nn.Module, order: int = 0) -> Iterator[Mapping[str, Tensor]]:
        """Shuffled batches; another ``order`` for a second training."""
        return batches(get(self.task), model, self._rows["train"], self.setting.batch, self.seed + 1000 * order, "cpu")

    def fit(self, model: nn.Module, lr: float, steps: int | None = None, order: int = 0, **options: Any) -> Any:
        """Train as the frontier does, the head at its own rate."""
        torch.manual_seed(self.seed)
        options = {"head_lr": rate("head"), "heads": head_of(model), **options}
        return ta.fit(model, self.batches(model, order), lr=lr, steps=steps or self.setting.steps, **options)

    def predictions(self, model: nn.Module, split: str = "test") -> np.ndarray:  # (n, 2)
        """The logits of the examples of a split."""
        return predict(self.data.task, model, self._rows[split], "cpu")

    def correct(self, model: nn.Module, split: str = "test") -> np.ndarray:  # bool (n,)
        """Which examples the model has right."""
        return self.predictions(model, split).argmax(1) == getattr(self.data, split).labels

    def score(self, model: nn.Module) -> float:
        """The task's reported metric on the test examples."""
        return float(self.data.task.evaluate(self.predictions(model), self.data.test)[self.data.task.metric.name])

    def accuracy(self, model: nn.Module, split: str = "test") -> float:
        """The share of examples the model has right."""
        return float(self.correct(model, split).mean())
