"""Own data as one record: where it is, how it is divided, and what is learned of it."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from tensoradapt import checks
from tensoradapt.errors import TensorAdaptError
from tensoradapt.lab.metrics.library import metric_name
from tensoradapt.lab.tasks import given_rows
from tensoradapt.lab.tasks.kinds import kinds, roles
from tensoradapt.lab.tasks.tables import PARTS, SUFFIXES, is_saved
from tensoradapt.records import changed, check_fields, value

SHARES = {"validation": 0.1, "test": 0.2}
LABELLED = ("classification", "regression")
OTHERS = {  # the fields that a kind does without, None: of labels
    None: ("columns", "beta"),
    "pictures": ("text", "label", "subset", "max_length", "columns", "beta"),
}
UNLABELLED = ("text", "label", "labels", "metric", "beta")  # but for what is a setting of the kind


def _columns(given: Any, where: str) -> tuple[str, ...]:
    columns = checks.texts(given, where)
    if len(columns) > 2:
        raise TensorAdaptError(
            f"{where} is {checks.shown(given)}; expected a column, or two of pairs, such as ['premise', 'claim']"
        )
    return columns


def _class(given: Any, where: str) -> str:
    """Return the name of a class that is given as a word or as a number."""
    if isinstance(given, bool):
        return str(given)
    if checks.is_number(given):
        return f"{checks.as_float(given):.12g}"
    return checks.text(given, where)


def _share(given: Any, where: str) -> float:
    if not checks.is_number(given, 0, 1) or given >= 1:
        raise TensorAdaptError(f"{where} is {checks.shown(given)}; expected a share of the rows between 0 and 1")
    return float(given)


def _shares(given: Any, where: str) -> dict[str, float]:
    return checks.checked(checks.mapping(given, where), dict.fromkeys(SHARES, _share), f"{where}.")


def _roles(given: Any, where: str) -> dict[str, str]:
    return checks.checked(checks.mapping(given, where), dict.fromkeys(roles(), checks.text), f"{where}.")


def _source(given: Any, where: str) -> str:
    if given_rows.is_rows(given):
        return given_rows.written(given, where)
    if not isinstance(given, str | os.PathLike):
        raise TensorAdaptError(
            f"{where} is {checks.shown(given)}; expected a file, such as 'reviews.csv', a folder of pictures, or rows: "
            "a DataFrame, a datasets.Dataset or a list of dicts"
        )
    return str(checks.as_path(given, where))


@dataclass(frozen=True, kw_only=True)
class OwnData:
    """A task of own data (docs/start/your-data.md). Raises TensorAdaptError without train and dataset."""

    name: str | None = value(checks.text, "what tables call the task; by default as the file or folder is called")
    train: str | None = value(
        _source,
        "a .csv, .tsv, .jsonl, .json or .parquet file, a folder with a folder of pictures for each class, or rows in "
        "memory (a DataFrame, a datasets.Dataset, a list of dicts), which are kept in the cache",
    )
    validation: str | None = value(_source, "the same, to choose learning rates on; by default drawn from train")
    test: str | None = value(_source, "the same, to report scores of; by default drawn from train")
    dataset: str | None = value(
        _source,
        "in place of files a folder that datasets wrote, or a name on the hub; train, validation and test then name "
        "its splits",
    )
    subset: str | None = value(checks.text, "the part of a data set on the hub")
    split: dict[str, float] | None = value(
        _shares, "shares of train for what is not given; by default validation = 0.1 and test = 0.2"
    )
    seed: int = value(checks.seed, "of the choice of these shares", 0)
    text: tuple[str, ...] | None = value(
        _columns,
        "the column of texts, or both of pairs; by default one with a usual name, or the only one left",
        listed=True,
        former=("text_pair",),
    )
    label: str | None = value(checks.text, "the column of labels; by default one with a usual name")
    labels: tuple[str, ...] | None = value(
        partial(checks.listed, _class),
        "the classes in their order, the last of two is the positive one; by default sorted",
        listed=True,
    )
    kind: str | None = value(
        partial(checks.one_entering, "tasks", LABELLED),
        "classification, regression, instruct (prompts with answers) or preference (prompts with a chosen and a "
        "rejected answer); by default as columns and labels are",
    )
    columns: dict[str, str] | None = value(
        _roles,
        "what the columns prompt, answer, chosen, rejected and system are called, where that is otherwise; system may "
        "be left out",
    )
    beta: float = value(checks.number, "of preference: how much a margin over the frozen base counts, per nat", 0.1)
    metric: str | None = value(
        lambda given, where: metric_name(given),
        "accuracy, f1, matthews, roc_auc, spearman, pearson, kendall, a scorer of scikit-learn, a Metric, or a "
        "function of labels and predictions; by default accuracy, or spearman of numbers",
    )
    max_length: int | None = value(checks.whole, "the most tokens of an example; by default the sweep's")

    def __post_init__(self) -> None:
        check_fields(self)
        if self.train is None and self.dataset is None:
            raise TensorAdaptError(
                'train is missing; expected a file, such as train = "reviews.csv", or a folder of pictures; or dataset'
            )

    @property
    def of_pictures(self) -> bool:
        """Whether train is a folder of pictures."""
        return self.dataset is None and Path(self.train or "").is_dir()

    @property
    def parts(self) -> dict[str, str]:
        """The given ones of train, validation and test."""
        return {part: given for part in PARTS if (given := getattr(self, part)) is not None}


def settled(own: OwnData) -> OwnData:
    """Return the record with absolute paths and a name, and with a folder of pictures as train."""
    if own.dataset and not own.train and Path(own.dataset).is_dir() and not is_saved(Path(own.dataset)):
        own = replace(own, train=own.dataset, dataset=None)
    paths = own.parts if own.dataset is None else {"dataset": own.dataset} if Path(own.dataset).is_dir() else {}
    absolute: dict[str, Any] = {name: str(Path(path).absolute()) for name, path in paths.items()}
    own = replace(own, **absolute)
    source = Path(own.dataset or own.train or "")
    named = source.name.removesuffix(source.suffix)
    if own.of_pictures:
        named = source.parent.name if source.name == "train" else source.name
    return replace(own, name=own.name or named or "data")


def check_kind(own: OwnData, kind: str | None) -> None:
    """Raise TensorAdaptError for a field that a kind does without; "pictures" is one, None has labels."""
    given, other = changed(own), kinds().get(str(kind))
    without = [name for name in UNLABELLED if name not in other.settings] if other else OTHERS.get(kind, OTHERS[None])
    if odd := [name for name in without if name in given]:
        of = f"pictures, as in {own.train}" if kind == "pictures" else f'kind "{kind or "classification"}"'
        raise TensorAdaptError(f"{odd[0]} is {checks.shown(given[odd[0]])}; expected none with {of}: leave it out")
    if kind == "pictures" and own.kind not in (None, "classification"):
        raise TensorAdaptError(f"kind is {own.kind!r}; expected 'classification', as pictures have")


def settings_of(source: str) -> dict[str, str]:
    """Return the settings of a file, or of a data set in a folder or on the hub, that its path or name alone gives."""
    return {"train" if Path(source).suffix.lower() in SUFFIXES else "dataset": source}
