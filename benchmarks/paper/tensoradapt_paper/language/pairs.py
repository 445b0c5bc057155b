"""Pairs of answers: files and data sets on the hub, what is left out of them, and the tasks of their splits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from tensoradapt.checks import shown
from tensoradapt.errors import TensorAdaptError
from tensoradapt.extras.answers.preference import Preferences
from tensoradapt.extras.answers.rows import examples
from tensoradapt.lab.tasks import data_folder
from tensoradapt.lab.tasks.splits import Split, Splits, carve, disjoint, take
from tensoradapt.lab.tasks.tables import Table, read_dataset, read_file

ULTRAFEEDBACK, ORCA = "trl-lib/ultrafeedback_binarized", "argilla/distilabel-intel-orca-dpo-pairs"
FILES = {"train": "ultrafeedback_train_1000.jsonl", "test": "ultrafeedback_eval_200.jsonl"}
_pairs = partial(examples, kind="preference", strict=False)
VALIDATION = 0.2  # the share of train, as few pairs are short
ORCA_HELD_OUT, ORCA_SCORE = 0.2, 8  # the first rows, and the lowest score of a preferred answer


def ultrafeedback() -> Splits:
    """The files of 1,000 and 200 pairs in the folder of TENSORADAPT_DATA, or else the whole data set on the hub.

    Raises TensorAdaptError naming both ways where neither is there, and the row of a pair that lacks a field.
    """
    folder = data_folder.local("preference")
    missing = [file for file in FILES.values() if folder and not (folder / file).is_file()]
    if folder and not missing:
        tables = {part: read_file(folder / file) for part, file in FILES.items()}
        where = f"from {folder.name}: {', '.join(FILES.values())}"
    else:
        lacking = f"{folder} lacks {', '.join(missing)}" if folder else data_folder.UNSET
        where, online = f"from {ULTRAFEEDBACK}", _online("ultrafeedback", ULTRAFEEDBACK, lacking, ("train", "test"))
        tables = {part: _of_messages(table) for part, table in online.items()}
    (train, left_out), (test, more) = (_pairs(tables[part], part=part) for part in ("train", "test"))
    return _divided(train, test, VALIDATION, (where, *left_out, *more))


def orca() -> Splits:
    """The pairs that the experiments of LoRTA keep of the data set on the hub; the first fifth is test.

    No ties, no preferred answer that scores below 8, and no question of GSM8K's training set.
    """
    table = _online("orca-pairs", ORCA, "it has no local files", ("train",))["train"]
    status, scores, known = (table.column(name) for name in ("status", "chosen_score", "in_gsm8k_train"))
    rules = {
        "are ties": [value == "tie" for value in status],
        f"score below {ORCA_SCORE}": [score is None or score < ORCA_SCORE for score in scores],
        "are in GSM8K's train": [bool(value) for value in known],
    }
    out = np.logical_or.reduce([*map(np.array, rules.values())])
    counts = ", ".join(f"{sum(rule)} {why}" for why, rule in rules.items())
    pairs, left_out = _pairs(_rows(table, np.flatnonzero(~out)), part="orca", columns={"prompt": "input"})
    first = int(len(pairs) * ORCA_HELD_OUT)
    test, train = (take(pairs, np.arange(*ends)) for ends in ((0, first), (first, len(pairs))))
    notes = (f"from {ORCA}", f"{out.sum()} of {len(out)} pairs left out: {counts}", *left_out)
    return _divided(train, test, VALIDATION / 2, notes)


def _online(task: str, name: str, where: str, parts: Sequence[str]) -> dict[str, Table]:
    holding = f"preference/ holding {', '.join(FILES.values())}" if task == "ultrafeedback" else ""
    return data_folder.online(partial(read_dataset, name, None, {part: part for part in parts}), task, where, holding)


def _of_messages(table: Table) -> Table:
    """Prompt and answers of rows whose sides are chats of a question and an answer."""
    sides = {side: [_messages(table, side, row) for row in range(len(table))] for side in ("chosen", "rejected")}
    columns = {side: [answer for _, answer in rows] for side, rows in sides.items()}
    return replace(table, columns={"prompt": [prompt for prompt, _ in sides["chosen"]], **columns})


def _messages(table: Table, side: str, row: int) -> tuple[str, str]:
    value = table.column(side)[row]
    said = [(one.get("role"), one.get("content")) for one in value] if isinstance(value, list | tuple) else []
    if [role for role, _ in said] != ["user", "assistant"]:
        raise TensorAdaptError(f"{table.at(row)}: {side} is {shown(value)}; expected a user's message and an answer")
    return said[0][1], said[1][1]


def _rows(table: Table, rows: np.ndarray) -> Table:
    columns = {name: [values[row] for row in rows] for name, values in table.columns.items()}
    return replace(table, columns=columns, at=lambda row: table.at(int(rows[row])))


def _divided(train: Split, test: Split, share: float, notes: Sequence[str]) -> Splits:
    """Train, a share of it for validation, and test, of which no two share a prompt."""
    validation, rest = carve(train, int(len(train) * share))
    rest, validation, removed = disjoint(rest, validation, test)
    return rest, validation, test, (*notes, f"validation is {share:.0%} of train, by prompt", *removed)


ULTRAFEEDBACK_PAIRS = Preferences(
    "ultrafeedback",
    ultrafeedback,
    f"{ULTRAFEEDBACK}: 1,000 and 200 pairs in the folder named by TENSORADAPT_DATA, or all of it online",
    "MIT",
    ULTRAFEEDBACK,
)
ORCA_PAIRS = Preferences("orca-pairs", orca, f"{ORCA} online, filtered as in LoRTA's experiments", "Apache-2.0", ORCA)
