"""Rows of prompts with an answer, or with two answers of which one is preferred: found in a table and checked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from tensoradapt.errors import TensorAdaptError, did_you_mean
from tensoradapt.lab.tasks.kinds import SYSTEM
from tensoradapt.lab.tasks.splits import Split, distinct
from tensoradapt.lab.tasks.tables import Table, text_column

COLUMNS = {"instruct": ("prompt", "answer"), "preference": ("prompt", "chosen", "rejected")}


def examples(
    table: Table, kind: str, part: str, columns: Mapping[str, str] | None = None, strict: bool = True
) -> tuple[Split, tuple[str, ...]]:
    """Return the rows of a table as a split, whose texts are those of ``COLUMNS`` and the system's, and notes.

    The notes count what is left out: rows that are repeated, and unless ``strict`` those with an empty text or with
    equal answers.

    Args:
        table: has the columns of the kind, and perhaps one called system.
        kind: instruct or preference.
        part: what ids and notes call the rows.
        columns: what columns are called in the table, by their names here.
        strict: whether a row with an empty text or equal answers is refused.

    Raises:
        TensorAdaptError: for a column that is not there, and naming the row for a text that is missing or refused.
    """
    called = {**{name: name for name in COLUMNS[kind]}, **(columns or {})}
    if odd := [name for name in called if name not in (*COLUMNS[kind], SYSTEM)]:
        raise TensorAdaptError(f'kind "{kind}" has no column {odd[0]}{did_you_mean(odd[0], (*COLUMNS[kind], SYSTEM))}')
    called |= {SYSTEM: SYSTEM} if SYSTEM in table.columns else {}
    names = [called[name] for name in (*COLUMNS[kind], SYSTEM) if name in called]
    needed = len(COLUMNS[kind])
    counts: Counter[str] = Counter()
    kept: dict[int, tuple[str, ...]] = {}
    for row, texts in enumerate(zip(*(text_column(table, name) for name in names), strict=True)):
        absent = next((name for name in names[:needed] if table.columns[name][row] is None), None)
        fault = f"column {absent!r} is missing" if absent else _fault(names[:needed], texts)
        if fault and (strict or absent):
            raise TensorAdaptError(
                f"{table.at(row)}: {fault}; expected a text in each, and answers that differ: mend the row, or "
                "remove it"
            )
        if fault:
            counts[fault] += 1
        else:
            kept[row] = texts
    ids = tuple(f"{part}-{row + 1}" for row in kept)
    split, again = distinct(Split(tuple(kept.values()), np.zeros(len(kept), np.int64), ids, by_prompt=True))
    counts["repeated"] = again
    return split, tuple(f"{n:,} of {len(table):,} {part} rows left out: {why}" for why, n in counts.items() if n)


def _fault(names: Sequence[str], texts: Sequence[str]) -> str:
    """Return what is wrong with the texts of a row, "" for nothing."""
    empty = [name for name, text in zip(names, texts, strict=False) if not text]
    if empty:
        return f"column {empty[0]!r} is empty"
    return f"columns {names[1]!r} and {names[2]!r} are equal" if len(names) == 3 and texts[1] == texts[2] else ""
