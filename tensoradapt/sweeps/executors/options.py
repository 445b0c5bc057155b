"""Check each run's requests to a cluster, as ``--slurm KEY=VALUE`` and ``--ray KEY=VALUE``, before anything runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tensoradapt.checks import is_number, shown
from tensoradapt.errors import TensorAdaptError, did_you_mean


@dataclass(frozen=True)
class Option:
    """An option whose value is a text if ``what`` is None, else a number of that unit of at least ``least``."""

    what: str | None = None
    least: int = 0
    default: int | None = None
    whole: bool = True


def read_options(
    executor: str, options: Mapping[str, Option], given: Mapping[str, Any] | Iterable[str] | None
) -> dict[str, Any]:
    """Return the values of an executor's options, with defaults, from a mapping or texts such as "time=60".

    >>> read_options("ray", {"cpus": Option("cores", 1, default=1), "gpus": Option("GPUs", default=0)}, ["gpus=1"])
    {'cpus': 1, 'gpus': 1}

    Raises:
        TensorAdaptError: for an unknown key and a value of the wrong type or too small.
    """
    pairs = given.items() if isinstance(given, Mapping) else [_pair(executor, text) for text in given or ()]
    defaults = {key: option.default for key, option in options.items() if option.default is not None}
    return {**defaults, **{key: _value(executor, options, key, value) for key, value in pairs}}


def check_given(executor: str, given: Any) -> None:
    """Raise TensorAdaptError for options that are neither a mapping nor texts."""
    texts = isinstance(given, list | tuple) and all(isinstance(item, str) for item in given)
    if not (given is None or texts or isinstance(given, Mapping)):
        raise TensorAdaptError(f"{executor} is {shown(given)}; expected a mapping, or texts such as ['cpus=2']")


def _pair(executor: str, text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (equals and value):
        raise TensorAdaptError(f"--{executor} has {text!r}; expected KEY=VALUE, such as cpus=2")
    return key, value


def _value(executor: str, options: Mapping[str, Option], key: str, value: Any) -> Any:
    if key not in options:
        raise TensorAdaptError(f"{executor} has the option {shown(key)}{did_you_mean(key, options)}")
    option = options[key]
    if option.what is None:
        if not isinstance(value, str) or not value:
            raise TensorAdaptError(f"{executor} {key} is {shown(value)}; expected a text")
        return value
    number = _number(value, option.whole)
    if number is None or not option.least <= number:
        kind = "a whole number" if option.whole else "a number"
        raise TensorAdaptError(
            f"{executor} {key} is {shown(value)}; expected {kind} of {option.what}, {option.least} or more"
        )
    return number


def _number(value: Any, whole: bool) -> float | None:
    """Return the number that a value stands for, or None."""
    try:
        number = float(value) if isinstance(value, str) else value
    except ValueError:
        return None
    if not is_number(number):
        return None
    number = float(number)
    return int(number) if number.is_integer() else None if whole else number
