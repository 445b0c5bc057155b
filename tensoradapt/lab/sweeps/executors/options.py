"""Check each run's requests to a cluster, as ``--slurm KEY=VALUE`` and ``--ray KEY=VALUE``, before anything runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tensoradapt.checks import is_number, shown, strings
from tensoradapt.errors import TensorAdaptError, did_you_mean
from tensoradapt.records import of_words


@dataclass(frozen=True)
class Option:
    """An option whose value is a text if ``what`` is None, else a number of that unit of at least ``least``."""

    what: str | None = None
    least: int = 0
    default: int | None = None
    whole: bool = True


def read_options(
    executor: str, options: Mapping[str, Option], given: Mapping[str, Any] | Sequence[str] | None
) -> dict[str, Any]:
    """Return the values of an executor's options, with defaults, from a mapping or texts such as "time=60".

    >>> read_options("ray", {"cpus": Option("cores", 1, default=1), "gpus": Option("GPUs", default=0)}, ["gpus=1"])
    {'cpus': 1, 'gpus': 1}

    Raises:
        TensorAdaptError: for an unknown key and a value of the wrong type or too small.
    """
    if not isinstance(given, Mapping):
        given = dict(_pair(executor, word) for word in strings(() if given is None else given, executor))
    defaults = {key: option.default for key, option in options.items() if option.default is not None}
    return {**defaults, **{key: _value(executor, options, key, value) for key, value in given.items()}}


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
    number = of_words([value]) if isinstance(value, str) else value
    if not is_number(number) or number < option.least or (option.whole and number != int(number)):
        kind = "a whole number" if option.whole else "a number"
        raise TensorAdaptError(
            f"{executor} {key} is {shown(value)}; expected {kind} of {option.what}, {option.least} or more"
        )
    return int(number) if number == int(number) else float(number)
