"""Checks of single values: each refuses what is wrong with one error that says what was expected."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from tensoradapt.errors import TensorAdaptError, did_you_mean


def check_number(what: str, value: Any, above: float) -> None:
    """Refuses what is not a finite number above a bound."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= above:
        raise TensorAdaptError(f"{what} is {value!r}; expected a finite number above {above}")


def check_rank(rank: Any, what: str = "rank") -> None:
    """Refuses everything but a whole number of 1 or more, or a mapping of such."""
    if isinstance(rank, Mapping):
        if not rank:
            raise TensorAdaptError("rank is an empty mapping; expected a rank for each mode, or one whole number")
        for name, value in rank.items():
            check_rank(value, f"rank of {name!r}")
    elif isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
        raise TensorAdaptError(f"{what} is {rank!r}; expected a whole number of 1 or more")


Check = Callable[[Any, str], Any]


LARGEST = 2**31 - 1


def text(value: Any, where: str) -> str:
    """A text that is not empty."""
    if not isinstance(value, str) or not value.strip():
        raise TensorAdaptError(f"{where} is {value!r}; expected a text")
    return value


def whole(value: Any, where: str, least: int = 1) -> int:
    """A whole number; ``8.0`` is one.

    >>> whole(8.0, "steps")
    8
    """
    fits = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not fits or value != int(value) or not least <= value <= LARGEST:
        raise TensorAdaptError(f"{where} is {value!r}; expected a whole number from {least} up to {LARGEST:,}")
    return int(value)


def number(value: Any, where: str) -> float:
    """A finite number above zero."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
        raise TensorAdaptError(f"{where} is {value!r}; expected a finite number above 0")
    return float(value)


def rank(value: Any, where: str) -> int | dict[str, int]:
    """One rank, or one for each mode or bond."""
    if isinstance(value, Mapping):
        return of_each(whole, value, where)
    return whole(value, where)


def mapping(value: Any, where: str) -> dict[str, Any]:
    """A table that is not empty."""
    if not isinstance(value, Mapping) or not value:
        raise TensorAdaptError(f"{where} is {value!r}; expected a table with at least one key")
    return dict(value)


def listed(check: Check, value: Any, where: str) -> tuple[Any, ...]:
    """A list that is not empty and names nothing twice."""
    made = listed_freely(check, value, where)
    if twice := [one for i, one in enumerate(made) if one in made[:i]]:
        raise TensorAdaptError(f"{where} names {twice[0]!r} twice; name each once")
    return made


def listed_freely(check: Check, value: Any, where: str) -> tuple[Any, ...]:
    """A list that is not empty, where a value may come again."""
    if not isinstance(value, list | tuple) or not value:
        raise TensorAdaptError(f"{where} is {value!r}; expected a list of at least one")
    return tuple(check(one, f"{where}[{i}]") for i, one in enumerate(value))


def of_each(check: Check, value: Any, where: str) -> dict[str, Any]:
    """A table whose values are all of one kind."""
    return {key: check(one, f"{where}.{key}") for key, one in mapping(value, where).items()}


def parts(value: Any, where: str) -> Any:
    """Sizes of a mode's parts, or those for each width that it can have, a number that TOML keeps as text."""
    if not isinstance(value, Mapping):
        return listed_freely(whole, value, where)
    if odd := [width for width in value if not str(width).isdigit()]:
        raise TensorAdaptError(f"{where} has the key {odd[0]!r}; expected widths, such as 768 = [24, 32]")
    return of_each(partial(listed_freely, whole), value, where)


def texts(value: Any, where: str) -> tuple[str, ...]:
    """A list of texts, or one text."""
    return listed(text, [value] if isinstance(value, str) else value, where)


def flag(value: Any, where: str) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise TensorAdaptError(f"{where} is {value!r}; expected true or false")
    return value


def one_of(names: Sequence[str], value: Any, where: str) -> str:
    """One of some names."""
    if value not in names:
        raise TensorAdaptError(f"{where} is {value!r}{did_you_mean(value, names)}")
    return str(value)


def scale(value: Any, where: str) -> str | float:
    """The scale of an adapter: a rule by name, or a number."""
    return one_of(("matched", "paper"), value, where) if isinstance(value, str) else number(value, where)


def checked(found: Any, keys: Mapping[str, Check], where: str) -> dict[str, Any]:
    """A table of known keys, each value checked; ``where`` is what their names begin with."""
    if not isinstance(found, Mapping):
        raise TensorAdaptError(f"{where or 'the sweep'} is {found!r}; expected a table of settings")
    made = {}
    for key, value in found.items():
        if key not in keys:
            raise TensorAdaptError(f"unknown key {where}{key}{did_you_mean(key, keys)}")
        made[key] = keys[key](value, f"{where}{key}")
    return made
