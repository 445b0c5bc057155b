"""Doors, by which rooms of ``tensoradapt.extras`` enter. A room can be deleted, and all else works without it.

``extras.ROOMS`` says which names a room brings in by which door. The room has a table for each door, named in capitals,
as ``STARTS`` for "starts", with a value for each name; "steps.landing" is ``landing`` of the room's file ``steps``. It
is imported when one of its names is first used, also by plans, so at its top it loads no torch.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from functools import cache
from types import ModuleType
from typing import Any

from tensoradapt.errors import TensorAdaptError, first_line

EXTRAS = "tensoradapt.extras"


@cache
def listed() -> Mapping[str, Mapping[str, tuple[str, ...]]]:
    """Return the names of all rooms by door, with those of rooms that were deleted."""
    try:
        return dict(importlib.import_module(EXTRAS).ROOMS)
    except ImportError:  # the whole folder may be deleted
        return {}


@cache
def rooms() -> tuple[str, ...]:
    """Return the rooms that are there."""
    folders = importlib.import_module(EXTRAS).__path__ if listed() else ()
    there = {name.removesuffix(".py") for folder in folders for name in os.listdir(folder)}  # noqa: PTH208  # loads no pathlib
    return tuple(room for room in listed() if room in there)


def names(door: str) -> tuple[str, ...]:
    """Return the names that enter by a door, in the order of rooms."""
    return tuple(name for room in rooms() for name in listed()[room].get(door, ()))


def get(door: str, name: str) -> Any:
    """Return what enters by a door under a name; raise TensorAdaptError where its room is missing or broken."""
    room = next((room for room in rooms() if name in listed()[room].get(door, ())), None)
    if room is None or fault(room):
        raise TensorAdaptError(f"{door} have no {name!r}{missing(door, name)}")
    return _value(room, door, name)


def table(door: str) -> dict[str, Any]:
    """Return all that enters by a door by name, without what is in rooms that cannot be imported."""
    sound = [room for room in rooms() if door in listed()[room] and not fault(room)]
    return {name: _value(room, door, name) for room in sound for name in listed()[room][door]}


@cache
def fault(room: str) -> str:
    """Say why a room cannot be imported; "" where it can."""
    try:
        _module(room)
    except Exception as error:  # anything may be wrong in it, and the rest is to work
        return f"{type(error).__name__}: {first_line(error)}"
    return ""


def missing(door: str, name: Any) -> str:
    """Say which room would bring in a name that is unknown, and what is wrong with it; "" where none would."""
    named = listed() if isinstance(name, str) else ()  # arrays do not say whether they are in a tuple
    room = next((room for room in named if name in listed()[room].get(door, ())), None)
    if room is None:
        return ""
    wrong = f"cannot be imported ({fault(room)})" if room in rooms() else "is not there"
    return f". {name!r} is in {path(room)}, which {wrong}"


def path(room: str) -> str:
    """Return where a room is, as a person names it."""
    return f"tensoradapt/extras/{room}"


def _module(room: str) -> ModuleType:
    return importlib.import_module(f"{EXTRAS}.{room}")


def _value(room: str, door: str, name: str) -> Any:
    found = getattr(_module(room), door.upper())[name]
    if not isinstance(found, str):
        return found
    file, _, attribute = found.rpartition(".")
    return getattr(importlib.import_module(f"{EXTRAS}.{room}.{file}"), attribute)
