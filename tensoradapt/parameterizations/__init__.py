"""A parameterization is a file in this folder, or an entry point, with ``build``, ``count`` and ``oracle``.

``build(layout, rank, **options)`` returns a Network; ``count(layout, rank, **options)`` is the paper's closed formula
for resolved ranks; ``oracle(layout, factors)`` is the paper's definition of the dense tensor. Optional:

- ``layouts``: the usual layouts.
- ``label``, ``aliases`` and ``look``: the name to show, other names that are taken, and colour and marker in figures.
- ``ranked = False``: it has no rank.
- ``parts``: the numbers of row modes, and of as many column modes, that it takes; ``square``: these have equal sizes;
  ``near``: parts that a message advises the nearest of, by default equal ones.
- ``largest(layout)``: the largest useful rank.
- ``below_cut``: why the rank of an update can be less than the network's minimum cut.
- ``decompose(network, tensor)``: factors near a tensor; needed if some factors come from the base weights.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import re
from functools import lru_cache
from importlib.metadata import entry_points
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
    return tuple(sorted({*builtin(), *plugins()}))


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
    chosen = parameterization
    if isinstance(parameterization, str):
        if (name := name_of(parameterization)) not in names():
            raise TensorAdaptError(f"unknown parameterization {parameterization!r}{did_you_mean(name, names())}")
        chosen = _loaded(name)
    if missing := [name for name in OBLIGATIONS if not callable(getattr(chosen, name, None))]:
        raise TensorAdaptError(
            f"parameterization {shown(parameterization)} has no {', '.join(missing)}; expected an object with "
            f"build(layout, rank, **options), count(layout, rank) and oracle(layout, factors)"
        )
    return chosen


def name_of(parameterization: str | Any) -> str:
    """Return the name of a parameterization that is given by name, label or alias in any spelling, or as an object.

    A text that stands for none is returned as it is. Labels and aliases are those of files first, then of plug-ins.

    >>> name_of("CP (LoRTA)"), name_of("Tensor-train"), name_of("TT"), name_of("mine")
    ('cp', 'tensor_train', 'tensor_train', 'mine')
    """
    if not isinstance(parameterization, str):
        return str(getattr(parameterization, "__name__", type(parameterization).__name__)).rpartition(".")[2]
    if parameterization in names():
        return parameterization
    asked = spelling(parameterization)
    return spelled().get(asked) or _others(builtin(), tuple(plugins())).get(asked, parameterization)


def spelled() -> dict[str, str]:
    """Return the names by their spellings; where a plug-in has that of a file, the file's."""
    return _spelled((*plugins(), *builtin()))


def facts(parameterization: str | Any) -> Any:
    """Return what says a parameterization's ``label`` and the like; a plug-in that cannot be loaded says nothing."""
    try:
        return _loaded(parameterization) if isinstance(parameterization, str) else parameterization
    except Exception:  # it is anybody's code, and to show a name asks no more of it
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


@lru_cache(maxsize=1)  # a plan of every method asks thousands of times
def _spelled(every: tuple[str, ...]) -> dict[str, str]:
    return {spelling(name): name for name in every}


@lru_cache(maxsize=1)
def _others(*names: tuple[str, ...]) -> dict[str, str]:
    """Return names by the spellings of their labels and aliases; of two names, the first has it."""
    words: dict[str, str] = {}
    for name in sum(names, ()):
        said = facts(name)
        for word in (getattr(said, "label", name), *getattr(said, "aliases", ())):
            words.setdefault(spelling(str(word)), name)
    return words


def _loaded(name: str) -> Any:
    return importlib.import_module(f"{__name__}.{name}") if name in builtin() else plugins()[name].load()


def builtin() -> tuple[str, ...]:
    """Return the names of the files of this folder."""
    # a file dropped into the folder (or onto __path__) is there at once, as it changes the folder's time
    return _listed(tuple((folder, _changed(folder)) for folder in __path__))


def _changed(folder: str) -> int:
    """Return when a folder changed; 0 where it is not there or does not answer."""
    try:
        return os.stat(folder).st_mtime_ns  # noqa: PTH116
    except OSError:
        return 0


@lru_cache(maxsize=1)  # rows of thousands of runs ask for the names
def _listed(folders: tuple[tuple[str, int], ...]) -> tuple[str, ...]:
    found = pkgutil.iter_modules([folder for folder, _ in folders])
    return tuple(module.name for module in found if not module.name.startswith("_"))


@lru_cache(maxsize=1)
def plugins() -> dict[str, Any]:
    """Return the entry points of installed packages by name."""
    return {entry.name: entry for entry in entry_points(group="tensoradapt.parameterizations")}
