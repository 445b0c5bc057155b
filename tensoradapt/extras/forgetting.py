"""Forgetting: how much less likely general text has become to a causal model by its training, in nats per token.

The text is the proceedings of a workshop of the Library of Congress on electronic texts (1992), as the compression
library Brotli keeps them among its test data: 16 windows of 128 tokens, evenly apart. HF PEFT's comparison of methods
reports the same difference of cross entropies, of Wikipedia's text.
"""

from __future__ import annotations

import re
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from tensoradapt.errors import TensorAdaptError
from tensoradapt.lab.data import assets, models

WINDOWS, LENGTH = 16, 128
AT_ONCE = 8  # rows of a pass, whose logits are as wide as the vocabulary
FRONT = 9_000  # characters of the title and the table of contents
TEXT = assets.Asset(
    name="general-text",
    package="Brotli",
    version="1.1.0",
    filename="Brotli-1.1.0.tar.gz",
    sha256="81de08ac11bcb85841e440c13611c00b67d3bf82698314928d0b676362546724",
    licence="package MIT; proceedings of a workshop of the Library of Congress (1992), in the public domain",
    holds="427 kB of English prose, by which runs measure what a language model forgets, 7.4 MB",
    members=(("Brotli-1.1.0/tests/testdata/lcet10.txt", "lcet10.txt"), ("Brotli-1.1.0/LICENSE", "LICENSE")),
)


def text() -> str:
    """Return the paragraphs of the general text; raises TensorAdaptError where no sweep has fetched it."""
    folder = assets.cached(TEXT)
    if folder is None:
        raise TensorAdaptError(
            f"the general text is not in the cache {assets.cache_dir()}; a sweep fetches it as it starts"
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
    for rows in ids.to(device).split(AT_ONCE):
        logits = model(input_ids=rows).logits[:, :-1].float()
        # the vocabulary is the last axis: along another, torch's sum on the CPU is off by 1e-4 a token
        total += float(cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten(), reduction="none").double().sum())
    model.train(training)
    return total / (ids.shape[0] * (ids.shape[1] - 1))


class Forgetting:
    """The measure of causal models: the cross entropy of general text."""

    def prepare(self) -> None:
        """Fetch the general text; raises TensorAdaptError where it cannot be had."""
        assets.fetch(TEXT)

    def __call__(self, model: nn.Module, name: str, device: str) -> float:
        """Return the cross entropy of general text under a model; raises TensorAdaptError without the text."""
        return general_loss(model, windows(name), device)


MEASURES = {"forgetting": Forgetting()}
