"""How many texts of a task are longer than a run reads, and how many tokens they would take."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Sized
from typing import Any

import numpy as np

from tensoradapt.lab.tasks.classification import Classification
from tensoradapt.lab.tasks.splits import Split, take
from tensoradapt.lab.tasks.task import Task

MANY = 0.1  # the share of texts that may be cut before it is worth a line
WHOLE = 1 << 20  # tokens that no text has


def cut(
    task: Task, splits: Sequence[Split], encoded: Sequence[Sequence[Sized]], model: str, max_length: int
) -> dict[str, Any] | None:
    """Return what is cut off of a task's texts, where that is more than a tenth of them; else None.

    A text with fewer tokens than ``max_length`` is whole, so the others alone are encoded again.

    Args:
        task: whose texts they are; one that cuts nothing, such as a task of prompts with answers, has None.
        splits: train, validation and test.
        encoded: the same, encoded at ``max_length``.
        model: name of the model whose tokens are counted.
        max_length: the most tokens that a run reads of a text.

    Returns:
        ``share`` of the texts that are cut, and the tokens that nine tenths of them (``tokens_90``) and all of them
        (``tokens_all``) take.
    """
    if not isinstance(task, Classification) or any(split.texts is None for split in splits):
        return None
    n = sum(map(len, splits))
    full = [[i for i, row in enumerate(rows) if len(row) >= max_length] for rows in encoded]
    if sum(map(len, full)) <= MANY * n:
        return None
    lengths = [len(row) for rows in encoded for row in rows if len(row) < max_length]
    for split, at in zip(splits, full, strict=True):
        lengths += map(len, task.encode(take(split, np.array(at, dtype=np.int64)), model, WHOLE))
    over = sum(length > max_length for length in lengths)
    if over <= MANY * n:
        return None
    lengths.sort()
    return {"share": over / n, "tokens_90": lengths[math.ceil(0.9 * n) - 1], "tokens_all": lengths[-1]}


def cut_text(task: str, found: Mapping[str, Any], max_length: int) -> str:
    """Return the warning about texts that are cut off."""
    return (
        f"warning: {100 * found['share']:.0f} % of the texts of task {task} have more than {max_length} tokens and are "
        f"cut off there; 90 % would be whole at max_length = {found['tokens_90']}, all at {found['tokens_all']}"
    )
