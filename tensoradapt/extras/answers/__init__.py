"""Answers to prompts: tasks that train on answers, ``instruct``, or on which of two is preferred, ``preference``."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from tensoradapt.extras.answers.instruct import Instruct
from tensoradapt.extras.answers.preference import Preferences
from tensoradapt.extras.answers.rows import COLUMNS, examples
from tensoradapt.lab.tasks.kinds import Kind
from tensoradapt.lab.tasks.splits import Split
from tensoradapt.lab.tasks.tables import Table


def _examples(kind: str, table: Table, part: str, columns: Mapping[str, str] | None) -> tuple[Split, tuple[str, ...]]:
    return examples(table, kind, part, columns)


TASKS = {
    "instruct": Kind(COLUMNS["instruct"], Instruct, partial(_examples, "instruct")),
    "preference": Kind(COLUMNS["preference"], Preferences, partial(_examples, "preference"), ("beta",)),
}
