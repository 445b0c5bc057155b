"""Tasks, splits of examples, and the data of a task."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

Kind = Literal["classification", "regression"]
Metric = Literal["accuracy", "matthews", "f1", "spearman"]
UNLABELLED = -1  # a class label that is set after loading


@dataclass(frozen=True)
class Task:
    """A task's fixed facts: `metric` is the reported one, `pair` says that an example is two sentences."""

    name: str
    kind: Kind
    n_labels: int
    metric: Metric
    pair: bool
    source: str
    licence: str


@dataclass(frozen=True, eq=False)
class Split:
    """Examples in order: one or two sentences each, or rows of token ids, with a label (int64 or float64) and an id.

    `tokens` has shape (n, length), int64; exactly one of `texts` and `tokens` is set.
    """

    texts: tuple[tuple[str, ...], ...] | None
    labels: np.ndarray
    ids: tuple[str, ...]
    tokens: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, eq=False)
class Data:
    """Three disjoint splits; `chance` is the task's metric for the best constant answer on `test`."""

    task: Task
    train: Split
    validation: Split
    test: Split
    chance: float
    notes: tuple[str, ...] = ()


def take(split: Split, rows: np.ndarray) -> Split:
    """The examples at `rows`, in that order."""
    texts = None if split.texts is None else tuple(split.texts[row] for row in rows)
    tokens = None if split.tokens is None else split.tokens[rows]
    ids = tuple(split.ids[row] for row in rows)
    return replace(split, texts=texts, labels=split.labels[rows], ids=ids, tokens=tokens)
