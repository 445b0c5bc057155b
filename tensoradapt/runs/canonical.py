"""JSON documents of runs: values of Python and NumPy in JSON's types, and the hash of a config."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tensoradapt.errors import TensorAdaptError


def run_id(config: Mapping[str, Any]) -> str:
    """Sixteen hex digits of the SHA-256 of ``config``.

    They are equal for any order of keys, tuple or list, ``1`` or ``1.0``, numpy or Python numbers. NaN, infinities and
    values that JSON cannot hold raise TensorAdaptError.

    >>> run_id({"rank": 8, "lr": 1.0}) == run_id({"lr": 1, "rank": 8.0})
    True
    >>> run_id({"rank": True}) == run_id({"rank": 1})
    False
    """
    text = json.dumps(plain(config, "config", _canonical), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def plain(value: Any, where: str, number: Callable[[float, str], Any]) -> Any:
    """Convert ``value`` to JSON's types; ``number`` converts or refuses each float."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return number(value, where)
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise TensorAdaptError(f"{where} has the key {key!r}; expected text keys only: write {str(key)!r}")
        return {key: plain(item, f"{where}[{key!r}]", number) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, f"{where}[{i}]", number) for i, item in enumerate(value)]
    raise TensorAdaptError(
        f"{where} is a {type(value).__name__}; expected text, numbers, bools, None, lists or mappings: "
        "convert it first, or store it as an array"
    )


def finite(value: float, where: str) -> float:
    """Return a finite number; raise TensorAdaptError for another."""
    if not math.isfinite(value):
        raise TensorAdaptError(f"{where} is {value}; expected a finite number: leave the key out or use None")
    return value


def _canonical(value: float, where: str) -> float:
    return int(value) if finite(value, where).is_integer() else value


def finite_or_null(value: float, where: str) -> float | None:
    """Return a finite number, or None for another."""
    return value if math.isfinite(value) else None
