"""Rows that are given in memory become a file in the user's cache, so that every process of a sweep reads the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tensoradapt.checks import shown
from tensoradapt.errors import TensorAdaptError
from tensoradapt.files import replace_file
from tensoradapt.lab.data.assets import cache_dir
from tensoradapt.lab.tasks.tables import GIVEN, columns_of_dataset
from tensoradapt.records import finite_or_null, plain


def is_rows(given: Any) -> bool:
    """Say whether a value is a table in memory: a DataFrame, a Dataset, a list of dicts, or a dict of columns."""
    return hasattr(given, "columns") or hasattr(given, "to_pandas") or isinstance(given, Mapping | list | tuple)


def written(given: Any, where: str) -> str:
    """Write rows into the cache, under the hash of their content; return the path of the file.

    Args:
        given: a DataFrame (pandas, or anything with ``to_pandas``), a ``datasets.Dataset``, a list of dicts, or a dict
            of columns of equal length. None and NaN are missing values; what JSON cannot hold becomes a text.
        where: what the rows are called in messages.

    Raises:
        TensorAdaptError: for no rows, columns of several lengths, and rows that are no dicts.
    """
    rows: list[Any] = [*_rows(given, where)]
    if not rows:
        raise TensorAdaptError(f"{where} has no rows; expected a row for each example")
    lines = (json.dumps({str(name): _json(value) for name, value in row.items()}) for row in rows)
    text = "\n".join(lines).encode() + b"\n"
    path = cache_dir() / GIVEN / f"{hashlib.sha256(text).hexdigest()[:16]}.jsonl"
    if not path.is_file() or path.read_bytes() != text:  # which was cut or changed since
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, text)
    return str(path)


def _json(value: Any) -> Any:
    """Return a value in JSON's types; what has none, such as a date, as a text: it may stand in an unused column."""
    try:
        return plain(value, "", finite_or_null)
    except TensorAdaptError:
        return str(value)


def _rows(given: Any, where: str) -> Iterator[Mapping[str, Any]]:
    if isinstance(given, Sequence):
        if wrong := [i for i, row in enumerate(given, 1) if not isinstance(row, Mapping)]:
            raise TensorAdaptError(
                f"{where}, row {wrong[0]} is {shown(given[wrong[0] - 1])}; expected a dict for each row"
            )
        yield from given
        return
    if isinstance(given, Mapping) and any(hasattr(value, "features") for value in given.values()):
        names = ", ".join(f"{name}=data[{name!r}]" for name in given)
        raise TensorAdaptError(f"{where} is several parts ({', '.join(map(str, given))}); expected one, as in {names}")
    found = _columns(given)
    if odd := [name for name, values in found.items() if not isinstance(values, Sequence) or isinstance(values, str)]:
        raise TensorAdaptError(f"{where}[{odd[0]!r}] is {shown(found[odd[0]])}; expected a list, an entry for each row")
    columns = {str(name): [*values] for name, values in found.items()}
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise TensorAdaptError(f"{where} has columns of {shown(lengths)} entries; expected as many in each")
    yield from (dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))


def _columns(given: Any) -> Mapping[str, Sequence[Any]]:
    if isinstance(given, Mapping):
        return given
    if hasattr(given, "features"):
        return columns_of_dataset(given)
    frame = given if hasattr(given, "columns") and hasattr(given, "iloc") else given.to_pandas()
    return {name: frame[name].astype(object).where(frame[name].notna(), None).tolist() for name in frame.columns}
