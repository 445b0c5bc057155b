"""The types of columns of runs: each cell of anybody's table is read as its column has it, or refused with its row."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from decimal import Decimal
from numbers import Real
from typing import Any

import numpy as np
from pandas import DataFrame, Series
from pandas.api.types import infer_dtype, is_scalar

from tensoradapt.checks import is_whole, shown
from tensoradapt.errors import TensorAdaptError
from tensoradapt.lab.runs.row import FAILED, FLAGS, NUMBERS, REFERENCES, SETUP, STATUSES, WHOLE

TRUTHS = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}
KINDS = ("adapter", *REFERENCES)
ENDLESS = ("metric_low", "metric_high")  # a metric may have no least or largest value


def typed(table: DataFrame) -> DataFrame:
    """Return a table whose known columns have the types that they have in tables of a folder of runs.

    Raises:
        TensorAdaptError: for a cell that its column cannot have, such as a list, a date as a score or a fraction of a
            parameter, with its row and what is expected.
    """
    return table.assign(**{name: _typed(table[name], name) for name in table if name in TYPES})


def _typed(values: Series, name: str) -> Series:
    dtype, read, expected = TYPES[name]
    missing = values.isna()
    if missing.all():
        found = Series([None] * len(values), values.index, dtype)
    elif _is_typed(values, dtype, read):
        found = values.astype(dtype)
    else:
        cells = [None if empty else read(value) for value, empty in zip(values, missing, strict=True)]
        found = Series(cells, values.index, dtype)
    odd = found.isna() & ~missing
    if dtype == "float64" and name not in ENDLESS:
        odd = odd | (found.abs() == math.inf)
    if dtype == "Int64":
        odd = odd | (found < 0).fillna(False)
    if odd.any():
        at = int(odd.to_numpy(bool).argmax())
        value = values.astype(object).iloc[at]  # as Python has it
        raise TensorAdaptError(f"row {values.index[at]!r} has {name} {shown(value)}; expected {expected}")
    return found if dtype != "object" else found.where(~missing, None)


def _is_typed(values: Series, dtype: str, read: Callable[[Any], Any]) -> bool:
    """Say whether each cell of a column is as it is to be, by the column's own type."""
    if dtype == "object":
        return read is _text and infer_dtype(values, skipna=True) == "string"
    kinds = {"Int64": "i", "float64": "iuf", "boolean": "b"}[dtype]
    return getattr(values.dtype, "kind", "O") in kinds


def _text(value: Any) -> str | None:
    return str(value) if is_scalar(value) or isinstance(value, os.PathLike) else None


def _method(value: Any) -> str | None:
    return value if isinstance(value, str) and value.strip() else None


def _word(*words: str) -> Callable[[Any], str | None]:
    return lambda value: word if (word := str(value).strip().lower()) in words else None


def _number(value: Any) -> float | None:
    """Return a number, which may be written as text; None for anything else, such as a truth, a date or a list."""
    if isinstance(value, bool | np.timedelta64) or not isinstance(value, str | Real | Decimal):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def _whole(value: Any) -> int | None:
    is_int = isinstance(value, int | np.integer) and not isinstance(value, np.timedelta64)
    number = value if is_int else _number(value)
    if isinstance(number, float):
        number = int(number) if number.is_integer() else None
    return int(number) if number is not None and is_whole(number, 0, 2**63 - 1) else None


def _flag(value: Any) -> bool | None:
    return TRUTHS.get(str(value).strip().lower().removesuffix(".0"))


def _rank(value: Any) -> int | str | None:
    """Return a rank as a whole number, or as text where it is by bond."""
    return value if isinstance(value, str) and not value.strip().isdecimal() else _whole(value)


COUNTS = ("n_params", "n_trained", "budget")
WHOLES = "a whole number of 0 or more"
TEXTS = ("task", "model", "metric", "parameterization", *SETUP, "begun", "tuned_on", "sweep", "note", "id", "path")
# the type of a column, how a cell is read (None: it cannot be), and what is expected of it
TYPES: Mapping[str, tuple[str, Callable[[Any], Any], str]] = {
    **dict.fromkeys((*TEXTS, "precision", "train"), ("object", _text, "a text")),
    **dict.fromkeys(NUMBERS, ("float64", _number, "a finite number")),
    "score": ("float64", _number, "a finite number: leave out runs without one"),
    **dict.fromkeys(WHOLE, ("Int64", _whole, WHOLES)),
    **dict.fromkeys(COUNTS, ("Int64", _whole, f"{WHOLES}, such as 300000 for 0.3 million")),
    **dict.fromkeys((*FLAGS, "lost"), ("boolean", _flag, "yes or no, true or false, 1 or 0")),
    "method": ("object", _method, "the name of a method"),
    "kind": ("object", _word(*KINDS), f"one of {', '.join(KINDS)}"),
    "status": ("object", _word(*STATUSES, FAILED), f"one of {', '.join((*STATUSES, FAILED))}"),
    "rank": ("object", _rank, "a whole number, or a text of ranks by bond"),
}
