"""The documents of a run as others may have written them: what every reader relies on is there and of its type."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from tensoradapt import checks
from tensoradapt.checks import Check, is_number, is_whole, shown
from tensoradapt.errors import TensorAdaptError, located

LONGEST = 1_000  # characters of a name
LARGEST = 2**63 - 1
KINDS = ("adapter", "head", "full")
STATUSES = ("finished", "collapsed", "diverged")
AGAIN = "no run wrote it so; delete the folder to run it again"


def words(value: Any, where: str) -> str:
    """Return a text, perhaps empty."""
    if not isinstance(value, str):
        raise TensorAdaptError(f"{where} is {shown(value)}; expected a text")
    return value


def name(value: Any, where: str) -> str:
    """Return a text that can be a name."""
    if not isinstance(value, str) or not 0 < len(value) <= LONGEST:
        raise TensorAdaptError(f"{where} is {shown(value)}; expected a name of at most {LONGEST:,} characters")
    return value


def count(value: Any, where: str) -> Any:
    """Return a whole number from zero."""
    if not is_whole(value, 0, LARGEST) and not (isinstance(value, float) and value.is_integer() and value >= 0):
        raise TensorAdaptError(f"{where} is {shown(value)}; expected a whole number from 0 up to 2**63 - 1")
    return value


def score(value: Any, where: str) -> Any:
    """Return a finite number."""
    if not is_number(value):
        raise TensorAdaptError(f"{where} is {shown(value)}; expected a finite number")
    return value


def scale(value: Any, where: str) -> Any:
    """Return the name of a rule, or a number."""
    return name(value, where) if isinstance(value, str) else score(value, where)


def rank(value: Any, where: str) -> Any:
    """Return one rank, or one for each mode or bond."""
    return checks.named(count, value, where) if isinstance(value, Mapping) else count(value, where)


def names(value: Any, where: str) -> Any:
    """Return a list of names."""
    if not isinstance(value, list):
        raise TensorAdaptError(f"{where} is {shown(value)}; expected a list of names")
    return [name(item, where) for item in value]


def table(value: Any, where: str) -> Any:
    """Return a table."""
    return checks.named(checks.anything, value, where)


def scores(value: Any, where: str) -> Any:
    """Return a score for each metric, None where a run diverged."""
    return checks.named(checks.optional(score), value, where)


def metric(value: Any, where: str) -> Any:
    """Return the metric of a run: its name, range and chance; None where the range has no end."""
    ends = dict.fromkeys(("low", "high"), checks.optional(score))
    found = checks.checked(value, {"name": name, "chance": score, **ends}, f"{where}.")
    if missing := {"name", "chance", *ends} - found.keys():
        raise TensorAdaptError(f"{where} has no {min(missing)!r}; expected name, low, high and chance")
    return found


NEEDED: Mapping[str, Mapping[str, Check]] = {
    "config": {
        **dict.fromkeys(("label", "model", "task"), name),
        "kind": partial(checks.one_of, KINDS),
        "seed": count,
        "lr": score,
    },
    "result": {
        "status": partial(checks.one_of, STATUSES),
        "metric": metric,
        **dict.fromkeys(("validation", "test"), scores),
        "n_params": count,
        "note": words,
    },
    "measurements": {},
    "provenance": {},
    "error": {"kind": words, "error": words, "config": table},
}
GIVEN: Mapping[str, Mapping[str, Check]] = {
    "config": {
        **dict.fromkeys(("parameterization", "published", "method"), name),
        **dict.fromkeys(("steps", "batch", "budget", "n_train", "n_validation", "n_test", "max_length"), count),
        **dict.fromkeys(("layout", "projections"), names),
        **dict.fromkeys(("plan", "training", "data"), table),
        "head_lr": score,
        "scale": scale,
        "rank": rank,
        "tuning": checks.flag,
    },
    "result": {"n_trained_base": count},
    "measurements": {
        **dict.fromkeys(("seconds", "step_seconds_median"), score),
        **dict.fromkeys(("adapter_bytes", "peak_memory_bytes", "peak_device_bytes"), count),
    },
    "provenance": {"packages": table},
    "error": {"traceback": words},
}


def check_types(path: Path, documents: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise TensorAdaptError, naming file and key, where a value in a document of the run in ``path`` is of no type
    that is written there.
    """
    for document, values in documents.items():
        with located(f"{path / document}.json: {AGAIN}"):
            for key, check in NEEDED[document].items():
                if key in values:
                    check(values[key], key)
            for key, check in GIVEN[document].items():
                checks.optional(check)(values.get(key), key)
    if config := documents.get("error", {}).get("config"):
        check_types(path, {"config": config})


def check_complete(path: Path, documents: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise TensorAdaptError where a document of the run in ``path`` lacks a value that every run has."""
    for document, values in documents.items():
        if missing := NEEDED[document].keys() - values.keys():
            raise TensorAdaptError(
                f"{path} has no {min(missing)!r} among its documents; expected what a sweep writes: delete the folder "
                "to run it again"
            )
    if "error" in documents:
        check_complete(path, {"config": documents["error"]["config"]})
