"""What each run asks of a cluster, ``--slurm KEY=VALUE`` and ``--ray KEY=VALUE``, checked before it is asked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tensoradapt.errors import TensorAdaptError, did_you_mean


@dataclass(frozen=True)
class Number:
    """A value of at least ``least``, and what it counts."""

    what: str
    least: int
    whole: bool = True


# submitit asks for its signal 90 s before the end and SLURM may send it 60 s early: less than 4 minutes leave no time
# to compute in, and the job would be requeued for ever
TEXTS = dict.fromkeys(("partition", "account", "qos", "constraint", "exclude"))
KEYS: Mapping[str, Mapping[str, Number | None]] = {
    "slurm": {
        **TEXTS,
        "time": Number("minutes", 4),
        "cpus": Number("cores", 1),
        "gpus": Number("GPUs", 0),
        "mem": Number("GB", 1),
    },
    "ray": {"cpus": Number("cores", 1), "gpus": Number("GPUs or a share of one", 0, whole=False)},
}
DEFAULTS = {"slurm": {"time": 60, "cpus": 1, "gpus": 0}, "ray": {"cpus": 1, "gpus": 0}}


def cluster_options(executor: str, given: Mapping[str, Any] | Iterable[str] | None) -> dict[str, Any]:
    """The options of an executor with defaults filled in, from a mapping or texts such as "time=60".

    >>> cluster_options("slurm", ["partition=gpu", "gpus=1"])
    {'time': 60, 'cpus': 1, 'gpus': 1, 'partition': 'gpu'}

    Raises TensorAdaptError for an unknown key and a value of the wrong kind or too small.
    """
    pairs = given.items() if isinstance(given, Mapping) else [_pair(executor, text) for text in given or ()]
    return {**DEFAULTS[executor], **{key: _value(executor, key, value) for key, value in pairs}}


def _pair(executor: str, text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (equals and value):
        raise TensorAdaptError(f"--{executor} has {text!r}; expected KEY=VALUE, such as cpus=2")
    return key, value


def _value(executor: str, key: str, value: Any) -> Any:
    keys = KEYS[executor]
    if key not in keys:
        raise TensorAdaptError(f"{executor} has the option {key!r}{did_you_mean(key, keys)}")
    number = keys[key]
    if number is None:
        if not isinstance(value, str) or not value:
            raise TensorAdaptError(f"{executor} {key} is {value!r}; expected a text")
        return value
    found = _number(value, number.whole)
    if found is None or not number.least <= found:
        kind = "a whole number" if number.whole else "a number"
        raise TensorAdaptError(
            f"{executor} {key} is {value!r}; expected {kind} of {number.what}, {number.least} or more"
        )
    return found


def _number(value: Any, whole: bool) -> float | None:
    """None for what is no number of the kind."""
    try:
        found = float("nan" if isinstance(value, bool) else value)
    except (TypeError, ValueError):
        return None
    if found.is_integer():
        return int(found)
    return None if whole else found
