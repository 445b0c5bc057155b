"""Rows of Alpaca and of LLM-Adapters' questions: read, checked field by field, and without repeated ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tensoradapt.errors import TensorAdaptError
from tensoradapt.extras.answers.rows import examples
from tensoradapt.lab.tasks import data_folder
from tensoradapt.lab.tasks.splits import Split, distinct
from tensoradapt.lab.tasks.tables import read_dataset, read_file, text_column

ALPACA, HUB = "instruct/alpaca_5000.json", "tatsu-lab/alpaca"
QUESTIONS = {  # LLM-Adapters' test rows, by the metric that they give
    "boolq": "reasoning/boolq/test.json",
    "arc_easy": "reasoning/ARC-Easy/test.json",
    "openbookqa": "reasoning/openbookqa/test.json",
}
ANSWER, FORMAT = "the correct answer is {}", "Answer format: "  # as the rows write them
MOST_OPTIONS = 5


def alpaca() -> tuple[Split, tuple[str, ...]]:
    """Return prompts with their answers, and notes on the rows that were left out."""
    path = data_folder.local(ALPACA)
    if path and path.is_file():
        table = read_file(path)
    else:
        holding = f"{ALPACA}, rows of instruction, input and output"
        online = lambda: read_dataset(HUB, None, {"train": "train"})["train"]  # noqa: E731
        table = data_folder.online(online, "alpaca", data_folder.missing(path), holding)
    asked = zip(text_column(table, "instruction"), text_column(table, "input"), strict=True)
    prompts = ["\n\n".join(filter(None, texts)) if texts[0] else "" for texts in asked]
    table = replace(table, columns={"prompt": prompts, "answer": table.column("output")})
    rows, left_out = examples(table, "instruct", "alpaca", strict=False)
    return rows, (f"from {table.where}", *left_out)


def questions(kind: str) -> tuple[Split, tuple[str, ...]]:
    """Return questions with their options, and notes on those that were left out; none where their file is missing.

    The label is the place of the right option.
    """
    path = data_folder.local(QUESTIONS[kind])
    if not path or not path.is_file():
        note = f"{kind} is left out: TENSORADAPT_DATA has no {QUESTIONS[kind]}"
        return Split((), np.zeros(0, np.int64), (), by_prompt=True), (note,)
    table = read_file(path)
    rows = zip(text_column(table, "instruction"), text_column(table, "answer"), strict=True)
    texts, right = zip(*(_options(*row, table.at(i)) for i, row in enumerate(rows)), strict=True)
    ids = tuple(f"{kind}-{row + 1}" for row in range(len(texts)))
    found, again = distinct(Split(texts, np.array(right, np.int64), ids, by_prompt=True))
    return found, (f"{again} {kind} rows left out: repeated",) if again else ()


def _options(asked: str, answer: str, where: str) -> tuple[tuple[str, ...], int]:
    """Return a question with its options, and the place of the right one."""
    names = asked.rpartition(FORMAT)[2].split("/") if FORMAT in asked else []
    if not 2 <= len(names) <= MOST_OPTIONS or answer not in names:
        raise TensorAdaptError(
            f"{where}: the answer is {answer!r} and its options {', '.join(names) or 'are not said'}; expected one of "
            f'2 to {MOST_OPTIONS}, as in "{FORMAT}true/false" at the end of the instruction'
        )
    return (asked, *map(ANSWER.format, names)), names.index(answer)
