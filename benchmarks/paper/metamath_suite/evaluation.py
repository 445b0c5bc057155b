"""Questions answered in batches, and the share of answers that are right."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from metamath_suite.answers import is_right, said
from metamath_suite.batches import Ids, asked, encoded
from metamath_suite.rows import Row
from metamath_suite.setting import Setting

GREEDY = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}


@dataclass(frozen=True)
class Answer:
    """What a model wrote behind a question, question included, and whether its answer is the response's."""

    text: str
    response: str
    right: bool

    @property
    def said(self) -> str | None:
        """The answer as it was read from the text."""
        return said(self.text)


@torch.inference_mode()
def answered(model: Any, tokenizer: Any, rows: Sequence[Row], setting: Setting, device: str) -> list[Answer]:
    """Return a model's answers to the rows' questions; it is in evaluation mode meanwhile."""
    training = model.training
    model.eval()
    prompts = encoded(tokenizer, [asked(row, setting.query_template) for row in rows], setting.max_seq_length)
    size = setting.batch_size_eval
    texts = [
        text
        for at in range(0, len(rows), size)
        for text in _texts(model, tokenizer, prompts[at : at + size], setting, device)
    ]
    model.train(training)
    return [Answer(t, row.response, is_right(t, row.response)) for t, row in zip(texts, rows, strict=True)]


def accuracy(answers: Sequence[Answer]) -> float:
    """Return the share of right answers."""
    return sum(answer.right for answer in answers) / len(answers)


def _texts(model: Any, tokenizer: Any, prompts: Sequence[Ids], setting: Setting, device: str) -> Iterator[str]:
    """Yield questions with their answers, of a batch that is padded on the left."""
    end, width = tokenizer.eos_token_id, max(map(len, prompts))
    ids = torch.tensor([[end] * (width - len(row)) + list(row) for row in prompts], device=device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in prompts], device=device)
    most = min(setting.lengths["max_new_tokens"], setting.lengths["max_length"] - width)
    how = GREEDY if setting.answers == "greedy" else {}
    found = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=most, pad_token_id=end, **how)
    yield from tokenizer.batch_decode(found, skip_special_tokens=True)
