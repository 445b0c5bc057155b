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


def encode(name: str, prompt: str, answer: str) -> Answered:
    """A prompt and its answer as a chat of two messages, whole.

    Raises TensorAdaptError for a template in which the answer does not follow the prompt's tokens.
    """
    asked = [{"role": "user", "content": prompt}]
    before = _ids(name, asked, add_generation_prompt=True)
    whole = _ids(name, [*asked, {"role": "assistant", "content": answer}])
    if whole[: len(before)] != before or len(whole) == len(before):
        raise TensorAdaptError(
            f"the chat template of {name} does not put an answer behind the tokens of its prompt; expected one that "
            "does, as which tokens are the answer's is unknown otherwise"
        )
    return Answered(whole, len(before))


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


def log_likelihood(model: nn.Module, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """The log-likelihood of each answer (nats, summed over its tokens) and its number of tokens, both (batch,)."""
    import torch

    labels = batch["labels"][:, 1:]
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1]
    nats = torch.nn.functional.cross_entropy(logits.float().transpose(1, 2), labels, reduction="none")
    return -nats.sum(1), (labels != IGNORED).sum(1)  # torch gives ignored tokens 0
