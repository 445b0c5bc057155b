"""Labels of own data: words or numbers become classes or targets; each fault names its row."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tensoradapt.checks import is_number, shown
from tensoradapt.errors import TensorAdaptError, few
from tensoradapt.lab.tasks.tables import Table

MOST_NUMBERED = 20  # classes that are told from targets without being asked
MISSING = ("nan", "na", "n/a", "null", "none", "-nan")


@dataclass(frozen=True)
class Labels:
    """The kind of the labels, "classification" or "regression", and the classes in the order of their numbers."""

    kind: str
    classes: tuple[str, ...] = ()

    def encoded(self, tables: Mapping[str, Table], column: str) -> dict[str, np.ndarray]:
        """Return the labels of each part: numbers of classes, or targets."""
        if self.kind == "regression":
            parts = {part: _numbers(table, column) for part, table in tables.items()}
            return {part: np.array(values, dtype=np.float64) for part, values in parts.items()}
        at = {name: i for i, name in enumerate(self.classes)}
        return {
            part: np.array([at[_word(value)] for value in table.column(column)], dtype=np.int64)
            for part, table in tables.items()
        }


def read_labels(
    tables: Mapping[str, Table], column: str, kind: str | None = None, classes: Sequence[str] | None = None
) -> Labels:
    """Find out what the labels of own data are, from their column in each part.

    Words are classes, numbers with fractions are targets; whole numbers are classes if there are at most 20 different
    ones. Raises TensorAdaptError, naming the row, for missing labels and those that are not of the ``kind`` or one of
    the ``classes`` that are given, and where there is one class only.
    """
    values = [value for table in tables.values() for value in _present(table, column)]
    numeric = all(_number(value) is not None for value in values)
    if kind is None:
        kind = _kind(tables, column, values, numeric)
    if kind == "regression":
        for table in tables.values():
            _numbers(table, column)
        if len(set(map(_number, values))) == 1:
            raise TensorAdaptError(
                f"{_where(tables)}: every {column!r} is {shown(values[0])}; expected numbers that differ"
            )
        return Labels(kind)
    return Labels(kind, _classes(tables, column, values, numeric, classes))


def check_in_train(labels: Labels, train: np.ndarray, others: Mapping[str, np.ndarray], where: str) -> None:
    """Raise TensorAdaptError for a class that another part has and train lacks."""
    counts = Counter(train.tolist())
    for part, values in others.items():
        for number, n in sorted(Counter(values.tolist()).items()):
            if labels.kind == "classification" and not counts[number]:
                raise TensorAdaptError(
                    f"{where}: class {shown(labels.classes[number])} is in {part} ({n} rows) and not in train; "
                    "expected each class in train: add examples of it, or leave it out"
                )


def _present(table: Table, column: str) -> Sequence[Any]:
    """Return the labels of a table; raises TensorAdaptError where one is missing or of another type."""
    values = table.column(column)
    numeric = sum(_number(value) is not None for value in values) > len(values) / 2
    for row, value in enumerate(values):
        blank = value is None or (isinstance(value, str) and not value.strip())
        gone = (isinstance(value, float) and not math.isfinite(value)) or (
            numeric and isinstance(value, str) and value.strip().lower() in MISSING
        )
        if blank or gone:
            raise TensorAdaptError(
                f"{table.at(row)}: the label in column {column!r} is {'missing' if blank else shown(value)}; "
                "expected one for each row: remove the row, or label it"
            )
        if not isinstance(value, str | int | float):
            raise TensorAdaptError(
                f"{table.at(row)}: the label in column {column!r} is a {type(value).__name__}; expected a word or a "
                "number"
            )
    return values


def _kind(tables: Mapping[str, Table], column: str, values: Sequence[Any], numeric: bool) -> str:
    distinct = len({_word(value) for value in values})
    if numeric:
        numbers = [float(_number(value) or 0) for value in values]
        if not all(number.is_integer() for number in numbers):
            return "regression"
        if distinct > MOST_NUMBERED:
            raise TensorAdaptError(
                f"{_where(tables)}: {column!r} has {distinct:,} different whole numbers, which may be classes or "
                'targets; say kind = "classification" or kind = "regression"'
            )
    elif distinct > max(MOST_NUMBERED, len(values) / 2):
        raise TensorAdaptError(
            f"{_where(tables)}: {column!r} has {distinct:,} different words in {len(values):,} rows; expected a class "
            f"that many rows share. Its columns are {few(list(next(iter(tables.values())).columns))}"
        )
    return "classification"


def _classes(
    tables: Mapping[str, Table], column: str, values: Sequence[Any], numeric: bool, given: Sequence[str] | None
) -> tuple[str, ...]:
    found = dict.fromkeys(map(_word, values))
    if given is not None:
        for table in tables.values():
            for row, value in enumerate(table.column(column)):
                if _word(value) not in given:
                    raise TensorAdaptError(
                        f"{table.at(row)}: the label is {shown(value)}; expected one of labels: {few(list(given))}"
                    )
        found = dict.fromkeys(given)
    if len(found) < 2:
        raise TensorAdaptError(
            f"{_where(tables)}: every label in {column!r} is {shown(next(iter(found)))}; expected two classes or more"
        )
    if given is not None:
        return tuple(given)
    return tuple(sorted(found, key=float) if numeric else sorted(found))


def _numbers(table: Table, column: str) -> list[float]:
    numbers = []
    for row, value in enumerate(_present(table, column)):
        number = _number(value)
        if number is None:
            raise TensorAdaptError(
                f"{table.at(row)}: the label in column {column!r} is {shown(value)}; expected a number, as the task "
                "is a regression"
            )
        numbers.append(number)
    return numbers


def _number(value: Any) -> float | None:
    """Return a number, or the number that a text says; None for another value."""
    if isinstance(value, bool):  # a word
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if is_number(number) else None


def _word(value: Any) -> str:
    """Return the name of a class: ``1`` and ``1.0`` are one."""
    number = _number(value)
    if number is not None and number.is_integer():
        return str(int(number))
    return str(value).strip()


def _where(tables: Mapping[str, Table]) -> str:
    return ", ".join(dict.fromkeys(table.where for table in tables.values()))
