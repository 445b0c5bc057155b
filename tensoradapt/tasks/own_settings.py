"""The settings of a task of own data: each checked, paths absolute, the name filled in."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from tensoradapt import checks
from tensoradapt.errors import TensorAdaptError
from tensoradapt.metrics.library import metric_name
from tensoradapt.tasks.tables import PARTS, SUFFIXES, is_saved
from tensoradapt.tasks.vision.picture_folders import of_pictures

SHARES = {"validation": 0.1, "test": 0.2}
KINDS = ("classification", "regression")
OF_TEXTS = ("text", "text_pair", "label", "subset", "max_length")


def read_settings(table: Any, where: str) -> dict[str, Any]:
    """The checked settings of a task, its paths absolute and its name filled in."""
    settings = checks.checked(table, SETTINGS, f"{where}.")
    if not settings.keys() & {"train", "dataset"}:
        raise TensorAdaptError(
            f'{where}.train is missing; expected a file, such as train = "reviews.csv", or a folder of pictures; or '
            "dataset"
        )
    if "train" not in settings and Path(settings["dataset"]).is_dir() and not is_saved(Path(settings["dataset"])):
        settings["train"] = settings.pop("dataset")  # a folder of pictures
    if of_pictures(settings):
        _check_pictures(settings, where)
    if "dataset" not in settings:
        settings |= {part: str(Path(settings[part]).absolute()) for part in PARTS if part in settings}
    elif Path(settings["dataset"]).is_dir():
        settings["dataset"] = str(Path(settings["dataset"]).absolute())
    source = Path(settings.get("dataset", settings.get("train", "")))
    named = source.name.removesuffix(source.suffix)
    if of_pictures(settings):
        named = source.parent.name if source.name == "train" else source.name
    settings.setdefault("name", named or "data")
    return settings


def _check_pictures(settings: Mapping[str, Any], where: str) -> None:
    if given := [key for key in OF_TEXTS if key in settings]:
        raise TensorAdaptError(
            f"{where}.{given[0]} is for texts, and {settings['train']} is a folder of pictures, which have the class "
            "of their folder; leave it out"
        )
    if settings.get("kind", "classification") != "classification":
        raise TensorAdaptError(f"{where}.kind is {settings['kind']!r}; expected 'classification', as pictures have")


def settings_of(source: str) -> dict[str, str]:
    """The settings of a file, or of a data set in a folder or on the hub, that is given by its path or name alone."""
    return {"train" if Path(source).suffix.lower() in SUFFIXES else "dataset": source}


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
    "metric": lambda value, where: metric_name(value),
    "max_length": lambda value, where: int(checks.whole(value, where)),
}
