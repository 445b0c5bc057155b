"""Instruction tuning: prompts with their answers in a model's own chat template, of which the answers are learned."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from tensoradapt.data import models
from tensoradapt.errors import TensorAdaptError
from tensoradapt.metrics.metric import quotient
from tensoradapt.tasks.language import chat
from tensoradapt.tasks.splits import DataSpec, Split, Splits, at_most, joined, take
from tensoradapt.tasks.task import EVERYTHING, SAME, Data, Metrics, Task

if TYPE_CHECKING:
    from torch import Tensor, nn


def likelihoods(stored: np.ndarray, split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Return the log-likelihood (nats) of each right answer and its number of tokens, (n,) each, from predictions."""
    nats, tokens = stored[:, :2].astype(np.float64).T
    return nats, tokens


LIKELIHOOD = quotient("log_likelihood", likelihoods, -math.inf, 0.0)  # the mean of a token of held-out answers, in nats


@dataclass(frozen=True)
class Instruct(Task):
    """A task of answers to prompts; the loss and the reported metric are those of the answers' tokens alone.

    ``load_splits`` gives the texts of each split: a prompt and its answer; or a prompt and several answers, of which
    the label says the place of the right one. Stored of each held-out example, (n, 2): the log-likelihood of the
    right answer (nats) and its number of tokens.
    """

    name: str
    load_splits: Callable[[], Splits]
    source: str = ""
    licence: str = ""
    content: str = ""
    metrics: Metrics = (LIKELIHOOD,)
    by_length: ClassVar[bool] = True

    def splits(self, n_train: int | None = None, n_test: int | None = None) -> Splits:
        """Return all prompts with their answers, of any length."""
        return self.load_splits()

    def parts_of(self, test: Split) -> Mapping[str, Split]:
        """Return the parts of a test split, which share its number of examples equally, by their names in notes."""
        return {"test": test}

    def base(self, name: str) -> Any:
        """Return the config of the model; raises TensorAdaptError where it writes no text or has no chat template."""
        settings = models.config(name)
        if type(settings) not in models.transformers().MODEL_FOR_CAUSAL_LM_MAPPING:
            raise TensorAdaptError(
                f"{name} is a {settings.model_type} model, of which transformers has none that writes text; expected "
                "an instruction-tuned language model, such as HuggingFaceTB/SmolLM2-135M-Instruct"
            )
        chat.tokenizer(name)
        return settings

    def model(self, name: str) -> nn.Module:
        """Load the causal language model, in fp32."""
        self.base(name)
        return models.load_causal(name)[0]

    def load(self, model: str | None = None, data: DataSpec = EVERYTHING, seed: int = 0) -> Data:
        """Return the examples that a length of tokens holds whole, all without a model; notes count the others.

        ``n_test`` is shared equally by the parts of the test split.
        """
        if model is None:
            return super().load(None, data, seed)
        train, validation, test, notes = self.splits()
        parts = self.parts_of(test)
        share = data.n_test and max(1, data.n_test // len(parts))
        wanted = [("train", train, data.n_train, seed), ("validation", validation, None, SAME)]
        wanted += [(name, part, share, SAME) for name, part in parts.items()]
        found = [self._fitting(*part, model, data.max_length) for part in wanted]
        said = tuple(note for _, note in found if note)
        held_out, *asked = (split for split, _ in found[2:])
        for part in asked:
            held_out = joined(held_out, part)
        drawn = at_most(found[1][0], data.n_validation, SAME)
        return Data(self, found[0][0], drawn, held_out, self.chance(held_out, model), (*notes, *said))

    def _fitting(
        self, what: str, split: Split, n: int | None, seed: int, model: str, max_length: int
    ) -> tuple[Split, str]:
        """Return the first ``n`` examples in drawn order that fit (None: all, in file order), and a note on others."""
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
        """Encode each prompt with its answers; raises TensorAdaptError for one of too many tokens."""
        found = [_question(split, row, model) for row in range(len(split))]
        for one, name in zip(found, split.ids, strict=True):
            if len(one) > max_length:
                raise TensorAdaptError(
                    f"{name} has {len(one)} tokens; expected at most {max_length}, as a prompt without the end of its "
                    "answer teaches another one: raise max_length, or give load the model and a DataSpec"
                )
        return found

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


def _question(split: Split, row: int, model: str) -> chat.Question:
    assert split.texts is not None
    prompt, *answers = split.texts[row]
    closed = len(answers) == 1
    options = tuple(chat.encode(model, prompt, answer, closed=closed) for answer in answers)
    return chat.Question(options, int(split.labels[row]))
