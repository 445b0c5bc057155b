"""Pairs of answers of which one is preferred, trained by direct preference optimisation against the frozen base."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from support.tasks.answers import WORDS, causal_model
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

import tensoradapt as ta
from tensoradapt.lab.metrics.metric import always, averaged, of_share
from tensoradapt.lab.tasks.splits import Split, Splits
from tensoradapt.lab.tasks.task import Task

BETA = 1.0


@dataclass(frozen=True)
class Pair:
    """Two token rows of one length, the preferred one first."""

    chosen: tuple[int, ...]
    rejected: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.chosen)


class Preferences(Task):
    """Rising numbers are preferred to falling ones."""

    name = "preferences"
    metrics = averaged("accuracy", lambda stored, split: stored > 0, chance=always(0.5), noise=of_share)

    def splits(self, n_train: int | None = None, n_test: int | None = None) -> Splits:
        """Rows of four rising numbers; the rejected one is the same row backwards."""
        rng = np.random.default_rng(0)
        rows = list({tuple(sorted(rng.choice(WORDS, 4, replace=False).tolist())): None for _ in range(300)})
        texts = [(" ".join(map(str, row)), " ".join(map(str, row[::-1]))) for row in rows]
        edges = ((0, 160), (160, 200), (200, 260))
        parts = [Split(tuple(texts[a:b]), np.ones(b - a), tuple(map(str, range(a, b)))) for a, b in edges]
        return parts[0], parts[1], parts[2], ()

    def model(self, name: str) -> nn.Module:
        """The causal model."""
        return causal_model()

    def encode(self, split: Split, model: str, max_length: int) -> list[Pair]:
        """Both rows as numbers."""
        numbers = [[tuple(map(int, text.split())) for text in texts] for texts in split.texts or ()]
        return [Pair(chosen, rejected) for chosen, rejected in numbers]

    def collate(self, examples: Sequence[Pair], model: nn.Module, device: str) -> Mapping[str, Tensor]:
        """Chosen and rejected rows, each (batch, length)."""
        sides = ("chosen", "rejected")
        return {side: torch.tensor([getattr(example, side) for example in examples]) for side in sides}

    def loss(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        """Minus the log sigmoid of the margin over the frozen base."""
        return -logsigmoid(BETA * self.predict(model, batch)).mean()

    def predict(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        """By how much the adapter raises the chosen over the rejected row, (batch,)."""
        with torch.no_grad(), ta.disabled(model):
            base = margins(model, batch)
        return margins(model, batch) - base


def margins(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """Log likelihood of the chosen row less that of the rejected one."""
    return likelihood(model, batch["chosen"]) - likelihood(model, batch["rejected"])


def likelihood(model: nn.Module, ids: Tensor) -> Tensor:
    """Log likelihood of each row, (batch,)."""
    logits = model(input_ids=ids).logits[:, :-1].log_softmax(-1)
    return logits.gather(-1, ids[:, 1:, None]).squeeze(-1).sum(1)


TASKS: dict[str, Any] = {"preferences": Preferences()}
