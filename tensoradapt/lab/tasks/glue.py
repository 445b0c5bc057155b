"""Five GLUE tasks, from a local folder (TENSORADAPT_DATA) or else through `datasets`."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tensoradapt.errors import TensorAdaptError
from tensoradapt.lab.tasks import data_folder
from tensoradapt.lab.tasks.classification import Classification, Regression
from tensoradapt.lab.tasks.splits import Split, Splits, carve

_HUB = "nyu-mll/glue"
_CARVED = 0.1
_SST2_NOTE = "train and validation hold phrases of the same sentences, so validation looks easier than test"


@dataclass(frozen=True)
class LocalFiles:
    """The columns of a task's local files: `columns` names the first ones; `texts` and `label` are positions in them.

    A first line equal to the names is expected where `header`; up to `extra` unnamed columns may follow. `validation`
    is None where it is carved from train.
    """

    folder: str
    train: str
    validation: str | None
    test: str
    columns: tuple[str, ...]
    header: bool
    texts: tuple[int, ...]
    label: int
    label_of: Callable[[str], float]
    extra: int = 0
    hub_texts: tuple[str, ...] = ("sentence1", "sentence2")


_binary = {"0": 0, "1": 1}.__getitem__
_entailment = {"entailment": 0, "not_entailment": 1}.__getitem__  # GLUE's own numbering


def _task(
    name: str, metric: str, licence: str, classes: tuple[str, ...] = (), *, pair: bool = True, regression: bool = False
) -> Classification:
    kind, n_labels, beside = (Regression, 1, "pearson") if regression else (Classification, 2, "accuracy")
    source = f"GLUE {name}: the folder named by TENSORADAPT_DATA, or {_HUB} online"
    metrics = tuple(dict.fromkeys((metric, beside)))
    own: Any = {"classes": classes, "load_splits": lambda n_train, n_test: load_splits(name)}
    return kind(name, n_labels, metrics, pair, source, licence, **own)


TASKS = {
    "sst2": _task("sst2", "accuracy", "SST: research use, no explicit licence", ("negative", "positive"), pair=False),
    "cola": _task(
        "cola", "matthews", "CoLA: published examples under fair use", ("unacceptable", "acceptable"), pair=False
    ),
    "rte": _task("rte", "accuracy", "PASCAL RTE 1, 2, 3 and 5: research use", ("entailment", "not_entailment")),
    "mrpc": _task(
        "mrpc", "f1", "Microsoft Research Paraphrase Corpus licence: research use", ("not_equivalent", "equivalent")
    ),
    "stsb": _task("stsb", "spearman", "scores CC BY-SA 4.0; texts by their sources' licences", regression=True),
}
_MRPC_COLUMNS = ("Quality", "#1 ID", "#2 ID", "#1 String", "#2 String")
_STSB_COLUMNS = ("genre", "file", "year", "id", "score", "sentence1", "sentence2")
LOCAL_FILES = {
    "sst2": LocalFiles(
        "SST-2", "train.tsv", "dev.tsv", "test.tsv", ("sentence", "label"), True, (0,), 1, _binary,
        hub_texts=("sentence",),
    ),
    "cola": LocalFiles(
        "CoLA", "train.tsv", "val.tsv", "dev.tsv", ("source", "label", "mark", "sentence"), False, (3,), 1, _binary,
        hub_texts=("sentence",),
    ),
    "rte": LocalFiles(
        "RTE", "train.tsv", None, "dev.tsv", ("index", "sentence1", "sentence2", "label"), True, (1, 2), 3, _entailment
    ),
    "mrpc": LocalFiles(
        "MRPC", "msr_paraphrase_train.txt", None, "msr_paraphrase_test.txt", _MRPC_COLUMNS, True, (3, 4), 0, _binary
    ),
    "stsb": LocalFiles(
        "STS-B", "sts-train.tsv", "sts-dev.tsv", "sts-test.tsv", _STSB_COLUMNS, False, (5, 6), 4, float, extra=2
    ),
}  # fmt: skip


def load_splits(name: str) -> Splits:
    """Return train, validation and test with notes on where they come from.

    Raises TensorAdaptError for a file with other columns or labels than expected. When the data is neither local nor
    online, the error names both ways to provide it.
    """
    folder = data_folder.local(f"glue/{LOCAL_FILES[name].folder}")
    missing = [file for file in _files(LOCAL_FILES[name]) if not (folder / file).is_file()] if folder else []
    where = f"{folder} lacks {', '.join(missing)}" if folder else data_folder.UNSET
    train, validation, test, notes = _local(name, folder) if folder and not missing else _online(name, where)
    return train, validation, test, (*notes, _SST2_NOTE) if name == "sst2" else notes


def _files(local: LocalFiles) -> list[str]:
    return [file for file in (local.train, local.validation, local.test) if file]


def _local(name: str, folder: Path) -> Splits:
    local = LOCAL_FILES[name]
    train, test = (read(TASKS[name], local, folder / file) for file in (local.train, local.test))
    if local.validation:
        validation = read(TASKS[name], local, folder / local.validation)
        return train, validation, test, (f"from {local.folder}: {', '.join(_files(local))}",)
    validation, train = carve(train, int(len(train) * _CARVED))
    return train, validation, test, (f"from {local.folder}; validation is a tenth of {local.train}",)


def read(task: Classification, local: LocalFiles, path: Path) -> Split:
    """Read all examples of a tab separated file, in which quotes are plain characters.

    Raises TensorAdaptError naming the file and the line for wrong columns and unknown labels.
    """
    lines = path.read_text(encoding="utf-8-sig").rstrip("\n").split("\n")
    rows = [line.rstrip("\r").split("\t") for line in lines]
    if local.header and rows[0] != list(local.columns):
        raise _columns_error(path, 1, rows[0], local)
    first = 1 if local.header else 0
    numbers = range(first + 1, len(rows) + 1)
    labels = [_label(path, number, row, local) for number, row in zip(numbers, rows[first:], strict=True)]
    return Split(
        texts=tuple(tuple(row[column].strip() for column in local.texts) for row in rows[first:]),
        labels=np.array(labels, dtype=np.float64 if task.kind == "regression" else np.int64),
        ids=tuple(f"{path.stem}-{number}" for number in numbers),
    )


def _label(path: Path, number: int, row: list[str], local: LocalFiles) -> float:
    if not 0 <= len(row) - len(local.columns) <= local.extra:
        raise _columns_error(path, number, row, local)
    try:
        return local.label_of(row[local.label])
    except (KeyError, ValueError):
        raise TensorAdaptError(
            f"{path}, line {number}: found label {row[local.label]!r}, expected one of GLUE's {local.folder}: "
            "use the labelled files of the task"
        ) from None


def _columns_error(path: Path, number: int, row: list[str], local: LocalFiles) -> TensorAdaptError:
    cells = ", ".join(repr(cell[:40]) for cell in row)
    expected = f"{len(local.columns)} tab separated columns {', '.join(local.columns)}"
    return TensorAdaptError(
        f"{path}, line {number}: found {len(row)} columns {cells}, expected {expected}: "
        "replace the file, or unset TENSORADAPT_DATA to load the task online"
    )


def _online(name: str, where: str) -> Splits:
    holding = f"glue/{LOCAL_FILES[name].folder}/ holding {', '.join(_files(LOCAL_FILES[name]))}"
    parts = data_folder.online(lambda: data_folder.from_hub(name, _HUB, name), name, where, holding)
    full, test = (_from_hub(TASKS[name], LOCAL_FILES[name], parts, part) for part in ("train", "validation"))
    validation, train = carve(full, int(len(full) * _CARVED))
    notes = (f"from {_HUB} online; test is GLUE's validation, whose labels are public; validation is a tenth of train",)
    return train, validation, test, notes


def _from_hub(task: Classification, local: LocalFiles, parts: Any, part: str) -> Split:
    rows = parts[part]
    labels = np.array(rows["label"], dtype=np.float64 if task.kind == "regression" else np.int64)
    columns = [[text.strip() for text in rows[column]] for column in local.hub_texts]
    return Split(tuple(zip(*columns, strict=True)), labels, tuple(f"{part}-{row}" for row in range(len(labels))))
