"""The batches of a training: neighbours of one length, and every token a target, with one that ends a text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from metamath_suite.rows import Row
from metamath_suite.setting import QUERY, Setting
from tensoradapt.errors import TensorAdaptError
from tensoradapt.lab.tasks.language.chat import IGNORED

BUCKET = 20  # batches whose rows are sorted by length together
Ids = Sequence[int]


@dataclass(frozen=True)
class Batch:
    """The arguments of a causal model, (rows, longest), and how many tokens and rows they are, an ending for each."""

    inputs: dict[str, Tensor]
    n_tokens: int
    n_rows: int


def encoded(tokenizer: Any, texts: Sequence[str], most: int) -> list[Ids]:
    """Return the token ids of texts, each cut to a length."""
    return [ids[:most] for ids in tokenizer(list(texts))["input_ids"]]


def asked(row: Row, template: str) -> str:
    """Return the text of a question, which its answer follows."""
    return template.replace(QUERY, row.query)


def batches(rows: Sequence[Row], tokenizer: Any, setting: Setting, device: str) -> Iterator[Batch]:
    """Yield a batch for each step: rows in their order, sorted from long to short within buckets of 20 batches.

    Raises TensorAdaptError where there are fewer rows than the steps take.
    """
    size, steps = setting.batch_size, setting.max_steps
    if len(rows) < size * steps:
        raise TensorAdaptError(
            f"{len(rows):,} rows to train on are fewer than {steps:,} steps of {size} take; give a larger file, or "
            "fewer steps"
        )
    starts = range(0, size * steps, size * BUCKET)
    ordered = (ids for at in starts for ids in _bucket(rows[at : at + size * BUCKET], tokenizer, setting))
    for _ in range(steps):
        yield padded(list(islice(ordered, size)), tokenizer.eos_token_id, device)


def _bucket(rows: Sequence[Row], tokenizer: Any, setting: Setting) -> list[Ids]:
    texts = [asked(row, setting.query_template) + row.response for row in rows]
    return sorted(encoded(tokenizer, texts, setting.max_seq_length), key=len, reverse=True)


def padded(rows: Sequence[Ids], end: int, device: str) -> Batch:
    """Return rows as a batch; each that is shorter than the longest learns the token that ends a text.

    ``num_items_in_batch``, which the sum of losses is divided by, counts the texts' own tokens.
    """
    width = max(map(len, rows))
    ids = torch.full((len(rows), width), end)
    lengths = torch.tensor([len(row) for row in rows])
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
    place = torch.arange(width)
    labels = ids.masked_fill(place > lengths[:, None], IGNORED)
    inputs = {"input_ids": ids, "attention_mask": (place < lengths[:, None]).long(), "labels": labels}
    total = int(lengths.sum())
    sent = {name: tensor.to(device) for name, tensor in inputs.items()}
    return Batch({**sent, "num_items_in_batch": torch.tensor(total, device=device)}, total + len(rows), len(rows))
