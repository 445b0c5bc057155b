"""Splits of a task, fixed by its texts or pictures, of which they share none; drawing fewer moves none across."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from tensoradapt import checks
from tensoradapt.lab.tasks.readout import READOUTS
from tensoradapt.records import check_fields, value

if TYPE_CHECKING:
    from tensoradapt.lab.tasks.vision.pictures import Picture

UNLABELLED = -1  # a class label that is set after loading


@dataclass(frozen=True)
class DataSpec:
    """How many examples of its task a run has, and how they become batches."""

    n_train: int | None = value(checks.whole, "the most examples to train on; by default all")
    n_validation: int | None = value(checks.whole, "the most examples to choose rates on; by default all")
    n_test: int | None = value(checks.whole, "the most examples to report scores of; by default all")
    batch: int = value(
        checks.whole, "examples in a batch", 32, former=("batch_size", "bs", "per_device_train_batch_size")
    )
    max_length: int = value(
        checks.whole,
        "the most tokens of an example; of a longer text the rest is cut off",
        64,
        former=("max_len", "max_seq_len", "max_seq_length"),
    )
    readout: str = value(
        partial(checks.one_of, READOUTS),
        "what the head of a text classifier reads: what that of transformers does, or the mean of the tokens",
        "model",
    )

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, eq=False)
class Split:
    """Examples in order, each with a label (int64 or float64) and an id.

    An example is one or two sentences, a row of token ids, or a picture.

    `tokens` has shape (n, length), int64; exactly one of `texts`, `tokens` and `pictures` is set. `by_prompt`: whether
    examples whose first texts are equal, their prompts, stay together, whatever the other texts are.
    """

    texts: tuple[tuple[str, ...], ...] | None
    labels: np.ndarray
    ids: tuple[str, ...]
    tokens: np.ndarray | None = None
    pictures: tuple[Picture, ...] | None = None
    by_prompt: bool = False

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        shown = next(name for name in ("texts", "tokens", "pictures") if getattr(self, name) is not None)
        return f"Split({len(self):,} examples of {shown}, labels {self.labels.dtype})"

    @property
    def contents(self) -> Sequence[Any]:
        """The identities of the examples: their texts, their tokens, or the digests of their pixels."""
        if self.pictures is not None:
            return [picture.digest for picture in self.pictures]
        return self.tokens.tolist() if self.tokens is not None else self.texts or ()


Splits = tuple[Split, Split, Split, tuple[str, ...]]  # train, validation, test and notes


def take(split: Split, rows: np.ndarray) -> Split:
    """Return the examples at `rows`, in that order."""
    texts = None if split.texts is None else tuple(split.texts[row] for row in rows)
    tokens = None if split.tokens is None else split.tokens[rows]
    pictures = None if split.pictures is None else tuple(split.pictures[row] for row in rows)
    ids = tuple(split.ids[row] for row in rows)
    return replace(split, texts=texts, labels=split.labels[rows], ids=ids, tokens=tokens, pictures=pictures)


def joined(first: Split, second: Split) -> Split:
    """Return the examples of one split of texts, then those of another."""
    labels = np.concatenate([first.labels, second.labels])
    texts = (*(first.texts or ()), *(second.texts or ()))
    return replace(first, texts=texts, labels=labels, ids=(*first.ids, *second.ids))


def carve(split: Split, *sizes: int) -> tuple[Split, ...]:
    """Return parts of the given sizes, then the rest, by a hash of the text, so that equal texts stay together."""
    order, _ = _hashed(split)
    return _cut(split, order, np.cumsum(sizes))


def disjoint(train: Split, validation: Split, test: Split) -> tuple[Split, Split, tuple[str, ...]]:
    """Remove texts of later splits from train and validation, with a note on each removal; test does not change.

    Texts count as equal when they differ only in case and white space; in pairs the order does not matter. Pictures
    are equal by their pixels.
    """
    kept_validation, from_validation = _without(validation, set(_keys(test)))
    kept_train, from_train = _without(train, set(_keys(test)) | set(_keys(validation)))
    notes, what = [], "picture" if train.pictures is not None else "prompt" if train.by_prompt else "text"
    if from_train:
        notes.append(f"{from_train} train examples removed: their {what} is also in validation or test")
    if from_validation:
        notes.append(f"{from_validation} validation examples removed: their {what} is also in test")
    return kept_train, kept_validation, tuple(notes)


def distinct(split: Split) -> tuple[Split, int]:
    """Return the examples without those whose texts were all there before, and how many these are.

    Texts are equal as in ``disjoint``, and in order.
    """
    first = {tuple(map(_key, texts)): row for row, texts in reversed([*enumerate(split.texts or ())])}
    return take(split, np.array(sorted(first.values()), dtype=np.int64)), len(split) - len(first)


def at_most(split: Split, n: int | None, seed: int) -> Split:
    """Return ``n`` examples, or all there are, in an order drawn with ``seed``, of which a smaller ``n`` is a prefix.

    None returns all in file order.
    """
    return split if n is None else take(split, np.random.default_rng(seed).permutation(len(split))[:n])


def _without(split: Split, forbidden: set[tuple[str, ...]]) -> tuple[Split, int]:
    rows = [row for row, key in enumerate(_keys(split)) if key not in forbidden]
    return take(split, np.array(rows, dtype=np.int64)), len(split) - len(rows)


def _keys(split: Split) -> list[tuple[str, ...]]:
    if split.texts is None:
        return [(row,) if isinstance(row, str) else tuple(map(str, row)) for row in split.contents]
    parts = [texts[:1] for texts in split.texts] if split.by_prompt else split.texts
    return [tuple(sorted(map(_key, texts))) for texts in parts]


def _key(text: str) -> str:
    return " ".join(text.casefold().split())


def divide(split: Split, sizes: Sequence[int], seed: int) -> tuple[Split, ...]:
    """Return parts of at least the given sizes, then the rest, by a hash of seed and text: equal ones stay together."""
    order, digests = _hashed(split, str(seed))
    ends, at = [], 0
    for size in sizes:
        at = min(at + size, len(order))
        while 0 < at < len(order) and digests[order[at]] == digests[order[at - 1]]:
            at += 1
        ends.append(at)
    return _cut(split, order, ends)


def divide_classes(split: Split, shares: Sequence[float], seed: int) -> tuple[Split, ...]:
    """Return parts with these shares of the rows and of each class, then the rest, drawn by a hash of seed and text.

    Equal texts stay together. The first text of each class is in the rest, from which a rare class is learned.
    """
    order, digests = _hashed(split, str(seed))
    classes = split.labels if split.labels.dtype.kind == "i" else np.zeros(len(split))
    equal: dict[bytes, list[int]] = {}
    for row in order:
        equal.setdefault(digests[row], []).append(row)
    parts: list[list[int]] = [[] for _ in (*shares, "the rest")]
    seen, known = 0, set[float]()
    for rows in sorted(equal.values(), key=lambda rows: min(classes[rows])):  # which keeps the hash's order in a class
        seen += len(rows)
        due = [part for part, share in zip(parts, shares, strict=False) if len(part) + len(rows) / 2 <= share * seen]
        to = due[0] if due and known.issuperset(classes[rows]) else parts[-1]
        to += rows
        known.update(classes[rows])
    return tuple(take(split, np.sort(np.array(part, dtype=np.int64))) for part in parts)


def _hashed(split: Split, *salt: str) -> tuple[list[int], list[bytes]]:
    """Return the rows in the order of a hash of their texts, and these hashes by row."""
    digests = [hashlib.sha256("\t".join((*salt, *key)).encode()).digest() for key in _keys(split)]
    return sorted(range(len(split)), key=lambda row: (digests[row], row)), digests


def _cut(split: Split, order: Sequence[int], ends: Any) -> tuple[Split, ...]:
    parts = np.split(np.array(order, dtype=np.int64), ends)
    return tuple(take(split, np.sort(part)) for part in parts)
