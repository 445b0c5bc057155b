"""Instruction tuning: Alpaca in a model's own chat template, and questions with options that judge what was kept."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from tensoradapt.data import models
from tensoradapt.errors import TensorAdaptError
from tensoradapt.tasks.language import chat
from tensoradapt.tasks.language.instruction_rows import (
    ALPACA,
    HUB,
    MOST_OPTIONS,
    QUESTIONS,
    alpaca,
    joined,
    questions,
)
from tensoradapt.tasks.splits import Split, Splits, divide, take
from tensoradapt.tasks.task import Data, Task

if TYPE_CHECKING:
    from torch import Tensor, nn

HELD_OUT = 0.1  # of the rows for validation, and as many for test


@dataclass(frozen=True)
class Instruct(Task):
    """Answers to instructions; the loss and the reported metric are those of the answers' tokens alone.

    Test examples are held-out instructions and questions with options. What is stored of each: the log-likelihood of
    the right answer (nats), its number of tokens, and the log-likelihood of each option, 0 where there are fewer.
    """

    name: str = "alpaca"
    metric: str = "log_likelihood"  # the mean of a token of held-out answers, in nats
    by_length: ClassVar[bool] = True
    source: str = f"Alpaca, its part of 5,000 rows: TENSORADAPT_DATA/{ALPACA}, or {HUB} online; LLM-Adapters' questions"
    licence: str = "Alpaca CC BY-NC 4.0; BoolQ CC BY-SA 3.0, ARC CC BY-SA 4.0, collection ODC-By"

    def splits(self, n_train: int | None = None, n_test: int | None = None) -> Splits:
        """Instructions, a tenth of them for validation and a tenth for test, by prompt; questions are added to test.

        Raises TensorAdaptError, naming file and row, for rows that lack a field, and for data that is nowhere.
        """
        rows, notes = alpaca()
        size = int(len(rows) * HELD_OUT)
        by_prompt = Split(tuple(row[:1] for row in rows.texts or ()), np.arange(len(rows)), rows.ids)
        test, validation, train = (take(rows, part.labels) for part in divide(by_prompt, (size, size), 0))
        for kind in QUESTIONS:
            found, said = questions(kind)
            test, notes = joined(test, found), (*notes, *said)
        return train, validation, test, notes

    def base(self, name: str) -> Any:
        """The config of the model; raises TensorAdaptError for one that writes no text or has no chat template."""
        settings = models.config(name)
        if type(settings) not in models.transformers().MODEL_FOR_CAUSAL_LM_MAPPING:
            raise TensorAdaptError(
                f"{name} is a {settings.model_type} model, of which transformers has none that writes text; expected "
                "an instruction-tuned language model, such as smollm2-135m-instruct"
            )
        chat.tokenizer(name)
        return settings

    def model(self, name: str) -> nn.Module:
        """The causal language model, in fp32."""
        self.base(name)
        return models.load_causal(name)[0]

    def load_for(self, model: str, n_train: int | None, n_test: int | None, seed: int, max_length: int) -> Data:
        """The examples that a length of tokens holds whole; notes count those that were passed over.

        ``n_test`` is shared equally by instructions and each set of questions.
        """
        train, validation, test, notes = self.splits()
        kinds = [take(test, np.flatnonzero(_kinds(test) == kind)) for kind in dict.fromkeys(_kinds(test).tolist())]
        share = n_test and max(1, n_test // len(kinds))
        wanted = [("train", train, n_train, seed), ("validation", validation, None, 0)]
        wanted += [(f"test {part.ids[0].partition('-')[0]}", part, share, 0) for part in kinds]
        found = [self._fitting(*part, model, max_length) for part in wanted]
        said = tuple(note for _, note in found if note)
        held_out, *asked = (split for split, _ in found[2:])
        for part in asked:
            held_out = joined(held_out, part)
        chance = -math.log(len(chat.tokenizer(model)))
        return Data(self, found[0][0], found[1][0], held_out, chance, (*notes, *said))

    def _fitting(
        self, what: str, split: Split, n: int | None, seed: int, model: str, max_length: int
    ) -> tuple[Split, str]:
        """The first ``n`` examples of a drawn order that fit, or all in file order; and how many did not."""
        order = range(len(split)) if n is None else np.random.default_rng(seed).permutation(len(split)).tolist()
        rows, over = [], 0
        for row in order:
            if len(_question(split, row, model)) > max_length:
                over += 1
            else:
                rows.append(row)
            if len(rows) == n:
                break
        if not rows:
            raise TensorAdaptError(
                f"none of {over:,} {what} examples has at most {max_length} tokens with {model}'s template; expected "
                "some: raise max_length"
            )
        looked = over + len(rows)
        note = f"{over:,} of {looked:,} {what} examples have more than {max_length} tokens and are left out"
        return take(split, np.array(rows)), note if over else ""

    def encode(self, split: Split, model: str, max_length: int) -> list[chat.Question]:
        """Each prompt with its answers; raises TensorAdaptError for one of more tokens, as ``load_for`` has none."""
        found = [_question(split, row, model) for row in range(len(split))]
        for one, name in zip(found, split.ids, strict=True):
            if len(one) > max_length:
                raise TensorAdaptError(
                    f"{name} has {len(one)} tokens; expected at most {max_length}, as a prompt without the end of its "
                    "answer teaches another one: raise max_length, or take examples from load_for"
                )
        return found

    def collate(self, examples: Sequence[chat.Question], model: nn.Module, device: str) -> Mapping[str, Tensor]:
        """Rows of tokens, and where each option is read off (``chat.collate_questions``)."""
        return chat.collate_questions(examples, device)

    def loss(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        """Minus the mean log-likelihood of a token of the answers: each token of a batch counts the same."""
        return -chat.option_log_likelihoods(model, batch).sum() / batch["tokens"].sum()

    def predict(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        """(batch, 2 + MOST_OPTIONS): log-likelihood and tokens of the right answer, then that of each option."""
        import torch

        options = chat.option_log_likelihoods(model, batch)
        right = options.gather(1, batch["right"][:, None])
        fill = options.new_zeros(len(options), MOST_OPTIONS - options.shape[1])
        return torch.cat([right, batch["tokens"][:, None].to(options.dtype), options, fill], 1)

    def evaluate(self, predictions: np.ndarray, split: Split) -> dict[str, float]:
        """The mean log-likelihood of a token of the answers, and of each set of questions the share answered right."""
        kinds, found = _kinds(split), {}
        own = predictions[kinds == self.name].astype(np.float64)
        found[self.metric] = float(own[:, 0].sum() / own[:, 1].sum())
        options = [predictions[row, 2 : 1 + len(texts)] for row, texts in enumerate(split.texts or ())]
        best = np.array([row.argmax() for row in options])
        for kind in QUESTIONS:
            if (rows := kinds == kind).any():
                found[kind] = float((best[rows] == split.labels[rows]).mean())
        return found

    def chance(self, split: Split) -> float:
        """Nan, until ``load_for`` knows the model: what a uniform guess over its vocabulary has."""
        return math.nan


def _kinds(split: Split) -> np.ndarray:
    """What each example is, by its id: "alpaca" or a set of questions."""
    return np.array([name.partition("-")[0] for name in split.ids])


def _question(split: Split, row: int, model: str) -> chat.Question:
    assert split.texts is not None
    prompt, *answers = split.texts[row]
    closed = len(answers) == 1
    options = tuple(chat.encode(model, prompt, answer, closed=closed) for answer in answers)
    return chat.Question(options, int(split.labels[row]))


TASKS = {"alpaca": Instruct()}
