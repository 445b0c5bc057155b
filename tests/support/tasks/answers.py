"""Answers of a causal language model: loss on the answer's tokens alone; the likelihood of each option is stored."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import GPT2Config, GPT2LMHeadModel

from tensoradapt.lab.metrics.metric import averaged
from tensoradapt.lab.tasks.splits import Split, Splits
from tensoradapt.lab.tasks.task import Task

OPTIONS, IGNORED = (20, 21), -100
WORDS = 20


def causal_model() -> nn.Module:
    """A tiny GPT-2 whose base is always the same."""
    torch.manual_seed(0)
    more = {"bos_token_id": 0, "eos_token_id": 0, "initializer_range": 0.2, "resid_pdrop": 0.0}
    more |= {"embd_pdrop": 0.0, "attn_pdrop": 0.0}
    return GPT2LMHeadModel(GPT2Config(vocab_size=24, n_positions=16, n_embd=24, n_layer=2, n_head=2, **more))


@dataclass(frozen=True)
class Asked:
    """A prompt, and the place of its answer among the options."""

    prompt: tuple[int, ...]
    answer: int

    def __len__(self) -> int:
        return len(self.prompt) + 1


def held_out(stored: np.ndarray, split: Split) -> np.ndarray:
    """The loss of each answer, in nats."""
    return -stored[np.arange(len(split)), split.labels]


class Answers(Task):
    """Which of two words follows a prompt: the second where the prompt ends with a large number."""

    name = "answers"
    n_labels = 2
    metrics = ("accuracy", averaged("loss", held_out, 0.0, math.inf, larger_is_better=False))

    def splits(self, n_train: int | None = None, n_test: int | None = None) -> Splits:
        """Prompts of two to seven tokens."""
        rng = np.random.default_rng(0)
        prompts = list({tuple(rng.integers(0, WORDS, rng.integers(2, 8)).tolist()): None for _ in range(400)})
        texts = [(" ".join(map(str, prompt)),) for prompt in prompts]
        labels = np.array([int(prompt[-1] >= WORDS // 2) for prompt in prompts])
        edges = ((0, 200), (200, 260), (260, 320))
        parts = [Split(tuple(texts[a:b]), labels[a:b], tuple(map(str, range(a, b)))) for a, b in edges]
        return parts[0], parts[1], parts[2], ()

    def model(self, name: str) -> nn.Module:
        """The causal model."""
        return causal_model()

    def encode(self, split: Split, model: str, max_length: int) -> list[Asked]:
        """Prompts as numbers."""
        assert split.texts is not None
        prompts = [tuple(map(int, text.split())) for (text,) in split.texts]
        return [Asked(p[:max_length], int(answer)) for p, answer in zip(prompts, split.labels, strict=True)]

    def collate(self, examples: Sequence[Asked], model: nn.Module, device: str) -> Mapping[str, Tensor]:
        """Prompt and answer in a row; only the answer is a target."""
        width = max(map(len, examples))
        ids = torch.zeros(len(examples), width, dtype=torch.int64)
        labels = torch.full_like(ids, IGNORED)
        for row, example in enumerate(examples):
            at = len(example.prompt)
            ids[row, :at] = torch.tensor(example.prompt)
            ids[row, at] = labels[row, at] = OPTIONS[example.answer]
        return {"input_ids": ids, "labels": labels}

    def predict(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        """Log likelihoods of the options, (batch, options)."""
        answered = (batch["labels"] != IGNORED).int().argmax(1)
        logits = model(input_ids=batch["input_ids"]).logits[torch.arange(len(answered)), answered - 1]
        return logits.log_softmax(-1)[:, OPTIONS]


def by_hand(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """The loss of the answers alone."""
    logits = model(input_ids=batch["input_ids"]).logits[:, :-1]
    return cross_entropy(logits.flatten(0, 1), batch["labels"][:, 1:].flatten(), ignore_index=IGNORED)


TASKS: dict[str, Any] = {"answers": Answers()}
