"""Instruction tuning: prompts with their answers in a model's own chat template, of which the answers are learned."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tensoradapt.extras.answers import chat
from tensoradapt.extras.answers.task import Answers
from tensoradapt.lab.metrics.metric import quotient
from tensoradapt.lab.tasks.splits import Split
from tensoradapt.lab.tasks.task import Metrics

if TYPE_CHECKING:
    from torch import Tensor, nn


def likelihoods(stored: np.ndarray, split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Return the log-likelihood (nats) of each right answer and its number of tokens, (n,) each, from predictions."""
    nats, tokens = stored[:, :2].astype(np.float64).T
    return nats, tokens


LIKELIHOOD = quotient("log_likelihood", likelihoods, -math.inf, 0.0)  # the mean of a token of held-out answers, in nats


@dataclass(frozen=True)
class Instruct(Answers):
    """A task of answers to prompts; the loss and the reported metric are those of the answers' tokens alone.

    The texts of an example are a prompt, its answer, and perhaps a message of the system. Stored of each held-out
    example, (n, 2): the log-likelihood of the answer (nats) and its number of tokens.
    """

    metrics: Metrics = (LIKELIHOOD,)

    def example(self, texts: tuple[str, ...], label: int, model: str) -> chat.Question:
        """Encode a prompt with its answer."""
        return chat.Question((chat.encode(model, *texts),))

    def collate(self, examples: Sequence[chat.Question], model: nn.Module, device: str) -> Mapping[str, Tensor]:
        """Return rows of tokens, and where each option is read off (``chat.collate_questions``)."""
        return chat.collate_questions(examples, device)

    def loss(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        """Return minus the mean log-likelihood of a token of the answers: each token of a batch counts the same."""
        return -chat.option_log_likelihoods(model, batch).sum() / batch["tokens"].sum()

    def predict(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the log-likelihood of each right answer and its number of tokens, (batch, 2)."""
        return right_answers(chat.option_log_likelihoods(model, batch), batch)

    def chance(self, split: Split, model: str | None = None) -> float:
        """Return the metric of a uniform guess over the vocabulary of the model; nan without a model."""
        return -math.log(len(chat.tokenizer(model))) if model else math.nan


def right_answers(options: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
    """Return log-likelihood (nats) and tokens of the right answers, (batch, 2), from (batch, most options)."""
    import torch

    right = options.gather(1, batch["right"][:, None])
    return torch.cat([right, batch["tokens"][:, None].to(options.dtype)], 1)
