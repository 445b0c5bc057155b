"""Read the config.json of a model's folder within bounds, before transformers reads it without any."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tensoradapt.checks import is_whole, shown
from tensoradapt.errors import TensorAdaptError
from tensoradapt.files import explained, parse_json, read_bounded

CONFIG = "config.json"
LARGEST = 2**63 - 1
# for each of these transformers makes a module, or an element of a list
COUNTED = {r"layers?$|blocks?$|^depths?$": 1_000, r"experts?$": 4_096, r"labels?$|^num_|^n_|size$|dim$|^d_": 2**20}


def check_config(folder: Path) -> None:
    """Raise TensorAdaptError for a config.json that is no JSON object, or has counts that no model has.

    A missing one is left to who loads the model.
    """
    path = folder / CONFIG
    hint = "expected the config of a model that transformers can load"
    if not path.exists():
        return
    if not path.is_file():  # a pipe would block
        raise TensorAdaptError(f"{path} is no file; {hint}")
    with explained("read", path, hint):
        data = read_bounded(path, "and no config has as many")
    config = parse_json(data, path, hint, strict=False)  # some models have infinite limits
    if not isinstance(config, dict):
        raise TensorAdaptError(f"{path} is a {type(config).__name__}; {hint}")
    if not isinstance(names := config.get("architectures") or [], list):
        raise TensorAdaptError(f"{path}: 'architectures' is {shown(names)}; expected a list of names of classes")
    for key, value in _numbers(config):
        most = next((most for pattern, most in COUNTED.items() if re.search(pattern, key)), LARGEST)
        if value > most:
            raise TensorAdaptError(f"{path}: {shown(key)} is {shown(value)}; expected at most {most:,}")


def _numbers(value: Any, key: str = "") -> Iterator[tuple[str, int]]:
    """Yield the whole numbers of a config with their keys; the elements of a list have the key of the list."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _numbers(item, name)
    elif isinstance(value, list):
        for item in value:
            yield from _numbers(item, key)
    elif is_whole(value, 0):
        yield key, value
