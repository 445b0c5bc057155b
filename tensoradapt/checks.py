"""Checks of single values, each of which raises one error that says what was found and what was expected."""

from __future__ import annotations

import importlib
import inspect
import math
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from functools import partial
from itertools import islice
from numbers import Integral, Real
from pathlib import Path
from reprlib import Repr
from typing import Any

from tensoradapt import doors
from tensoradapt.errors import TensorAdaptError, did_you_mean

Check = Callable[[Any, str], Any]
LARGEST = 2**31 - 1
MOST = 10_000  # the most items of a list
LONGEST_NAME = 255  # the most bytes of the name of a file or folder, on every usual file system
BITS = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}  # torch's names of types, and short ones
SHORT_COUNT = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?) ?([kKmM]?)")  # 18600, 18.6k or 1.5M
POWERS = {"": 1, "k": 10**3, "m": 10**6}
SHORT = Repr()
SHORT.maxstring = SHORT.maxother = 100
SHORT.maxlong = 30


def is_whole(value: Any, least: int = 1, most: float = math.inf) -> bool:
    """Say whether a value is a whole number (numpy's too) in a range, both ends included; a boolean is not."""
    return isinstance(value, Integral) and not isinstance(value, bool) and least <= int(value) <= most


def is_number(value: Any, above: float = -math.inf, most: float = math.inf) -> bool:
    """Say whether a value is a finite number above ``above`` and up to ``most``; a boolean is not."""
    plain = isinstance(value, Real) and not isinstance(value, bool)
    return plain and math.isfinite(as_float(value)) and above < as_float(value) <= most


def as_float(value: Any) -> float:
    """Return a number as a float; infinite where it is a whole number too large for one."""
    try:
        return float(value)
    except OverflowError:
        return math.inf


def check_whole(what: str, value: Any, least: int = 1, most: int | None = None) -> None:
    """Raise TensorAdaptError unless ``value`` is an int in a range, both ends included.

    >>> check_whole("seed", -1, 0, 2**63 - 1)
    Traceback (most recent call last):
    tensoradapt.errors.TensorAdaptError: seed is -1; expected a whole number from 0 up to 2**63 - 1
    """
    if is_whole(value, least, math.inf if most is None else most):
        return
    if most is None:
        raise TensorAdaptError(f"{what} is {shown(value)}; expected a whole number of {least} or more")
    end = f"{most:,}" if most < LARGEST else f"2**{most.bit_length()} - 1"
    raise TensorAdaptError(f"{what} is {shown(value)}; expected a whole number from {least} up to {end}")


def check_number(what: str, value: Any, above: float) -> None:
    """Raise TensorAdaptError unless ``value`` is a finite number above a bound."""
    if not is_number(value, above):
        other = hasattr(value, "__float__") and not isinstance(value, Real)  # Decimal, and arrays and tensors
        as_one = f" as an int or a float, not a {type(value).__name__}" if other else ""
        raise TensorAdaptError(f"{what} is {shown(value)}; expected a finite number above {above}{as_one}")


def check_arguments(given: Mapping[str, Any], **checks: Check) -> None:
    """Raise TensorAdaptError for the first argument that fails its check; ``given`` is ``locals()`` of a function."""
    for name, check in checks.items():
        check(given[name], name)


def check_is(what: str, value: Any, kind: type) -> None:
    """Raise TensorAdaptError unless ``value`` is an instance of a class."""
    if not isinstance(value, kind):
        home = kind.__module__.partition(".modules.")[0]  # torch.nn.Module, as one types it
        raise TensorAdaptError(f"{what} is {shown(value)}; expected a {home}.{kind.__qualname__}{its_model(value)}")


def its_model(value: Any) -> str:
    """Return the end of a message about what is no model and holds one, such as a pipeline or a trainer; else ""."""
    held = inspect.getattr_static(value, "model", None)
    return ": pass its model, as in pipeline.model" if hasattr(held, "named_modules") else ""


def check_rank(rank: Any, what: str = "rank") -> None:
    """Raise TensorAdaptError unless ``rank`` is a whole number of 1 or more, or a mapping of such."""
    if not isinstance(rank, Mapping):
        _refuse_list(what, rank)
        check_whole(what, rank)
        if rank > LARGEST:
            raise TensorAdaptError(f"{what} is {shown(rank)}; expected a whole number up to 2**31 - 1")
    elif not rank:
        raise TensorAdaptError("rank is an empty mapping; expected a rank for each mode, or one whole number")
    else:
        for name, value in rank.items():
            check_rank(value, f"rank of {name!r}")


def _refuse_list(what: str, rank: Any) -> None:
    """Raise TensorAdaptError for ranks in an order, which a network does not have: its modes and bonds have names."""
    if isinstance(rank, list | tuple):
        raise TensorAdaptError(
            f"{what} is {shown(rank)}; expected one whole number (a sweep takes a list of ranks), or a number for "
            'each mode by its name, such as {"layer": 2, "in": 8}; the printed plan of one rank names them'
        )


def text(value: Any, where: str) -> str:
    """Return a text that is not blank and has no control characters."""
    if not isinstance(value, str) or not value.strip():
        raise TensorAdaptError(f"{where} is {shown(value)}; expected a text")
    if not value.isprintable():
        raise TensorAdaptError(f"{where} is {shown(value)}; expected a text without line breaks and control characters")
    return value


def whole(value: Any, where: str, least: int = 1, most: int = LARGEST) -> int:
    """Return a whole number as an int; ``8.0`` is one.

    >>> whole(8.0, "steps")
    8
    """
    number = int(value) if isinstance(value, float) and value.is_integer() else value
    check_whole(where, number, least, most)
    return int(number)


def count(value: Any, where: str) -> int:
    """Return a number of parameters as an int; k is a thousand of them and M a million.

    >>> count("18.6k", "budget")
    18600
    """
    short = SHORT_COUNT.fullmatch(value.strip()) if isinstance(value, str) else None
    if isinstance(value, str) and not short:
        raise TensorAdaptError(f'{where} is {shown(value)}; expected a whole number, such as 18600 or "18.6k"')
    n = float(Decimal(short[1]) * POWERS[short[2].lower()]) if short else value
    if is_number(n, 0) and n < 1:
        raise TensorAdaptError(
            f'{where} is {shown(value)}; expected a number of parameters, such as 18600 or "18.6k", and no share: a '
            "printed plan says which share of its matrices that is"
        )
    return whole(n, where)


def number(value: Any, where: str) -> float:
    """Return a finite number above zero as a float."""
    check_number(where, value, above=0)
    return float(value)


def rank(value: Any, where: str) -> int | dict[str, int]:
    """Return one rank, or one for each mode or bond."""
    if isinstance(value, Mapping):
        return of_each(whole, value, where)
    _refuse_list(where, value)
    return whole(value, where)


def mapping(value: Any, where: str) -> dict[str, Any]:
    """Return a table that is not empty."""
    if not isinstance(value, Mapping) or not value:
        raise TensorAdaptError(f"{where} is {shown(value)}; expected a table with at least one key")
    return dict(value)


def listed(check: Check, value: Any, where: str) -> tuple[Any, ...]:
    """Return a list that is not empty and holds nothing twice."""
    values = listed_freely(check, value, where)
    if twice := [item for i, item in enumerate(values) if item in values[:i]]:
        raise TensorAdaptError(f"{where} names {twice[0]!r} twice; name each once")
    return values


def listed_freely(check: Check, value: Any, where: str) -> tuple[Any, ...]:
    """Return a list that is not empty; it may hold a value twice."""
    if not isinstance(value, list | tuple) or not value:
        raise TensorAdaptError(f"{where} is {shown(value)}; expected a list of at least one")
    return tuple(check(item, f"{where}[{i}]") for i, item in enumerate(value))


def of_each(check: Check, value: Any, where: str) -> dict[str, Any]:
    """Return a table whose values all pass one check."""
    return {key: check(item, f"{where}.{key}") for key, item in mapping(value, where).items()}


def parts(value: Any, where: str) -> Any:
    """Return the sizes of a mode's parts, or a table of them by width, whose keys TOML keeps as text."""
    if not isinstance(value, Mapping):
        return listed_freely(whole, value, where)
    if odd := [width for width in value if not str(width).isdigit()]:
        raise TensorAdaptError(f"{where} has the key {odd[0]!r}; expected widths, such as 768 = [24, 32]")
    return of_each(partial(listed_freely, whole), value, where)


def texts(value: Any, where: str) -> tuple[str, ...]:
    """Return a list of texts, given as such or as one text."""
    return listed(text, [value] if isinstance(value, str) else value, where)


def of_kind(kind: type) -> Check:
    """Make the check that a value is an instance of a class."""

    def check(value: Any, where: str) -> Any:
        check_is(where, value, kind)
        return value

    return check


def optional(check: Check) -> Check:
    """Make a check that passes None, and every other value that ``check`` passes."""
    return lambda value, where: None if value is None else check(value, where)


def strings(value: Any, where: str) -> tuple[str, ...]:
    """Return names or patterns that were given as one text or as a list, tuple or set of texts, perhaps none."""
    values = (value,) if isinstance(value, str) else value
    if isinstance(values, set | frozenset):
        values = sorted(values, key=str)
    if not isinstance(values, list | tuple) or not all(isinstance(item, str) and item for item in values):
        raise TensorAdaptError(f"{where} is {shown(value)}; expected a text, or a list of texts")
    if odd := [item for item in values if any("\ud800" <= letter <= "\udfff" for letter in item)]:
        raise TensorAdaptError(f"{where} has {shown(odd[0])}, in which a byte is no text; expected UTF-8")
    return tuple(values)


def projections(value: Any, where: str) -> tuple[str, ...]:
    """Return names as ``strings`` does, where a text may hold several.

    >>> projections("q,v", "projections"), projections("q v", "projections"), projections(["q,v", "o"], "projections")
    (('q', 'v'), ('q', 'v'), ('q', 'v', 'o'))
    """
    given = strings(value, where)
    return tuple(name for text in given for name in text.replace(",", " ").split() or [text])


def numbers(value: Any, where: str) -> tuple[int, ...]:
    """Return the whole numbers from 0 that an iterable gives, at most ``MOST``."""
    fault = TensorAdaptError(f"{where} is {shown(value)}; expected whole numbers, at most {MOST:,}, such as [0, 1]")
    try:
        values = list(islice(value, MOST + 1))
    except Exception:
        raise fault from None
    if len(values) > MOST or not all(is_whole(item, 0) for item in values):
        raise fault
    return tuple(int(item) for item in values)


def named(check: Check, value: Any, where: str) -> dict[str, Any]:
    """Return a mapping, perhaps empty, of texts to values that all pass one check."""
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise TensorAdaptError(f"{where} is {shown(value)}; expected a mapping with texts as keys")
    return {key: check(item, f"{where} of {key!r}") for key, item in value.items()}


def items(check: Check, value: Any, where: str, most: int = MOST) -> list[Any]:
    """Return what an iterable gives, each of which passes one check; there may be ``most``, perhaps none."""
    found: list[Any] = []
    try:
        each = iter(value)
    except Exception:
        raise TensorAdaptError(f"{where} is {shown(value)}; expected a list, or another iterable") from None
    for item in each:
        if len(found) == most:
            raise TensorAdaptError(f"{where} has more than {most:,} items; expected at most as many")
        found.append(check(item, f"{where}[{len(found)}]"))
    return found


def as_path(value: Any, where: str) -> Path:
    """Return the path of a file or folder; it need not be there, and the file system must allow it."""
    if not isinstance(value, str | os.PathLike):
        raise TensorAdaptError(f"{where} is {shown(value)}; expected a path, such as 'results/cp'")
    try:
        path = Path(value)
        if long := [part for part in path.parts if len(os.fsencode(part)) > LONGEST_NAME]:
            raise ValueError(f"one of its names has {len(long[0]):,} characters")
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except Exception as error:
        why = str(getattr(error, "strerror", None) or error)[:200]
        raise TensorAdaptError(
            f"{where} is {shown(value)}, and no path can be that ({why}); expected another"
        ) from None
    return path


def prose(value: Any, where: str) -> str:
    """Return a text that is not blank and may have several lines."""
    if not isinstance(value, str) or not value.strip():
        raise TensorAdaptError(f"{where} is {shown(value)}; expected a text that is not blank")
    return value


def seed(value: Any, where: str) -> int:
    """Return the seed of a random generator as an int."""
    check_whole(where, value, 0, 2**63 - 1)
    return int(value)


def anything(value: Any, where: str) -> Any:
    """Return the value as it is."""
    return value


def shown(value: Any) -> str:
    """Return a value as messages show it: shortened, in one line, and whatever its own ``repr`` does."""
    try:
        return re.sub(r"\s*\n\s*", " ", SHORT.repr(value))
    except Exception:
        return f"a {type(value).__name__}"


def flag(value: Any, where: str) -> bool:
    """Return a boolean."""
    if not isinstance(value, bool):
        raise TensorAdaptError(f"{where} is {shown(value)}; expected true or false")
    return value


def one_of(names: Sequence[str], value: Any, where: str) -> str:
    """Return one of some names."""
    if not isinstance(value, str) or value not in names:
        raise TensorAdaptError(f"{where} is {shown(value)}{did_you_mean(value, names)}")
    return str(value)


def one_entering(door: str, built_in: Sequence[str], value: Any, where: str) -> str:
    """Return one of some names, or of those that enter by a door (``tensoradapt/doors.py``)."""
    every = (*built_in, *doors.names(door))
    if not isinstance(value, str) or value not in every:
        raise TensorAdaptError(f"{where} is {shown(value)}{did_you_mean(value, every)}{doors.missing(door, value)}")
    return value


def precision_of(names: Sequence[str], value: Any, where: str) -> str:
    """Return one of some precisions, given by its short name, torch's name or torch's type.

    >>> precision_of(("fp32", "bf16"), "bfloat16", "precision")
    'bf16'
    """
    return one_of(names, _renamed(value, BITS), where)


def dtype_of(names: Sequence[str], value: Any, where: str) -> str:
    """Return one of torch's types by its name, given by that, its short name or the type.

    >>> dtype_of(("float32", "bfloat16"), "bf16", "dtype")
    'bfloat16'
    """
    return one_of(names, _renamed(value, {short: name for name, short in BITS.items()}), where)


def _renamed(value: Any, others: Mapping[str, str]) -> Any:
    """Return the other name of a type of torch, which is given by itself or by a name; anything else as it is."""
    if isinstance(value, str) or (type(value).__module__, type(value).__name__) == ("torch", "dtype"):
        name = str(value).removeprefix("torch.")
        return others.get(name, name)
    return value


def checked(table: Mapping[str, Any], keys: Mapping[str, Check], where: str) -> dict[str, Any]:
    """Return a table of known keys with checked values; in messages ``where`` precedes a key."""
    values = {}
    for key, value in table.items():
        if key not in keys:
            raise TensorAdaptError(f"unknown key {where}{key}{did_you_mean(key, keys)}")
        values[key] = keys[key](value, f"{where}{key}")
    return values


def name_in(module: str, value: Any) -> str | None:
    """Return the name under which another process can import a value from a module; None where there is none."""
    held = vars(sys.modules[module]) if module in sys.modules and module != "__main__" else {}
    return next((name for name, item in held.items() if item is value), None)


def imported(where: str, what: str, expected: str) -> Any:
    """Import the object that a text such as "module:NAME" names; raise TensorAdaptError where it cannot be."""
    module, _, name = where.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except Exception as error:
        raise TensorAdaptError(
            f"{what} {where!r} cannot be imported ({type(error).__name__}: {error}); expected {expected}"
        ) from error
