"""The rows of MetaMathQA and GSM8K from local files, filtered and split as in PEFT's comparison."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from metamath_suite.setting import Files
from tensoradapt.errors import TensorAdaptError
from tensoradapt.lab.tasks.tables import read_file, text_column

LONGEST = 1300  # characters of a query and its response, with the space between them
SEED = 0  # of the draw of validation questions, whatever the seed of a run


@dataclass(frozen=True)
class Row:
    """A question and the response to it."""

    query: str
    response: str


@dataclass(frozen=True)
class Rows:
    """What is trained on, in the file's order; validation and test questions; general texts, if a file has them."""

    train: Sequence[Row]
    validation: Sequence[Row]
    test: Sequence[Row]
    general: Sequence[str] | None = None


def read_rows(files: Files, folder: Path) -> Rows:
    """Read the files; raises TensorAdaptError for one that is missing, damaged or lacks a column."""
    train = [row for row in _rows(folder / files.train, "query", "response") if _fits(row)]
    if not train:
        raise TensorAdaptError(f"{folder / files.train} has no row of at most {LONGEST} characters")
    validation = _drawn(_rows(folder / files.validation, "question", "answer"), files.n_validation)
    test = _rows(folder / files.test, "question", "answer")[: files.n_test]
    general = text_column(read_file(folder / files.general_text), "text") if files.general_text else None
    return Rows(train, validation, test, general)


def _rows(path: Path, query: str, response: str) -> list[Row]:
    table = read_file(path)
    return [Row(*texts) for texts in zip(text_column(table, query), text_column(table, response), strict=True)]


def _fits(row: Row) -> bool:
    return len(f"{row.query} {row.response}") <= LONGEST


def _drawn(rows: Sequence[Row], n: int) -> list[Row]:
    """Draw questions as numpy's old generator does from its seed, since the comparison's 50 are drawn so."""
    order = np.arange(len(rows))
    np.random.RandomState(SEED).shuffle(order)
    return [rows[i] for i in order[:n]]
