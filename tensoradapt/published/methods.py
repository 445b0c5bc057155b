"""A method is how an adapter is factored; its name is that of a parameterization or of a published adapter."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

from tensoradapt import doors, parameterizations
from tensoradapt import published as papers
from tensoradapt.checks import shown
from tensoradapt.errors import TensorAdaptError, few
from tensoradapt.habits import unknown_method
from tensoradapt.published.row import Published

SETTINGS: dict[str, Any] = {  # a row's fields that define no method: what all methods may be given, and texts
    **dict.fromkeys(("name", "source", "formula", "note", "scale"), ""),
    **dict.fromkeys(("train", "biases"), ()),
    "alpha": 1,
    "power": None,
}


def names() -> tuple[str, ...]:
    """Return the names of all methods: parameterizations, then published adapters of other names.

    >>> [name for name in names() if "lora" in name][:4]
    ['lora', 'lora_xs', 'randlora', 'tinylora']
    """
    factored = parameterizations.names()
    others = (name for name in papers.names() if parameterizations.name_of(name) not in factored)
    return (*factored, *others)


def find(method: Any, paper: bool = False) -> tuple[str, Published | None]:
    """Return the name of a method, and its row where it is a published adapter.

    Args:
        method: a name in any spelling, or an object with ``build``, ``count`` and ``oracle``.
        paper: whether a name that a parameterization and a published adapter share is the published adapter.

    Raises:
        TensorAdaptError: for an unknown name, with the closest, and with ``paper`` for one that no paper has.

    >>> find("CP (LoRTA)")[0], find("CP (LoRTA)", paper=True)[0], find("MetaTT 4D")[0], find("tt")[0]
    ('cp', 'lorta', 'metatt-4d', 'tensor_train')
    """
    if not isinstance(method, str):
        parameterizations.get(method)
        if paper:
            raise TensorAdaptError(
                f"paper=True was given with {shown(method)}, an object; expected a published adapter"
            )
        return parameterizations.name_of(method), None
    row, name = papers.named(method), parameterizations.name_of(method)
    if paper and row is None:
        raise _unpublished(method, name)
    if row is None or (name in parameterizations.names() and not paper):
        if name not in parameterizations.names():
            raise TensorAdaptError(unknown_method(method, names()) + doors.missing("rows", method))
        return name, None
    return row.name, row


def spelled(method: str) -> str:
    """Return the name of a method that is given in any spelling, and of what is no method the text itself.

    >>> spelled("LoRA-XS"), spelled("MetaTT 4D"), spelled("mine")
    ('lora_xs', 'metatt-4d', 'mine')
    """
    row, name = papers.named(method), parameterizations.name_of(method)
    return row.name if row and name not in parameterizations.names() else name


def _unpublished(method: str, name: str) -> TensorAdaptError:
    rows = [row.name for row in papers.every() if row.parameterization == name]
    if name not in parameterizations.names():
        return TensorAdaptError(unknown_method(method, papers.names()) + doors.missing("rows", method))
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
    row = papers.named(name)
    if row is None or name in parameterizations.names():
        return ()
    rows = [other.name for other in papers.every() if other.name != row.name and _definition(other) == _definition(row)]
    return (
        *([row.parameterization] if _is_plain(row) else []),
        *(other for other in rows if other != row.parameterization),
    )


def _is_plain(row: Published) -> bool:
    """Say whether a row of another name is its parameterization over one of its usual layouts, and no more."""
    plain = Published("", row.tensors, row.parameterization, "", "", one_shape=row.one_shape)
    usual = set(row.layout) <= set(parameterizations.layouts_of(row.parameterization))
    return usual and row.name != row.parameterization and _definition(row) == _definition(plain)


def _definition(row: Published) -> Published:
    """Return a row without its settings; the projections of a single layout are its targets."""
    tensors = tuple((text, ()) for text, _ in row.tensors) if len(row.tensors) == 1 else row.tensors
    return replace(row, tensors=tensors, **SETTINGS)
