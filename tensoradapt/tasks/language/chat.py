"""Prompts with answers, in a model's own chat template: token ids, batches, and the log-likelihood of the answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from tensoradapt.data import models
from tensoradapt.errors import TensorAdaptError
from tensoradapt.tasks.classification import padded

if TYPE_CHECKING:
    from torch import Tensor, nn

IGNORED = -100  # the label of a token that is not trained on, as of torch's cross entropy


@dataclass(frozen=True)
class Answered:
    """The token ids of a prompt and its answer; the answer begins at ``start``."""

    ids: Sequence[int]
    start: int

    def __len__(self) -> int:
        return len(self.ids)


@lru_cache(maxsize=2)
def tokenizer(name: str) -> Any:
    """The tokenizer of a named model. Raises TensorAdaptError where it has no chat template."""
    found = models.from_pretrained(models.transformers().AutoTokenizer, name)
    if not found.chat_template:
        raise TensorAdaptError(
            f"the tokenizer of {name} has no chat template; expected one, as instruction-tuned models have: give such "
            "a model, or set tokenizer.chat_template and save it with the model"
        )
    return found


def encode(name: str, prompt: str, answer: str, system: str = "") -> Answered:
    """A prompt and its answer as a chat of two messages, whole; behind that of the system, if there is one.

    Raises TensorAdaptError for a template in which the answer does not follow the prompt's tokens.
    """
    before = _prompt_ids(name, prompt, system)
    whole = _ids(name, [*_asked(prompt, system), {"role": "assistant", "content": answer}])
    if whole[: len(before)] != before or len(whole) == len(before):
        raise TensorAdaptError(
            f"the chat template of {name} does not put an answer behind the tokens of its prompt; expected one that "
            "does, as which tokens are the answer's is unknown otherwise"
        )
    return Answered(whole, len(before))


def _asked(prompt: str, system: str) -> list[dict[str, str]]:
    said = [{"role": "system", "content": system}] if system else []
    return [*said, {"role": "user", "content": prompt}]


@lru_cache(maxsize=8)
def _prompt_ids(name: str, prompt: str, system: str) -> list[int]:
    return _ids(name, _asked(prompt, system), add_generation_prompt=True)


def _ids(name: str, messages: Sequence[Mapping[str, str]], **options: bool) -> list[int]:
    text = tokenizer(name).apply_chat_template(list(messages), tokenize=False, **options)
    return list(tokenizer(name)(text, add_special_tokens=False)["input_ids"])  # the template has them


def collate(examples: Sequence[Answered], device: str) -> Mapping[str, Tensor]:
    """Padded ids, their mask, and labels that are ids in answers and ``IGNORED`` elsewhere, (batch, longest)."""
    import torch

    batch = padded([row.ids for row in examples], device)
    starts = torch.tensor([row.start for row in examples], device=device)
    place = torch.arange(batch["input_ids"].shape[1], device=device)
    answer = (place >= starts[:, None]) & (batch["attention_mask"] == 1)
    return {**batch, "labels": batch["input_ids"].masked_fill(~answer, IGNORED)}


def rows(batch: Mapping[str, Tensor], at: Tensor) -> Mapping[str, Tensor]:
    """Some rows of a batch, no longer than the longest of them."""
    width = int(batch["attention_mask"][at].sum(1).max())
    return {key: value[at, :width] for key, value in batch.items()}


def answer_logits(model: nn.Module, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """The logits for each token of the answers, (tokens, vocabulary) in fp32, and where they are, (batch, longest - 1).

    Tokens stand in the order of ``batch["labels"][:, 1:][where]``.
    """
    where = batch["labels"][:, 1:] != IGNORED
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1]
    return logits[where].float(), where


def summed(values: Tensor, where: Tensor) -> Tensor:
    """The sum over each row's tokens, (batch,), of a number for each token of the answers."""
    return values.new_zeros(where.shape).masked_scatter(where, values).sum(1)


def log_likelihood(model: nn.Module, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """The log-likelihood of each answer (nats, summed over its tokens) and its number of tokens, both (batch,)."""
    import torch

    logits, where = answer_logits(model, batch)
    # the vocabulary is the last dimension: over another one torch's sum on the CPU is off by 1e-2 nats in a hundred
    nats = torch.nn.functional.cross_entropy(logits, batch["labels"][:, 1:][where], reduction="none")
    return -summed(nats, where), where.sum(1)
