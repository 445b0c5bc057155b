"""The cross entropy of general text, whose change by training is PEFT's "forgetting"."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from metamath_suite.batches import encoded
from tensoradapt.lab.data import assets
from tensoradapt.lab.runs import forgetting

LONGEST = 768  # tokens of a text that are read


def texts_of(given: Sequence[str] | None, tokenizer: Any, model_id: str) -> list[torch.Tensor]:
    """Return the ids of general texts, each (1, length); without any, those of the toolkit's own text."""
    if given is not None:
        return [torch.tensor([ids]) for ids in encoded(tokenizer, given, LONGEST) if len(ids) > 1]
    assets.fetch(assets.GENERAL_TEXT)
    return list(forgetting.windows(model_id).split(1))


def loss(model: Any, texts: Sequence[torch.Tensor], device: str) -> float:
    """Return the mean cross entropy, in nats, of a token given those before it, over all tokens of all texts."""
    counts = [ids.shape[1] - 1 for ids in texts]
    means = [forgetting.general_loss(model, ids, device) for ids in texts]
    return sum(mean * n for mean, n in zip(means, counts, strict=True)) / sum(counts)
