"""A library of adapters of one model as a source of trained updates: each is read anew whenever it is asked for."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tensoradapt.adapter.adapter import Adapter
from tensoradapt.checks import as_path, shown, text
from tensoradapt.compression.agreement import rows_of, warn_of_agreement
from tensoradapt.compression.sources import TrainedUpdates, Update, given, read
from tensoradapt.errors import TensorAdaptError, located
from tensoradapt.lora.config import read_config
from tensoradapt.sites.site import Site

BASE = "base_model_name_or_path"


class Library(Mapping[str, Mapping[str, Update]]):
    """The updates of adapters by name and site name; a folder is read each time, so that one is in memory at a time."""

    def __init__(self, sources: Mapping[str, Any], sites: Sequence[Site]) -> None:
        self._sources, self._sites = dict(sources), sites

    def __getitem__(self, name: str) -> Mapping[str, Update]:
        with located(f"adapter {name!r}"):
            return read(self._sources[name], self._sites).updates[""]

    def __iter__(self) -> Iterator[str]:
        return iter(self._sources)

    def __len__(self) -> int:
        return len(self._sources)


def is_library(source: Any) -> bool:
    """Say whether a source is several: a list, or a mapping of names to folders, adapters or mappings."""
    if isinstance(source, Mapping):
        return any(isinstance(value, str | os.PathLike | Adapter | Mapping) for value in source.values())
    return isinstance(source, list) and any(isinstance(one, str | os.PathLike) for one in source)


def read_library(source: Any, sites: Any = None, damaged: str = "error") -> TrainedUpdates:
    """Read every adapter of a library once, to see that they are of one model and adapt the same sites.

    Warns, as from the caller's caller, of adapters whose A agree more than chance allows.

    Args:
        source: a list of LoRA folders, which are named after themselves, or a mapping of names to sources.
        sites: as ``compress`` takes them; those of a model or config are found by the first adapter.
        damaged: "error", or "skip" to leave out adapters that cannot be read for these sites; ``left_out`` says why,
            and names what the others hold besides their updates.

    Raises:
        TensorAdaptError: for fewer than two adapters, one that is there twice, adapters of different base models, and,
            unless they are skipped, those that cannot be read or have other sites than the first.
    """
    whole, rows = dict[str, Any](), dict[str, Any]()
    found, n_params, bases, skipped, besides = given(sites), 0, dict[Any, str](), list[str](), list[str]()
    for name, one in _named(source).items():
        try:
            with located(f"adapter {name!r}"):
                trained = read(one, found or sites)
                base = _base(one)
        except TensorAdaptError as error:
            if damaged == "error":
                raise
            skipped.append(str(error))
            continue
        found, whole[name], rows[name] = found or trained.sites, one, rows_of(trained)
        bases.setdefault(base, name)
        n_params += trained.n_params
        besides += left_out_of(name, trained)
    _check_bases(bases)
    if len(whole) < 2:
        first = f"; the first that cannot: {skipped[0]}" if skipped else ""
        raise TensorAdaptError(f"a library is of two adapters or more, and {len(whole)} can be read{first}")
    warn_of_agreement(rows, stacklevel=3)
    return TrainedUpdates(Library(whole, found), found, n_params, f"{len(whole)} adapters", (*skipped, *besides))


def left_out_of(name: str, trained: TrainedUpdates) -> list[str]:
    """Say what an adapter of a library holds besides its updates, such as a head."""
    return [f"adapter {name!r}: {what}" for what in trained.left_out]


def _named(source: Any) -> Mapping[str, Any]:
    """Return the adapters by name; raises TensorAdaptError for one that is there twice, and for two of one name."""
    if not isinstance(source, Mapping) and (odd := [one for one in source if not isinstance(one, str | os.PathLike)]):
        raise TensorAdaptError(
            f"a list of adapters has {shown(odd[0])}; expected paths of LoRA folders, or a mapping of names to adapters"
        )
    pairs = source.items() if isinstance(source, Mapping) else [(None, one) for one in source]
    named: dict[str, Any] = {}
    places: set[Any] = set()
    for given_name, one in pairs:
        path = as_path(one, "source").resolve() if isinstance(one, str | os.PathLike) else None
        name = path.name if path and given_name is None else text(given_name, "the name of an adapter")
        if (place := path or id(one)) in places:
            raise TensorAdaptError(f"{shown(one)} is in the library twice; leave one out")
        if name in named:
            raise TensorAdaptError(f"{named[name]} and {one} are both called {name!r}; give a mapping of names to them")
        places.add(place)
        named[name] = one
    return named


def _base(one: Any) -> tuple[tuple[str, ...], str]:
    """Return the base model that a folder's config names, or the hash of an adapter's; "" where it is not known.

    Before it stands what it can be compared in: hashes are of matrices in their order, and names are of none.
    """
    if isinstance(one, Adapter):
        return tuple(site.name for site in one.plan.sites), one.attachment.base
    return (), str(read_config(Path(one)).get(BASE) or "") if isinstance(one, str | os.PathLike) else ""


def _check_bases(bases: Mapping[tuple[tuple[str, ...], str], str]) -> None:
    """Raise TensorAdaptError for two base models, each with an adapter that knows it."""
    firsts: dict[tuple[str, ...], tuple[str, str]] = {}
    for (order, base), name in bases.items():
        if not base:
            continue
        other, first = firsts.setdefault(order, (base, name))
        if other != base and order:
            raise TensorAdaptError(
                f"adapter {first!r} is of base weights with hash {other[-12:]} and {name!r} of others, {base[-12:]}; a "
                "library is of one model. Give those of one, or, of one model in two dtypes, what export_lora writes"
            )
        if other != base:
            raise TensorAdaptError(
                f"adapter {first!r} is of the base model {other} and {name!r} of {base}; a library is of one model. "
                "Give those of one, or set base_model_name_or_path in their configs where the models are the same"
            )
