"""Alpaca's instructions, and questions with options that judge what was kept of what a model knew."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tensoradapt.extras.answers import chat
from tensoradapt.extras.answers.instruct import Instruct, likelihoods, right_answers
from tensoradapt.lab.metrics.metric import Metric, quotient
from tensoradapt.lab.tasks.splits import Split, Splits, divide, joined, take
from tensoradapt.lab.tasks.task import Metrics
from tensoradapt_paper.language.instruction_rows import ALPACA as FILE
from tensoradapt_paper.language.instruction_rows import HUB, MOST_OPTIONS, QUESTIONS, alpaca, questions

if TYPE_CHECKING:
    from torch import Tensor, nn

NAME = "alpaca"
HELD_OUT = 0.1  # the share of rows for validation, and as many for test


def load_answers() -> Splits:
    """Instructions, a tenth of them for validation and a tenth for test, by prompt.

    Raises TensorAdaptError, naming file and row, for rows that lack a field, and for data that is nowhere.
    """
    rows, notes = alpaca()
    size = int(len(rows) * HELD_OUT)
    test, validation, train = divide(rows, (size, size), 0)
    return train, validation, test, notes


def load_splits() -> Splits:
    """The same instructions; questions are added to test."""
    train, validation, test, notes = load_answers()
    for kind in QUESTIONS:
        found, said = questions(kind)
        test, notes = joined(test, found), (*notes, *said)
    return train, validation, test, notes


def _kinds(split: Split) -> np.ndarray:
    """What each example is, by its id: "alpaca" or a set of questions."""
    return np.array([name.partition("-")[0] for name in split.ids])


def _instructions(stored: np.ndarray, split: Split) -> tuple[np.ndarray, np.ndarray]:
    """The log-likelihood (nats) of each answer to an instruction and its number of tokens; of questions both are 0."""
    nats, tokens = np.stack(likelihoods(stored, split)) * (_kinds(split) == NAME)
    return nats, tokens


def _answered(kind: str) -> Metric:
    """The share of a set of questions whose right option is the likeliest; nan of a split without them."""

    def score(stored: np.ndarray, split: Split) -> float:
        rows = np.flatnonzero(_kinds(split) == kind)
        best = [stored[row, 2 : 1 + len((split.texts or ())[row])].argmax() for row in rows]
        return float((np.array(best) == split.labels[rows]).mean()) if best else math.nan

    return Metric(kind, score, None, 0.0, 1.0)


METRICS = (quotient("log_likelihood", _instructions, -math.inf, 0.0), *map(_answered, QUESTIONS))


@dataclass(frozen=True)
class Questioned(Instruct):
    """Answers to instructions; test examples are held-out instructions and questions with options.

    The texts of an example are a prompt and its answer; or a prompt and several options, of which the label says the
    place of the right one.

    Stored of each: the log-likelihood of the right answer (nats), its number of tokens, and the log-likelihood of each
    option, 0 where there are fewer.
    """

    metrics: Metrics = METRICS

    def example(self, texts: tuple[str, ...], label: int, model: str) -> chat.Question:
        """Encode a prompt with its answer, or with options, which are compared without what ends a turn."""
        prompt, *answers = texts
        closed = len(answers) == 1
        return chat.Question(tuple(chat.encode(model, prompt, answer, closed=closed) for answer in answers), label)

    def parts_of(self, test: Split) -> Mapping[str, Split]:
        """The instructions, and each set of questions."""
        kinds = _kinds(test)
        return {f"test {kind}": take(test, np.flatnonzero(kinds == kind)) for kind in dict.fromkeys(kinds.tolist())}

    def predict(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        """(batch, 2 + MOST_OPTIONS): log-likelihood and tokens of the right answer, then that of each option."""
        import torch

        options = chat.option_log_likelihoods(model, batch)
        fill = options.new_zeros(len(options), MOST_OPTIONS - options.shape[1])
        return torch.cat([right_answers(options, batch), options, fill], 1)


WHERE = f"Alpaca, its part of 5,000 rows: TENSORADAPT_DATA/{FILE}, or {HUB} online"
ANSWERS = Instruct("alpaca-answers", load_answers, WHERE, "Alpaca CC BY-NC 4.0", "Alpaca, without questions")
ALPACA = Questioned(
    NAME,
    load_splits,
    f"{WHERE}; LLM-Adapters' questions",
    "Alpaca CC BY-NC 4.0; BoolQ CC BY-SA 3.0, ARC CC BY-SA 4.0, collection ODC-By",
    "Alpaca; BoolQ, ARC-Easy and OpenBookQA of LLM-Adapters",
)
