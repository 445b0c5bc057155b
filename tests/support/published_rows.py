"""Published rows on a small BERT."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from support.copies import made_once
from support.models import ENCODER, TEXT, inputs
from torch import nn

import tensoradapt as ta


@made_once
def tiny(seed: int = 0) -> nn.Module:
    """A BERT whose MLP is twice as wide as the model, so that it can be cut into blocks."""
    torch.manual_seed(seed)
    config = transformers.BertConfig(**{**ENCODER, "intermediate_size": 60}, **TEXT, initializer_range=0.2)
    return transformers.BertForSequenceClassification(config).double().eval()


def batches() -> list[dict[str, torch.Tensor]]:
    """Two batches for starts that read gradients or inputs."""
    ids = inputs("bert")
    return [{**ids, "labels": torch.tensor(labels)} for labels in ([2, 5], [1, 1])]


def attached(name: str, model: nn.Module, **changes: Any) -> ta.Adapter:
    plan = ta.plan(model, method=name, paper=True, rank=2, **{"train": (), **SPLIT_OPTIONS.get(name, {}), **changes})
    adapter = ta.attach(model, plan, seed=1, batches=batches() if plan.begins.needs_batches else None)
    if adapter.plan.spec.tasks:
        adapter.select(task="cola")
    return adapter


TASKS = {"metatt-4+1d": {"tasks": ("rte", "cola", "sst2")}}


# tiny sizes: a split of its width for the rows that need one, tasks for the row that has them
SPLITS = {"tt-lora": (2, 3, 5), "dota": (2, 3, 5), "quanta": (2, 3, 5)}
BLOCKS = ("lokr", "krona", "phm", "compacter", "gralora", "more", "kradapter", "c3a", "miss-mini")
SPLITS |= dict.fromkeys(BLOCKS, (5, 6))


SPLIT_OPTIONS: dict[str, Any] = {
    "loretta-rep": {
        "split": {"in": (5, 6), "out": (6, 5)},
        "options": {"bottleneck": 4, "cores": {"in": (5, 6, 4), "out": (4, 6, 5)}},
    },
    **{name: {"split": {"in": parts, "out": parts}} for name, parts in SPLITS.items()},
    "miss": {"split": {"in": (5, 6), "out": (1, 30)}},
    "tinylora": {"options": {"svd_rank": 3}},
    **TASKS,
}
