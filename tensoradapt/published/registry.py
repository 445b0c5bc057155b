"""The one way from a text to a method: what an adapter is factored by, or a published adapter.

A parameterization's file says what is known of it, and so does a row: see ``parameterizations`` and ``Published``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from functools import cache
from typing import Any

from tensoradapt import doors, parameterizations
from tensoradapt.checks import shown
from tensoradapt.errors import TensorAdaptError, few
from tensoradapt.habits import unknown_method
from tensoradapt.parameterizations import spelling
from tensoradapt.published import rows
from tensoradapt.published.row import Published

# a row's fields that define no method: what all methods may be given, and texts
SETTINGS = "name label look source formula note alpha power scale train biases tensors".split()


@dataclass(frozen=True)
class Method:
    """What is known of a method, whether it is a parameterization or a published adapter.

    Attributes:
        name: what ``method=`` takes and what is stored.
        label: the name that figures and tables show.
        aliases: other names that ``method=`` takes.
        look: its colour and marker in figures; None where these choose.
        parameterization: what factors it, a name, or the object that was given.
        row: the published adapter's; None for a parameterization.
        ranked: whether it has a rank.

    >>> find("TT").label, find("LoTR").parameterization, find("dense").ranked
    ('Tensor-train', 'tucker', False)
    """

    name: str
    label: str
    aliases: tuple[str, ...]
    look: tuple[str, str] | None
    parameterization: Any
    row: Published | None = None
    ranked: bool = True


@cache
def every() -> tuple[Published, ...]:
    """Return the rows of all published adapters, those of extras last.

    >>> import tensoradapt as ta
    >>> ta.published.every()[0].name
    'lora'
    """
    return (*rows.ROWS, *doors.table("rows").values())


def names() -> tuple[str, ...]:
    """Return the names of all methods: parameterizations, then published adapters of other names.

    >>> [name for name in names() if "lora" in name][:4]
    ['lora', 'lora_xs', 'randlora', 'tinylora']
    """
    factored = parameterizations.spelled()
    others = (row.name for spelled, row in _rows().items() if spelled not in factored)
    return (*parameterizations.names(), *others)


def find(method: Any, paper: bool = False) -> Method:
    """Return the method that a name stands for, or an object is.

    Args:
        method: a name, label or alias in any spelling, or an object with ``build``, ``count`` and ``oracle``.
        paper: whether a name that a parameterization and a published adapter share is the published adapter.

    Raises:
        TensorAdaptError: for an unknown name, with the closest, with ``paper`` for one that no paper has, and for a
            plug-in one of whose names another method has.

    >>> [find(name).name for name in ("CP (LoRTA)", "MetaTT 4D", "tt")], find("CP (LoRTA)", paper=True).name
    (['cp', 'metatt-4d', 'tensor_train'], 'lorta')
    """
    if not isinstance(method, str):
        parameterizations.get(method)
        if paper:
            raise TensorAdaptError(
                f"paper=True was given with {shown(method)}, an object; expected a published adapter"
            )
        return _factored(parameterizations.name_of(method), method)
    if (found := known(method, paper)) is None:
        raise _unknown(method, paper)
    _check_plugin(found)
    return found


def known(text: str, paper: bool = False) -> Method | None:
    """Return the method that a text stands for, as ``find`` does; None where it stands for none.

    >>> known("LoRA-XS").name, known("mine") is None
    ('lora_xs', True)
    """
    row = _rows().get(spelling(text))
    # an alias that is the name of a published adapter stands for that
    name = parameterizations.name_of(text) if row is None or spelling(text) in parameterizations.spelled() else text
    within = re.search(r"\((.+)\)", text)
    row = row or (_rows().get(spelling(within[1])) if within else None)
    if name in parameterizations.names() and not paper:
        return _factored(name)
    if row is not None:
        ranked = _factored(row.parameterization).ranked
        return Method(row.name, row.label, (), row.look, row.parameterization, row, ranked)
    return None


@cache
def _rows() -> dict[str, Published]:
    return {spelling(row.name): row for row in every()}


def _factored(name: str, given: Any = None) -> Method:
    """Return the method of a parameterization, which has that name or is the object that was given."""
    chosen = name if given is None else given
    said = parameterizations.facts(chosen)
    label, aliases = getattr(said, "label", name), tuple(getattr(said, "aliases", ()))
    return Method(name, label, aliases, getattr(said, "look", None), chosen, None, getattr(said, "ranked", True))


def _check_plugin(found: Method) -> None:
    """Raise TensorAdaptError for a plug-in that has a name or an alias of another method."""
    if found.row or not (entry := parameterizations.plugins().get(found.name)):
        return
    for word in (found.name, *map(str, found.aliases)):
        row, name = _rows().get(spelling(word)), parameterizations.name_of(word)
        other = row.name if row else parameterizations.spelled().get(spelling(word), name)
        if other != found.name or other in parameterizations.builtin():
            raise TensorAdaptError(
                f"the plug-in {found.name!r} ({entry.value}) has the {'name' if word == found.name else 'alias'} "
                f"{word!r}, which is that of {other!r}, a method here; give it another, or uninstall its package"
            )


def _unknown(method: str, paper: bool) -> TensorAdaptError:
    if (name := parameterizations.name_of(method)) not in parameterizations.names():
        others = [row.name for row in every()] if paper else names()
        return TensorAdaptError(unknown_method(method, others) + doors.missing("rows", method))
    rows = [row.name for row in every() if row.parameterization == name]
    of = f"published adapters that are a {name}: {few(rows)}" if rows else f"no published adapter is a {name}"
    return TensorAdaptError(
        f"paper=True was given with method {method!r}, which no paper's settings belong to; {of}. Leave paper= out, or "
        "name a published adapter"
    )


@cache
def same_as(name: str) -> tuple[str, ...]:
    """Return the other methods that differ from this published adapter in nothing but settings.

    >>> same_as("rslora"), same_as("lorta"), same_as("lotr")
    (('lora',), ('cp',), ())
    """
    found = known(name)
    if found is None or (row := found.row) is None:
        return ()
    rows = [other.name for other in every() if other.name != row.name and _definition(other) == _definition(row)]
    return (
        *([row.parameterization] if _is_plain(row) else []),
        *(other for other in rows if other != row.parameterization),
    )


def _is_plain(row: Published) -> bool:
    """Say whether a row of another name is its parameterization over one of its usual layouts, and no more."""
    plain = Published("", row.tensors, row.parameterization, "", "", one_shape=row.one_shape)
    usual = set(row.layout) <= set(parameterizations.layouts_of(row.parameterization))
    return usual and row.name != row.parameterization and _definition(row) == _definition(plain)


def _definition(row: Published) -> tuple[Any, ...]:
    """Return a row without its settings; the projections of a single layout are its targets."""
    tensors = tuple((text, ()) for text, _ in row.tensors) if len(row.tensors) == 1 else row.tensors
    return tensors, *(getattr(row, f.name) for f in fields(row) if f.name not in SETTINGS)
