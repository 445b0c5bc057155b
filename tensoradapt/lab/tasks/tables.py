"""Read the columns of a data file, a folder of the `datasets` library, or a data set on the hub."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tensoradapt.errors import TensorAdaptError, did_you_mean, first_line, of_extra
from tensoradapt.files import explained, open_bytes
from tensoradapt.habits import FILES

PARTS = ("train", "validation", "test")
HUB_NAME = re.compile(r"\w[\w.-]{0,95}/\w[\w.-]{0,95}", re.ASCII)
GIVEN = "given-rows"  # the folder of files made of rows in memory (given_rows)
FORMS = "a .csv, .tsv, .jsonl, .json or .parquet file"
PICTURES = "a folder with a folder of pictures for each class"
LABEL_NAMES = ("label", "labels", "target", "class", "sentiment", "score", "stars", "rating", "y")
TEXT_NAMES = ("text", "sentence", "review", "content", "document", "question", "sequence")
PAIRS = (("sentence1", "sentence2"), ("premise", "hypothesis"), ("question1", "question2"), ("text1", "text2"))


@dataclass(frozen=True)
class Table:
    """Columns of equal length by name.

    ``at(row)`` names a row, counted from 0, in messages; ``notes`` say what was left out.
    """

    where: str
    columns: Mapping[str, Sequence[Any]]
    at: Callable[[int], str]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def column(self, name: str) -> Sequence[Any]:
        """Return the values of a column; raises TensorAdaptError with the closest name where there is none."""
        if name not in self.columns:
            raise TensorAdaptError(f"{self.where} has no column {name!r}{did_you_mean(name, self.columns)}")
        return self.columns[name]


def read_file(path: Path) -> Table:
    """Read a file by its suffix; raises TensorAdaptError where it is no such file, damaged, or without rows."""
    if path.suffix.lower() not in _READERS:
        advice = FILES.get(path.suffix.lower(), "").format(path=path.name)
        raise TensorAdaptError(
            f"{path} is no data that can be read; expected {FORMS}, or {PICTURES}{advice and f': {advice}'}"
        )
    if path.exists() and not path.is_file():  # a device can be without end
        raise TensorAdaptError(f"{path} is no file; expected {FORMS}")
    with explained("read", path, f"expected {FORMS}", ValueError, csv.Error, RecursionError):
        with open_bytes(path) as file:
            data = file.read()
        table = _READERS[path.suffix.lower()](path, data)
    if not len(table):
        raise TensorAdaptError(f"{path} has no rows; expected a row for each example")
    return table


def read_dataset(name: str, subset: str | None, parts: Mapping[str, str]) -> dict[str, Table]:
    """Read a folder that ``save_to_disk`` wrote, or a data set on the hub, as a table for each part that it has.

    ``parts``: names of its splits for train, validation and test; default those names.
    """
    folder = Path(name).is_dir()
    if not (is_saved(Path(name)) if folder else HUB_NAME.fullmatch(name)):
        raise TensorAdaptError(
            f"{name} is {'a folder without a data set' if folder else 'no file, folder or name on the hub'}; expected "
            f"{FORMS}, {PICTURES}, a folder written by save_to_disk, or a name such as owner/name"
        )
    datasets = of_extra("datasets", "hub", f"reading the data set {name}")
    datasets.disable_progress_bars()
    try:
        loaded = datasets.load_from_disk(name) if folder else datasets.load_dataset(name, subset)
    except Exception as error:  # the errors of the hub's client share no base class
        offline = " HF_HUB_OFFLINE is set, so the hub was not asked." if os.environ.get("HF_HUB_OFFLINE") else ""
        raise TensorAdaptError(
            f"data set {name} cannot be loaded ({first_line(error)}).{offline} Expected {FORMS}, a folder written by "
            "save_to_disk, or a name on the hub"
        ) from error
    found = loaded if isinstance(loaded, Mapping) else {parts.get("train", "train"): loaded}
    for part, split in parts.items():
        if split not in found:
            raise TensorAdaptError(f"data set {name} has no split {split!r} for {part}{did_you_mean(split, found)}")
    wanted = {part: parts.get(part, part) for part in PARTS}
    return {
        part: _from_dataset(f"{name}, split {split}", found[split]) for part, split in wanted.items() if split in found
    }


def columns_of(
    table: Table, given: tuple[str, ...] | None = None, label: str | None = None
) -> tuple[tuple[str, ...], str]:
    """Return the columns of texts, one or two, and that of labels: as given, or by their usual names."""
    names = list(table.columns)
    label = label or next((name for name in LABEL_NAMES if name in names), None)
    if label is None:
        raise TensorAdaptError(f'{table.where}: no column is called {", ".join(LABEL_NAMES)}; say label = "...", '
                               f"one of {', '.join(names[:10])}")  # fmt: skip
    rest = [name for name in names if name != label]
    usual: tuple[str, ...] | None = next((pair for pair in PAIRS if set(pair) <= set(rest)), None)
    usual = usual or next(((name,) for name in TEXT_NAMES if name in rest), None)
    texts = given or usual or (tuple(rest) if len(rest) == 1 else None)
    if texts is None:
        raise TensorAdaptError(
            f'{table.where}: which column holds the texts is not clear; say text = "...", or of pairs '
            f"text = ['...', '...'], of {', '.join(rest[:10])}"
        )
    for name in (*texts, label):
        table.column(name)
    if label in texts:
        raise TensorAdaptError(f"column {label!r} is both text and label; expected two columns")
    return texts, label


def texts_of(table: Table, names: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Return the texts of each row; raises TensorAdaptError for what is no text, and for a row of blank texts."""
    rows = tuple(zip(*(text_column(table, name) for name in names), strict=True))
    if blank := [row for row, values in enumerate(rows) if not any(values)]:
        raise TensorAdaptError(f"{table.at(blank[0])}: the text is blank; expected one, or no such row")
    return rows


def text_column(table: Table, name: str) -> list[str]:
    """Return the texts of a column, "" for a missing one; raises TensorAdaptError for what is no text, with its row."""
    return [_text(table, name, row, value) for row, value in enumerate(table.column(name))]


def _text(table: Table, name: str, row: int, value: Any) -> str:
    if value is None or isinstance(value, str):
        return (value or "").strip()
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise TensorAdaptError(
        f"{table.at(row)}: column {name!r} holds a {type(value).__name__}; expected a text, or another column"
    )


def is_saved(folder: Path) -> bool:
    """Return whether ``save_to_disk`` of the `datasets` library wrote a folder."""
    return any((folder / name).is_file() for name in ("state.json", "dataset_dict.json"))


def _from_dataset(where: str, rows: Any) -> Table:
    return Table(where, columns_of_dataset(rows), lambda row: f"{where}, row {row + 1}")


def columns_of_dataset(rows: Any) -> dict[str, list[Any]]:
    """Return the columns of a ``datasets.Dataset``; classes that are stored as numbers have their names."""
    columns = {}
    for name, feature in rows.features.items():
        values = list(rows[name])
        if hasattr(feature, "int2str"):
            values = [feature.int2str(value) if value is not None and value >= 0 else None for value in values]
        columns[name] = values
    return columns


def _csv(path: Path, data: bytes) -> Table:
    """Read a comma separated file with a header; a cell with commas, quotes or line breaks is in double quotes.

    Semicolons separate the cells where the header has some and no comma, as spreadsheets write where the comma is the
    decimal sign.
    """
    text = _decoded(path, data)
    header = text.partition("\n")[0]
    sign = ";" if ";" in header and "," not in header else ","
    return _separated(path, data, csv.reader(io.StringIO(text, newline=""), delimiter=sign, strict=True))


def _decoded(path: Path, data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise TensorAdaptError(
            f"{path}, line {line} has the byte 0x{data[error.start]:02x}, which is no UTF-8; expected a file in UTF-8: "
            f'write it as such, as pandas.read_csv({path.name!r}, encoding="latin-1") reads many others'
        ) from None


def _tsv(path: Path, data: bytes) -> Table:
    """Read a tab separated file with a header; quotes are plain characters."""
    lines = io.StringIO(_decoded(path, data), newline="")
    return _separated(path, data, csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))


def _separated(path: Path, data: bytes, reader: Any) -> Table:
    rows, lines = [], []
    header = [name.strip() for name in next(reader, [])]
    if twice := [name for name in header if header.count(name) > 1]:
        raise TensorAdaptError(f"{path} has two columns {twice[0]!r}; expected a name for each")
    for row in reader:
        if not row:  # a blank line
            continue
        if len(row) != len(header):
            raise TensorAdaptError(
                f"{path}, line {reader.line_num}: {len(row)} cells; expected {len(header)}, as many as its header has. "
                "Put a cell that holds the separator in double quotes, or name the file .tsv if tabs separate its cells"
            )
        rows.append(row)
        lines.append(reader.line_num)
    columns = {name: [row[i] for row in rows] for i, name in enumerate(header)}
    return Table(str(path), columns, lambda row: f"{path}, line {lines[row]}")


def _jsonl(path: Path, data: bytes) -> Table:
    """Read a file with a JSON object on each line."""
    rows, lines = [], []
    for number, line in enumerate(_decoded(path, data).split("\n"), 1):
        if line.strip():
            try:
                rows.append(json.loads(line))
            except (ValueError, RecursionError) as error:
                raise TensorAdaptError(f"{path}, line {number} is no JSON ({error}); expected an object") from None
            lines.append(number)
    if path.parent.name == GIVEN:  # rows that were given in memory are no file of the user's
        return _objects("the given rows", rows, lambda row: f"row {lines[row]} of the given rows")
    return _objects(str(path), rows, lambda row: f"{path}, line {lines[row]}")


def _json(path: Path, data: bytes) -> Table:
    """Read a JSON file that is a list of objects."""
    rows = json.loads(_decoded(path, data))
    if not isinstance(rows, list):
        raise TensorAdaptError(f"{path} holds a {type(rows).__name__}; expected a list of objects")
    return _objects(str(path), rows, lambda row: f"{path}, row {row + 1}")


def _objects(where: str, rows: Sequence[Any], at: Callable[[int], str]) -> Table:
    """Return the columns of objects; a key that one of them lacks is None there."""
    if odd := [i for i, row in enumerate(rows) if not isinstance(row, dict)]:
        raise TensorAdaptError(f"{at(odd[0])} is a {type(rows[odd[0]]).__name__}; expected an object")
    names = dict.fromkeys(name for row in rows for name in row)
    for i, text in ((i, text) for i, row in enumerate(rows) for item in row.items() for text in item):
        if isinstance(text, str) and any("\ud800" <= c <= "\udfff" for c in ("" if text.isascii() else text)):
            raise TensorAdaptError(
                f"{at(i)} has half a character, {ascii(text)[:40]}; expected whole ones, as in UTF-8"
            )
    return Table(where, {name: [row.get(name) for row in rows] for name in names}, at)


def _parquet(path: Path, data: bytes) -> Table:
    parquet = of_extra("pyarrow.parquet", "data", f"reading {path}", "pyarrow")
    columns = parquet.read_table(io.BytesIO(data)).to_pydict()
    return Table(str(path), columns, lambda row: f"{path}, row {row + 1}")


_READERS: Mapping[str, Callable[[Path, bytes], Table]] = {
    ".csv": _csv,
    ".tsv": _tsv,
    ".jsonl": _jsonl,
    ".json": _json,
    ".parquet": _parquet,
}
SUFFIXES = tuple(_READERS)
