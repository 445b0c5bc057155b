"""Models by name, where sites are found: whoever has models registers how the config of a name is read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tensoradapt.errors import TensorAdaptError

_readers: list[Callable[[str], Any]] = []


def register(reader: Callable[[str], Any]) -> None:
    """Have names of models read by a function that returns a config, or raises TensorAdaptError; the last counts."""
    _readers.append(reader)


def config(name: str) -> Any:
    """Return the config of a model that is given by its name or folder; raise TensorAdaptError where there is none."""
    if not _readers:
        raise TensorAdaptError(f"the model is the name {name!r}, and nothing reads names; pass the model or its config")
    return _readers[-1](name)
