"""Tasks of own data: checked settings become a task with disjoint splits, and a record to load it again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tensoradapt.errors import TensorAdaptError, located
from tensoradapt.lab.metrics.library import check_fits, resolve
from tensoradapt.lab.tasks.classification import Classification, Regression
from tensoradapt.lab.tasks.kinds import Kind, kind_of, kinds
from tensoradapt.lab.tasks.labels import Labels, check_in_train, read_labels
from tensoradapt.lab.tasks.own_settings import SHARES, OwnData, check_kind, settled
from tensoradapt.lab.tasks.splits import Split, Splits, disjoint, divide_classes, take
from tensoradapt.lab.tasks.tables import Table, columns_of, read_dataset, read_file, texts_of
from tensoradapt.lab.tasks.task import Data, Task
from tensoradapt.lab.tasks.vision.picture_folders import PICTURE, tables_of
from tensoradapt.lab.tasks.vision.pictures import read
from tensoradapt.lab.tasks.vision.task import Pictures
from tensoradapt.records import said

KINDS: Mapping[str, Callable[..., Classification]] = {"regression": Regression, "pictures": Pictures}
USUAL = {"classification": ("accuracy",), "regression": ("spearman", "pearson")}  # the first where none is named


def build(own: OwnData) -> tuple[Task, dict[str, Any]]:
    """Return the task of own data, and the record that identifies the data and loads it again.

    Raises TensorAdaptError, naming file, row or column, for data that cannot be read or trained on.
    """
    own = settled(own)
    with located(f"task {own.name!r}"):
        tables = _tables(own)
        kind = _kind(own, tables["train"])
        check_kind(own, kind)
        other = kinds().get(str(kind))
        task, record = _unlabelled(own, other, tables) if other else _labelled(own, kind, tables)
        record = {"kind": kind, **record}
    record |= {"hash": content_hash(task.load()), "source": said(own)}
    return task, json.loads(json.dumps(record))  # as it is read from a run's config


def _kind(own: OwnData, table: Table) -> str | None:
    """Return the kind that is said or that columns have; "pictures" of a folder of them, None where labels will say."""
    if own.of_pictures:
        return "pictures"
    labelled = own.text or own.label or own.labels
    return own.kind if own.kind or labelled else kind_of(table, own.columns or {})


def _unlabelled(own: OwnData, kind: Kind, tables: Mapping[str, Table]) -> tuple[Task, dict[str, Any]]:
    found = {part: kind.examples(table, part, own.columns) for part, table in tables.items()}
    left_out = [note for _, notes in found.values() for note in notes]
    how = [] if own.kind else [f'kind "{kind_of(tables["train"], own.columns or {})}", as its columns are']
    splits = _three(own, {part: split for part, (split, _) in found.items()}, [*how, *left_out])
    of: Any = {"name": own.name, "load_splits": lambda: splits, "source": _where(tables), "licence": "your own"}
    settings = {name: getattr(own, name) for name in kind.settings}
    return kind.task(**of, **settings), settings


def _labelled(own: OwnData, kind: str | None, tables: Mapping[str, Table]) -> tuple[Task, dict[str, Any]]:
    texts, column = columns_of(tables["train"], own.text, own.label)
    pictures = kind == "pictures"
    labels = read_labels(tables, column, "classification" if pictures else kind, own.labels)
    parts = {part: _split(part, table, texts, column, labels, pictures) for part, table in tables.items()}
    splits = _three(own, parts, [note for table in tables.values() for note in table.notes])
    metric = own.metric or USUAL[labels.kind][0]
    metrics = (metric, *(usual for usual in USUAL[labels.kind] if usual != resolve(metric).name))
    made = KINDS.get("pictures" if pictures else labels.kind, Classification)
    n_labels, where = len(labels.classes) or 1, _where(tables)
    of: Any = {"load_splits": lambda n_train, n_test: splits, "classes": labels.classes}
    task = made(str(own.name), n_labels, metrics, len(texts) == 2, where, "your own", **of)
    _check(task, labels, splits)
    return task, {"kind": labels.kind, "metric": metric, **({"labels": labels.classes} if labels.classes else {})}


def _where(tables: Mapping[str, Table]) -> str:
    return ", ".join(dict.fromkeys(table.where for table in tables.values()))


def content_hash(data: Data) -> str:
    """Return sixteen hex digits of the SHA-256 of all texts, tokens or pixels and labels, in order."""
    digest = hashlib.sha256()
    for split in (data.train, data.validation, data.test):
        for example, label in zip(split.contents, split.labels.tolist(), strict=True):
            digest.update(json.dumps([example, label]).encode())
        digest.update(b"\n")
    return digest.hexdigest()[:16]


def _tables(own: OwnData) -> dict[str, Table]:
    if own.dataset:
        tables = read_dataset(own.dataset, own.subset, own.parts)
    elif own.of_pictures:
        tables = tables_of(own.parts)
    else:
        tables = {part: read_file(Path(path)) for part, path in own.parts.items()}
    if "train" not in tables:
        raise TensorAdaptError("there is no split 'train'; expected one: name it by train =")
    if empty := [table.where for table in tables.values() if not len(table)]:
        raise TensorAdaptError(f"{empty[0]} has no rows; expected a row for each example")
    return tables


def _split(part: str, table: Table, texts: Sequence[str], column: str, labels: Labels, pictures: bool) -> Split:
    encoded = labels.encoded({part: table}, column)[part]
    if pictures:
        paths = table.column(PICTURE)
        ids = tuple(path.relative_to(Path(table.where).parent).as_posix() for path in paths)
        return Split(None, encoded, ids, pictures=tuple(map(read, paths)))
    rows = texts_of(table, texts)
    return Split(rows, encoded, tuple(f"{part}-{row}" for row in range(len(rows))))


def _three(own: OwnData, parts: Mapping[str, Split], left_out: Sequence[str]) -> Splits:
    """Return train, validation and test, none of them empty; those that were not given are drawn from train."""
    asked = own.split or {}
    shares = {part: share for part, share in {**SHARES, **asked}.items() if part not in parts}
    if given := [part for part in asked if part in parts]:
        raise TensorAdaptError(f"{given[0]} is given and has a share in split; expected one of them")
    if sum(shares.values()) >= 1:
        raise TensorAdaptError(
            f"split takes {sum(shares.values()):g} of the rows; expected less than 1, the rest is train"
        )
    none = take(parts["train"], np.array([], dtype=np.int64))
    test = parts.get("test", none)
    train, validation, removed = disjoint(parts["train"], parts.get("validation", none), test)
    # in this order, so that giving a validation file does not move test
    drawn = [part for part in ("test", "validation") if part in shares]
    *cut, train = divide_classes(train, [shares[part] for part in drawn], own.seed)
    whole: dict[str, Split] = {
        "train": train,
        "validation": validation,
        "test": test,
        **dict(zip(drawn, cut, strict=True)),
    }
    how = [f"{' and '.join(sorted(drawn))} drawn from train with seed {own.seed}"] if drawn else []
    notes = (*how, *removed, *left_out)
    for part, split in whole.items():
        if not len(split):
            raise TensorAdaptError(f"{part} has no rows left; expected some: {'; '.join(notes) or 'give more data'}")
    return train, whole["validation"], whole["test"], notes


def _check(task: Classification, labels: Labels, splits: Splits) -> None:
    train, validation, test, notes = splits
    check_in_train(labels, train.labels, {"validation": validation.labels, "test": test.labels}, task.source)
    if len(np.unique(test.labels)) < 2:
        how = "; ".join(note for note in notes if "drawn from" in note)
        raise TensorAdaptError(
            f"every label of test is the same, of {len(test)}{f' ({how})' if how else ''}; expected two or more: give "
            "more data"
        )
    check_fits(task.metric, test, task.n_labels)
