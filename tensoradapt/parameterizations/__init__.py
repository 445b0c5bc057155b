"""Parameterizations, found by folder: a file here, or an entry point, that has ``build``, ``count`` and ``oracle``.

``build(layout, rank, **options)`` returns a Network; ``count(layout, rank, **options)`` is the paper's closed formula
for resolved ranks; ``oracle(layout, factors)`` is the paper's own definition of the dense tensor. A module may also
name its usual ``layouts`` and its display ``label``; how many row modes, and as many column modes, it takes (``parts``)
and whether these have equal sizes (``square``); ``largest(layout)``, the largest rank that is of use; why an
update's rank can be less than the network's minimum cut (``below_cut``); and ``decompose(network, tensor)``, factors
for a given tensor, which is needed where some come from the base weights.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import lru_cache
from importlib.metadata import entry_points
from typing import Any

from tensoradapt.errors import TensorAdaptError, did_you_mean

OBLIGATIONS = ("build", "count", "oracle")
LAYOUTS = ("layer proj : head dim : model", "layer proj : ff : model")


def names() -> tuple[str, ...]:
    """All parameterizations that can be named, sorted: this folder's and installed plug-ins'."""
    return tuple(sorted({*_builtin(), *_plugins()}))


def get(parameterization: str | Any) -> Any:
    """The object with ``build``, ``count`` and ``oracle`` that is named or given."""
    found = _named(parameterization) if isinstance(parameterization, str) else parameterization
    if missing := [name for name in OBLIGATIONS if not callable(getattr(found, name, None))]:
        raise TensorAdaptError(
            f"parameterization {parameterization!r} has no {', '.join(missing)}; expected an object with "
            f"build(layout, rank, **options), count(layout, rank) and oracle(layout, factors)"
        )
    return found


def name_of(parameterization: str | Any) -> str:
    """The name shown for a parameterization given by name or as an object."""
    if isinstance(parameterization, str):
        return parameterization
    return str(getattr(parameterization, "__name__", type(parameterization).__name__)).rpartition(".")[2]


def layouts_of(parameterization: Any) -> tuple[str, ...]:
    """The layouts a parameterization is usually used with."""
    return tuple(getattr(get(parameterization), "layouts", LAYOUTS))


def _named(name: str) -> Any:
    if name in _builtin():
        return importlib.import_module(f"{__name__}.{name}")
    if name in (plugins := _plugins()):
        return plugins[name].load()
    raise TensorAdaptError(f"unknown parameterization {name!r}{did_you_mean(name, names())}")


def _builtin() -> tuple[str, ...]:
    # not cached: a file dropped into the folder (or onto __path__) is there at once
    return tuple(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


@lru_cache(maxsize=1)
def _plugins() -> dict[str, Any]:
    return {entry.name: entry for entry in entry_points(group="tensoradapt.parameterizations")}
