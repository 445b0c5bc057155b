"""Tasks of one's own data: a table of settings becomes a task with disjoint splits, and a record to load it again."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tensoradapt import checks
from tensoradapt.errors import TensorAdaptError, located
from tensoradapt.tasks import library_metrics, metrics
from tensoradapt.tasks.classification import Classification, Regression
from tensoradapt.tasks.labels import Labels, check_in_train, read_labels
from tensoradapt.tasks.splits import Data, Split, Splits, disjoint, divide, take
from tensoradapt.tasks.tables import PARTS, SUFFIXES, Table, read_dataset, read_file

SHARES = {"validation": 0.1, "test": 0.2}
LABEL_NAMES = ("label", "labels", "target", "class", "sentiment", "score", "stars", "rating", "y")
TEXT_NAMES = ("text", "sentence", "review", "content", "document", "question", "sequence")
PAIRS = (("sentence1", "sentence2"), ("premise", "hypothesis"), ("question1", "question2"), ("text1", "text2"))
KINDS = ("classification", "regression")


class _Own(Classification):
    """What both kinds of own tasks do: any metric by name."""

    def evaluate(self, predictions: np.ndarray, split: Split) -> dict[str, float]:
        """The task's metric, and accuracy or both correlations."""
        scores, labels = metrics.checked(self, predictions, split.labels)
        usual = ("accuracy",) if self.kind == "classification" else ("spearman", "pearson")
        own = {self.metric: library_metrics.score(self, scores, labels)}
        return own | {name: metrics.named(name, scores, labels) for name in usual if name != self.metric}

    def chance(self, split: Split) -> float:
        """The metric of the best constant answer."""
        return library_metrics.constant(self, split.labels)

    def at_chance(self, value: float, chance: float, n: int) -> bool:
        """Whether a score is within two standard errors of chance, of a share or a correlation; else no better."""
        if self.metric in ("matthews", *library_metrics.OWN["regression"]):
            spread = 1 / math.sqrt(n)
        else:
            spread = math.sqrt(max(chance * (1 - chance), 0) / n) if self.kind == "classification" else 0.0
        return not value > chance + 2 * spread


@dataclass(frozen=True)
class OwnClassification(_Own):
    """Classes of own data."""


@dataclass(frozen=True)
class OwnRegression(_Own, Regression):
    """Numbers of own data."""


def read_settings(table: Any, where: str) -> dict[str, Any]:
    """The checked settings of a task, its paths absolute and its name filled in."""
    settings = checks.checked(table, SETTINGS, f"{where}.")
    if not settings.keys() & {"train", "dataset"}:
        raise TensorAdaptError(f'{where}.train is missing; expected a file, such as train = "reviews.csv", or dataset')
    if "dataset" not in settings:
        settings |= {part: str(Path(settings[part]).absolute()) for part in PARTS if part in settings}
    elif Path(settings["dataset"]).is_dir():
        settings["dataset"] = str(Path(settings["dataset"]).absolute())
    source = settings.get("dataset", settings.get("train", ""))
    settings.setdefault("name", Path(source).name.removesuffix(Path(source).suffix) or "data")
    return settings


def settings_of(source: str) -> dict[str, str]:
    """The settings of a file, or of a data set in a folder or on the hub, that is given by its path or name alone."""
    return {"train" if Path(source).suffix.lower() in SUFFIXES else "dataset": source}


def build(settings: Mapping[str, Any]) -> tuple[Classification, dict[str, Any]]:
    """The task of checked settings, and the record that identifies its data and loads it again.

    Raises TensorAdaptError, naming file, row or column, for data that cannot be read or trained on.
    """
    name = settings["name"]
    with located(f"task {name!r}"):
        tables = _tables(settings)
        texts, column = _columns(settings, tables["train"])
        labels = read_labels(tables, column, settings.get("kind"), settings.get("labels"))
        parts = {part: _split(part, table, texts, column, labels) for part, table in tables.items()}
        splits = _three(settings, parts)
        kind: Callable[..., Classification] = OwnRegression if labels.kind == "regression" else OwnClassification
        metric = settings.get("metric") or library_metrics.DEFAULT[labels.kind]
        where = ", ".join(dict.fromkeys(table.where for table in tables.values()))
        n_labels = len(labels.classes) or 1
        task = kind(name, n_labels, metric, len(texts) == 2, where, "your own", lambda n_train, n_test: splits)
        _check(task, labels, splits)
    record = {"hash": content_hash(task.load()), "kind": labels.kind, "metric": metric, "source": dict(settings)}
    record |= {"labels": labels.classes} if labels.classes else {}
    return task, json.loads(json.dumps(record))  # as it is read from a run's config


def content_hash(data: Data) -> str:
    """Sixteen hex digits of the SHA-256 of all texts or tokens and labels, in order."""
    digest = hashlib.sha256()
    for split in (data.train, data.validation, data.test):
        examples = split.texts if split.tokens is None else split.tokens.tolist()
        for example, label in zip(examples or (), split.labels.tolist(), strict=True):
            digest.update(json.dumps([example, label]).encode())
        digest.update(b"\n")
    return digest.hexdigest()[:16]


def _tables(settings: Mapping[str, Any]) -> dict[str, Table]:
    if "dataset" in settings:
        named = {part: settings[part] for part in PARTS if part in settings}
        tables = read_dataset(settings["dataset"], settings.get("subset"), named)
    else:
        tables = {part: read_file(Path(settings[part])) for part in PARTS if part in settings}
    if "train" not in tables:
        raise TensorAdaptError("there is no split 'train'; expected one: name it by train =")
    if empty := [table.where for table in tables.values() if not len(table)]:
        raise TensorAdaptError(f"{empty[0]} has no rows; expected a row for each example")
    return tables


def _columns(settings: Mapping[str, Any], table: Table) -> tuple[tuple[str, ...], str]:
    """The columns of texts, one or two, and that of labels: as given, or by their usual names."""
    names = list(table.columns)
    label = settings.get("label") or next((name for name in LABEL_NAMES if name in names), None)
    if label is None:
        raise TensorAdaptError(f'{table.where}: no column is called {", ".join(LABEL_NAMES)}; say label = "...", '
                               f"one of {', '.join(names[:10])}")  # fmt: skip
    given = settings.get("text_pair") or ((settings["text"],) if "text" in settings else None)
    rest = [name for name in names if name != label]
    usual: tuple[str, ...] | None = next((pair for pair in PAIRS if set(pair) <= set(rest)), None)
    usual = usual or next(((name,) for name in TEXT_NAMES if name in rest), None)
    texts = given or usual or (tuple(rest) if len(rest) == 1 else None)
    if texts is None:
        raise TensorAdaptError(
            f"{table.where}: which column holds the texts is not clear; say text = \"...\" or text_pair = ['...', "
            f"'...'], of {', '.join(rest[:10])}"
        )
    for name in (*texts, label):
        table.column(name)
    if label in texts:
        raise TensorAdaptError(f"column {label!r} is both text and label; expected two columns")
    return texts, label


def _split(part: str, table: Table, texts: Sequence[str], column: str, labels: Labels) -> Split:
    columns = [[_text(table, name, row, value) for row, value in enumerate(table.column(name))] for name in texts]
    rows = tuple(zip(*columns, strict=True))
    if blank := [row for row, values in enumerate(rows) if not any(values)]:
        raise TensorAdaptError(f"{table.place(blank[0])}: the text is blank; expected one, or no such row")
    ids = tuple(f"{part}-{row}" for row in range(len(rows)))
    return Split(rows, labels.encoded({part: table}, column)[part], ids)


def _text(table: Table, name: str, row: int, value: Any) -> str:
    if value is None or isinstance(value, str):
        return (value or "").strip()
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise TensorAdaptError(
        f"{table.place(row)}: column {name!r} holds a {type(value).__name__}; expected a text. Name another "
        "column by text ="
    )


def _three(settings: Mapping[str, Any], parts: Mapping[str, Split]) -> Splits:
    """Train, validation and test; those that were not given are drawn from train, equal texts together."""
    shares = {part: share for part, share in {**SHARES, **settings.get("split", {})}.items() if part not in parts}
    if given := [part for part in settings.get("split", {}) if part in parts]:
        raise TensorAdaptError(f"{given[0]} is given and has a share in split; expected one of them")
    if sum(shares.values()) >= 1:
        raise TensorAdaptError(
            f"split takes {sum(shares.values()):g} of the rows; expected less than 1, the rest is train"
        )
    seed, none = settings.get("seed", 0), take(parts["train"], np.array([], dtype=np.int64))
    test = parts.get("test", none)
    train, validation, removed = disjoint(parts["train"], parts.get("validation", none), test)
    # in this order, so that giving a validation file does not move test
    drawn = [part for part in ("test", "validation") if part in shares]
    *cut, train = divide(train, [round(shares[part] * len(train)) for part in drawn], seed)
    whole = {"validation": validation, "test": test, **dict(zip(drawn, cut, strict=True))}
    notes = [f"{' and '.join(sorted(drawn))} drawn from train with seed {seed}"] if drawn else []
    return train, whole["validation"], whole["test"], (*notes, *removed)


def _check(task: Classification, labels: Labels, splits: Splits) -> None:
    train, validation, test, notes = splits
    for part, split in zip(PARTS, (train, validation, test), strict=True):
        if not len(split):
            raise TensorAdaptError(f"{part} has no rows left; expected some: {'; '.join(notes) or 'give more data'}")
    check_in_train(labels, train.labels, {"validation": validation.labels, "test": test.labels}, task.source)
    if len(np.unique(test.labels)) < 2:
        raise TensorAdaptError(f"every label of test is the same, of {len(test)}; expected two or more: give more data")
    library_metrics.check_metric(task, test.labels)


def _pair(value: Any, where: str) -> tuple[str, ...]:
    columns = checks.texts(value, where)
    if len(columns) != 2:
        raise TensorAdaptError(f"{where} is {checks.shown(value)}; expected two columns, such as ['premise', 'claim']")
    return columns


def _label(value: Any, where: str) -> str:
    """The name of a class that is given as a word or as a number."""
    if isinstance(value, bool):
        return str(value)
    if checks.is_number(value):
        return f"{checks.as_float(value):.12g}"
    return checks.text(value, where)


def _share(value: Any, where: str) -> float:
    if not checks.is_number(value, 0, 1) or value >= 1:
        raise TensorAdaptError(f"{where} is {checks.shown(value)}; expected a share of the rows between 0 and 1")
    return float(value)


def _shares(value: Any, where: str) -> dict[str, float]:
    return checks.checked(checks.mapping(value, where), dict.fromkeys(SHARES, _share), f"{where}.")


def _source(value: Any, where: str) -> str:
    return str(checks.place(value, where))


SETTINGS: dict[str, checks.Check] = {
    "name": checks.text,
    "train": _source,
    "validation": _source,
    "test": _source,
    "dataset": _source,
    "subset": checks.text,
    "split": _shares,
    "seed": checks.seed,
    "text": checks.text,
    "text_pair": _pair,
    "label": checks.text,
    "labels": partial(checks.listed, _label),
    "kind": partial(checks.one_of, KINDS),
    "metric": lambda value, where: library_metrics.metric_name(value),
    "max_length": lambda value, where: int(checks.whole(value, where)),
}
