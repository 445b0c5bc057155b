"""Forgetting: how much less likely general text has become to a causal model by its training, in nats a token.

The text is the proceedings of a workshop of the Library of Congress on electronic texts (1992), as the compression
library Brotli keeps them among its test data: 16 windows of 128 tokens, evenly apart. HF PEFT's comparison of methods
reports the same difference of cross entropies, of Wikipedia's text.
"""

from __future__ import annotations

import re
from functools import lru_cache

import torch
from torch import Tensor, nn

from tensoradapt.errors import TensorAdaptError
from tensoradapt.lab.data import assets, models
from tensoradapt.lab.tasks.language import chat

WINDOWS, LENGTH = 16, 128
FRONT = 9_000  # characters of the title and the table of contents


def text() -> str:
    """Return the paragraphs of the general text; raises TensorAdaptError where no sweep has fetched it."""
    folder = assets.cached(assets.GENERAL_TEXT)
    if folder is None:
        raise TensorAdaptError(
            f"the general text is not in the cache {assets.cache_dir()}; a sweep fetches it as it starts, and so does "
            f"tensoradapt.lab.data.assets.fetch({assets.GENERAL_TEXT!r})"
        )
    whole = (folder / "lcet10.txt").read_text(encoding="ascii")
    paragraphs = re.split(r"\n\s*\n", whole[FRONT:])
    return "\n".join(re.sub(r"\s+", " ", part).strip() for part in paragraphs)


@lru_cache(maxsize=4)
def windows(model: str) -> Tensor:
    """Return the windows' tokens for a named model, (WINDOWS, LENGTH); raises TensorAdaptError without the text."""
    ids = models.from_pretrained(models.transformers().AutoTokenizer, model)(text(), add_special_tokens=False)
    found = torch.tensor(ids["input_ids"])
    if len(found) < WINDOWS * LENGTH:
        raise TensorAdaptError(f"{model} writes the general text in {len(found)} tokens; expected {WINDOWS * LENGTH}")
    starts = torch.linspace(0, len(found) - LENGTH, WINDOWS).long()
    return torch.stack([found[at : at + LENGTH] for at in starts.tolist()])


@torch.no_grad()
def general_loss(model: nn.Module, ids: Tensor, device: str) -> float:
    """Return the mean cross entropy (nats) of each window's tokens given those before, (windows, length) ids.

    The model is in evaluation mode meanwhile.
    """
    training, total = model.training, 0.0
    model.eval()
    for rows in ids.to(device).split(chat.AT_ONCE):
        logits = model(input_ids=rows).logits[:, :-1].float()
        total -= float(chat.nats(logits.flatten(0, 1), rows[:, 1:].flatten()).double().sum())
    model.train(training)
    return total / (ids.shape[0] * (ids.shape[1] - 1))
