"""Prompts with answers, in a model's own chat template: token ids, batches, and the log-likelihood of the answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from tensoradapt.errors import TensorAdaptError
from tensoradapt.lab.data import models
from tensoradapt.lab.tasks.classification import padded

if TYPE_CHECKING:
    from torch import Tensor, nn

IGNORED = -100  # the label of a token that is not trained on, as of torch's cross entropy
DATE = "26 Jul 2024"  # for templates that write one, so that prompts do not change from day to day
AT_ONCE = 8  # rows of a pass without gradients, whose logits are as wide as the vocabulary


@dataclass(frozen=True)
class Answered:
    """The token ids of a prompt and its answer; the answer begins at ``start``."""

    ids: Sequence[int]
    start: int

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Question:
    """A prompt with each of its answers; ``right`` is the position of the right one."""

    options: tuple[Answered, ...]
    right: int = 0

    def __len__(self) -> int:
        return max(map(len, self.options))


@lru_cache(maxsize=2)
def tokenizer(name: str) -> Any:
    """Return the tokenizer of a named model. Raises TensorAdaptError where it has no chat template."""
    found = models.from_pretrained(models.transformers().AutoTokenizer, name)
    if not found.chat_template:
        raise TensorAdaptError(
            f"the tokenizer of {name} has no chat template; expected one, as instruction-tuned models have: give such "
            "a model, or set tokenizer.chat_template and save it with the model"
        )
    return found


@lru_cache(maxsize=1 << 17)
def encode(name: str, prompt: str, answer: str, system: str = "", closed: bool = True) -> Answered:
    """Return a prompt and its answer as a chat of two messages, whole, after the system's message if there is one.

    ``closed``: with what the template writes behind an answer, such as the token that ends a turn; options whose
    likelihoods are compared go without. Raises TensorAdaptError for a template in which the answer does not follow the
    prompt's tokens.
    """
    before = _prompt_ids(name, prompt, system)
    text = _text(name, [*_asked(prompt, system), {"role": "assistant", "content": answer}])
    whole = _ids(name, text if closed else text[: text.rfind(answer.strip()) + len(answer.strip())])
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
def _prompt_ids(name: str, prompt: str, system: str) -> tuple[int, ...]:
    return _ids(name, _text(name, _asked(prompt, system), add_generation_prompt=True))


def _text(name: str, messages: Sequence[Mapping[str, str]], **options: bool) -> str:
    # templates of Llama 3 write today's date into a prompt unless they are given one
    return str(tokenizer(name).apply_chat_template(list(messages), tokenize=False, date_string=DATE, **options))


def _ids(name: str, text: str) -> tuple[int, ...]:
    return tuple(tokenizer(name)(text, add_special_tokens=False)["input_ids"])  # the template has them


def collate(examples: Sequence[Answered], device: str) -> Mapping[str, Tensor]:
    """Return padded ids, their mask, and labels: ids in answers and ``IGNORED`` elsewhere, (batch, longest)."""
    import torch

    batch = padded([row.ids for row in examples], device)
    starts = torch.tensor([row.start for row in examples], device=device)
    position = torch.arange(batch["input_ids"].shape[1], device=device)
    answer = (position >= starts[:, None]) & (batch["attention_mask"] == 1)
    return {**batch, "labels": batch["input_ids"].masked_fill(~answer, IGNORED)}


def rows(batch: Mapping[str, Tensor], at: Tensor) -> Mapping[str, Tensor]:
    """Return some rows of a batch, no longer than the longest of them."""
    width = int(batch["attention_mask"][at].sum(1).max())
    return {key: value[at, :width] for key, value in batch.items()}


def answer_logits(model: nn.Module, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Return the logits for the answers' tokens, (tokens, vocabulary) in fp32, and their mask (batch, longest - 1).

    Tokens stand in the order of ``batch["labels"][:, 1:][where]``.
    """
    where = batch["labels"][:, 1:] != IGNORED
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1]
    return logits[where].float(), where


def summed(values: Tensor, where: Tensor) -> Tensor:
    """Return the sum over each row's tokens, (batch,), of a number for each token of the answers."""
    return values.new_zeros(where.shape).masked_scatter(where, values).sum(1)


def log_likelihood(model: nn.Module, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Return each answer's log-likelihood (nats, summed over its tokens) and number of tokens, both (batch,)."""
    logits, where = answer_logits(model, batch)
    return summed(nats(logits, batch["labels"][:, 1:][where]), where), where.sum(1)


def nats(logits: Tensor, tokens: Tensor) -> Tensor:
    """Return the log-likelihood of each token, (tokens,), from logits for it, (tokens, vocabulary)."""
    from torch.nn.functional import cross_entropy

    # with the vocabulary along the last axis: along another, torch's sum on the CPU is off by 1e-4 a token
    return -cross_entropy(logits, tokens, reduction="none")


def collate_questions(questions: Sequence[Question], device: str) -> Mapping[str, Tensor]:
    """Return a batch of questions; options that differ in their last token alone are read off one row.

    A row holds what some options have before their last token: ``input_ids``, ``attention_mask`` and ``labels``,
    (rows, longest), as of ``collate``. ``row`` and ``last``, (questions, most options): the row of an option, and its
    last token, which is ``IGNORED`` where a question has fewer options. ``right`` and ``tokens``, (questions,): the
    place of the right answer, and its number of tokens.
    """
    import torch

    parts = [[Answered(one.ids[:-1], one.start) for one in question.options] for question in questions]
    rows = {part: i for i, part in enumerate(dict.fromkeys(part for question in parts for part in question))}
    shape = len(questions), max(map(len, parts))
    row, last = torch.zeros(shape, dtype=torch.int64), torch.full(shape, IGNORED)
    for i, question in enumerate(questions):
        row[i, : len(question.options)] = torch.tensor([rows[part] for part in parts[i]])
        last[i, : len(question.options)] = torch.tensor([one.ids[-1] for one in question.options])
    right = torch.tensor([question.right for question in questions])
    answers = [question.options[question.right] for question in questions]
    tokens = torch.tensor([len(one) - one.start for one in answers])
    more = {"row": row, "last": last, "right": right, "tokens": tokens}
    return {**collate(list(rows), device), **{name: value.to(device) for name, value in more.items()}}


def option_log_likelihoods(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """Return each option's log-likelihood (nats, over its tokens), (questions, most options); 0 for no option."""
    import torch

    names = ("input_ids", "attention_mask", "labels")
    at_once = len(batch["labels"]) if torch.is_grad_enabled() else AT_ONCE
    passes = zip(*(batch[name].split(at_once) for name in names), strict=True)
    before, after = (torch.cat(parts) for parts in zip(*(_before_last(model, *rows) for rows in passes), strict=True))
    row, last = batch["row"], batch["last"]
    total = before[row] + after[row, last.clamp(min=0)]
    return total.masked_fill(last == IGNORED, 0.0)


def _before_last(model: nn.Module, ids: Tensor, mask: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return each row's log-likelihood of its labels, (rows,), and of each token after them, (rows, vocabulary)."""
    import torch

    end = mask.sum(1) - 1
    labelled = (labels != IGNORED).any(0).int()
    first = min(int(end.min()), int(labelled.argmax()) - 1 if labelled.any() else len(labelled))
    logits = model(
        input_ids=ids, attention_mask=mask, use_cache=False, logits_to_keep=ids.shape[1] - first
    ).logits  # only for the positions that are asked for, as the vocabulary is most of the work
    following = torch.nn.functional.pad(labels[:, first + 1 :], (0, 1), value=IGNORED)
    where = following != IGNORED
    last = logits[torch.arange(len(ids), device=ids.device), end - first].float()
    before = summed(nats(logits[where].float(), following[where]), where)
    return before, last.log_softmax(1)
