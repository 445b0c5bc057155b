"""Shared by the benchmarks on a real model: train and score all-MiniLM-L6-v2 on the rated sentences."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import tensoradapt as ta
from tensoradapt.runs.config import RunConfig
from tensoradapt.runs.execute import batches, encoded, load_data, predict
from tensoradapt.sweeps.frontier import rate
from tensoradapt.tasks import get, subsample
from tensoradapt.tasks.classification import head_of

MODEL, TASK = "all-minilm-l6-v2", "snippets"


@dataclass(frozen=True)
class Setting:
    """Sizes of the data, and the steps of one training."""

    steps: int = 30
    n_train: int = 2000
    n_validation: int = 300
    n_test: int = 500
    batch: int = 32

    def config(self, seed: int) -> RunConfig:
        """A configuration like those of the frontier's runs."""
        sizes = {"n_train": self.n_train, "n_validation": self.n_validation, "n_test": self.n_test}
        return RunConfig("adapter", seed, MODEL, TASK, 1e-3, self.steps, batch=self.batch, **sizes)


class Bench:
    """One seed's model and data; every ``fresh`` model is the same."""

    def __init__(self, setting: Setting, seed: int) -> None:
        self.setting, self.seed, self.config = setting, seed, setting.config(seed)

    @cached_property
    def data(self) -> Any:
        return load_data(self.config)

    def fresh(self) -> nn.Module:
        """The pretrained model with its head drawn from the seed."""
        torch.manual_seed(self.seed)
        return get(TASK).model(MODEL)

    @cached_property
    def _splits(self) -> dict[str, Any]:
        n = min(self.setting.n_validation, len(self.data.validation))
        # a subsample, not the first rows: these are sorted by label
        validation = subsample(self.data.validation, n, 0, "n_validation")
        return {"train": self.data.train, "validation": validation, "test": self.data.test}

    @cached_property
    def _rows(self) -> dict[str, Sequence[Sized]]:
        return {name: encoded(split, self.config) for name, split in self._splits.items()}

    def batches(self, model: nn.Module, order: int = 0) -> Iterator[Mapping[str, Tensor]]:
        """Shuffled batches; another ``order`` for a second training."""
        config = self.setting.config(self.seed + 1000 * order)
        return batches(model, self._rows["train"], config, "cpu")

    def fit(self, model: nn.Module, lr: float, steps: int | None = None, order: int = 0, **options: Any) -> Any:
        """Train as the frontier does, the head at its own rate."""
        torch.manual_seed(self.seed)
        options = {"head_lr": rate("head"), "heads": head_of(model), **options}
        return ta.fit(model, self.batches(model, order), lr=lr, steps=steps or self.setting.steps, **options)

    def correct(self, model: nn.Module, split: str = "test") -> np.ndarray:  # bool (n,)
        """Which examples the model has right."""
        return predict(self.data.task, model, self._rows[split], "cpu").argmax(1) == self._splits[split].labels

    def accuracy(self, model: nn.Module, split: str = "test") -> float:
        """The share of examples the model has right."""
        return float(self.correct(model, split).mean())


def read(path: Path) -> list[dict[str, str]]:
    """The rows of a record; none if there is no file."""
    if not path.exists():
        return []
    with path.open() as file:
        return list(csv.DictReader(file))


def append(path: Path, row: Mapping[str, object]) -> None:
    """Append a row to a record, with a header before the first."""
    path.parent.mkdir(exist_ok=True)
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(row), lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(row)
