"""A parameterization is a file in this folder, or an entry point, with ``build``, ``count`` and ``oracle``.

``build(layout, rank, **options)`` returns a Network; ``count(layout, rank, **options)`` is the paper's closed formula
for resolved ranks; ``oracle(layout, factors)`` is the paper's definition of the dense tensor. Optional:

- ``layouts``, ``label`` and ``aliases``: the usual layouts, the name to show, and other names that are taken.
- ``parts``: the numbers of row modes, and of as many column modes, that it takes; ``square``: these have equal sizes;
  ``near``: parts that a message advises the nearest of, by default equal ones.
- ``largest(layout)``: the largest useful rank.
- ``below_cut``: why the rank of an update can be less than the network's minimum cut.
- ``decompose(network, tensor)``: factors near a tensor; needed if some factors come from the base weights.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from functools import lru_cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from tensoradapt.checks import shown
from tensoradapt.errors import TensorAdaptError, did_you_mean

__all__ = ["get", "names"]
OBLIGATIONS = ("build", "count", "oracle")
LAYOUTS = ("layer proj : head dim : model", "layer proj : ff : model")


def names() -> tuple[str, ...]:
    """Return the sorted names of all parameterizations: built-in ones and plug-ins' (docs/start/first-run.md).

    >>> import tensoradapt as ta
    >>> ta.parameterizations.names()[:4]
    ('block_circulant', 'block_low_rank', 'block_term', 'compacter')
    """
    return tuple(sorted({*_builtin(), *_plugins()}))


def get(parameterization: str | Any) -> Any:
    """Return the parameterization of a name; one given as an object is checked.

    Args:
        parameterization: a name in any spelling, or an object (notebooks/4_your_own_parameterization.ipynb).

    Returns:
        The module or object, with ``build``, ``count`` and ``oracle``.

    Raises:
        TensorAdaptError: for an unknown name, with the closest, and for an object that lacks one of the three.

    >>> import tensoradapt as ta
    >>> ta.parameterizations.get("Tensor Train").__name__
    'tensoradapt.parameterizations.tensor_train'
    """
    chosen = _named(parameterization) if isinstance(parameterization, str) else parameterization
    if missing := [name for name in OBLIGATIONS if not callable(getattr(chosen, name, None))]:
        raise TensorAdaptError(
            f"parameterization {shown(parameterization)} has no {', '.join(missing)}; expected an object with "
            f"build(layout, rank, **options), count(layout, rank) and oracle(layout, factors)"
        )
    return chosen


def name_of(parameterization: str | Any) -> str:
    """Return the name of a parameterization that is given by name, in any spelling, or as an object.

    >>> name_of("CP (LoRTA)"), name_of("Tensor-train"), name_of("TT"), name_of("mine")
    ('cp', 'tensor_train', 'tensor_train', 'mine')
    """
    if isinstance(parameterization, str):
        return parameterization if parameterization in names() else _respelled(parameterization) or parameterization
    return str(getattr(parameterization, "__name__", type(parameterization).__name__)).rpartition(".")[2]


def label_of(name: str) -> str | None:
    """Return the label of a plug-in's parameterization; None where it has none, cannot be loaded, or is no plug-in's.

    >>> label_of("no plug-in") is None
    True
    """
    try:
        return getattr(_plugins()[name].load(), "label", None) if name in _plugins() else None
    except Exception:  # it is anybody's code, and only a name is asked of it
        return None


def layouts_of(parameterization: Any) -> tuple[str, ...]:
    """Return the layouts that a parameterization is usually used with."""
    return tuple(getattr(get(parameterization), "layouts", LAYOUTS))


def advice(parameterization: str | Any) -> str:
    """Say when to choose a parameterization, in the sentence of its file that begins "Choose it"; "" without one.

    >>> advice("lora_xs")
    'Choose it for a parameter count that does not depend on the width.'
    """
    text = " ".join((getattr(get(parameterization), "__doc__", None) or "").split())
    sentence = re.search(r"Choose it .*?[.](?=\s|$)", text)
    return sentence[0] if sentence else ""


@lru_cache(maxsize=4096)  # all names are compared for every row that is read
def spelling(name: str) -> str:
    """Return a name without what its spellings differ in: case, spaces, hyphens, underscores, parentheses.

    Parentheses go with what is in them.

    >>> spelling("CP (LoRTA)"), spelling("Tensor-train"), spelling("lora_xs"), spelling("LoRA+")
    ('cp', 'tensortrain', 'loraxs', 'lora+')
    """
    return re.sub(r"[\s_-]", "", re.sub(r"\(.*\)", "", name).casefold())


def _respelled(name: str) -> str | None:
    """Return the name that is meant by a spelling, a label or an alias."""
    asked, spelled = spelling(name), _spelled(names())
    return spelled[asked] if asked in spelled else _labelled(_folders()).get(asked)


@lru_cache(maxsize=1)  # a plan of every method asks thousands of times
def _spelled(every: tuple[str, ...]) -> dict[str, str]:
    return {spelling(name): name for name in every}


@lru_cache(maxsize=1)
def _labelled(folders: tuple[tuple[str, int], ...]) -> dict[str, str]:
    """Return the names of built-in parameterizations by the spellings of their labels and aliases."""
    modules = {name: _named(name) for name in _listed(folders)}
    labels = {spelling(getattr(module, "label", name)): name for name, module in modules.items()}
    return labels | {spelling(alias): name for name, m in modules.items() for alias in getattr(m, "aliases", ())}


def _named(name: str) -> Any:
    if name in _builtin():
        return importlib.import_module(f"{__name__}.{name}")
    if name in (plugins := _plugins()):
        return plugins[name].load()
    if (other := _respelled(name)) is not None:
        return _named(other)
    raise TensorAdaptError(f"unknown parameterization {name!r}{did_you_mean(name, names())}")


def _builtin() -> tuple[str, ...]:
    return _listed(_folders())


def _folders() -> tuple[tuple[str, int], ...]:
    # a file dropped into the folder (or onto __path__) is there at once, as it changes the folder's time
    return tuple((folder, Path(folder).stat().st_mtime_ns) for folder in __path__ if Path(folder).is_dir())


@lru_cache(maxsize=1)  # rows of thousands of runs ask for the names
def _listed(folders: tuple[tuple[str, int], ...]) -> tuple[str, ...]:
    found = pkgutil.iter_modules([folder for folder, _ in folders])
    return tuple(module.name for module in found if not module.name.startswith("_"))


@lru_cache(maxsize=1)
def _plugins() -> dict[str, Any]:
    return {entry.name: entry for entry in entry_points(group="tensoradapt.parameterizations")}
