"""Published adapters are found here by name. Their rows are data, in ``rows`` and in extras."""

from __future__ import annotations

import re
from functools import cache

from tensoradapt import doors, parameterizations
from tensoradapt.errors import TensorAdaptError, did_you_mean
from tensoradapt.parameterizations import spelling
from tensoradapt.published import rows
from tensoradapt.published.row import Published

__all__ = ["LETTERS", "Published", "every", "get", "named", "names"]
LETTERS = (
    "d width, f width of the MLP, o outputs and i inputs of a matrix (both d where it is square), H heads, h head "
    "dimension, L layers, M adapted matrices of a layer, T tasks, r rank, n the parts of a width, cores a train's"
)


@cache
def every() -> tuple[Published, ...]:
    """Return the rows of all published adapters, those of extras last.

    >>> import tensoradapt as ta
    >>> ta.published.every()[0].name
    'lora'
    """
    return (*rows.ROWS, *doors.table("rows").values())


def names() -> tuple[str, ...]:
    """Return the names of all published adapters.

    >>> import tensoradapt as ta
    >>> ta.published.names()[:3]
    ('lora', 'rslora', 'lora+')
    """
    return tuple(row.name for row in every())


def get(name: str) -> Published:
    """Return the published adapter of that name.

    Args:
        name: the name, in any spelling.

    Returns:
        Its row.

    Raises:
        TensorAdaptError: for an unknown name, with the closest.

    >>> import tensoradapt as ta
    >>> ta.published.get("LoRTA").name, ta.published.get("CP (LoRTA)").name, ta.published.get("LoRA-XS").name
    ('lorta', 'lorta', 'lora-xs')
    """
    by_name = {row.name: row for row in every()}
    if name in by_name:
        return by_name[name]
    if row := named(name):
        return row
    other = parameterizations.name_of(name)
    hint = f". {other} is a parameterization, which parameterizations.get({other!r}) returns"
    if other not in parameterizations.names():
        hint = did_you_mean(name, by_name) + doors.missing("rows", name)
    raise TensorAdaptError(f"unknown published adapter {name!r}{hint}")


def named(name: str) -> Published | None:
    """Return the row that a spelling stands for; None without one.

    A label such as "CP (LoRTA)" stands for the name in parentheses.

    Args:
        name: any text; an unknown one raises nothing.

    Returns:
        The row, or None.

    >>> import tensoradapt as ta
    >>> ta.published.named("LoTR").name, ta.published.named("mine")
    ('lotr', None)
    """
    spelled = {spelling(row.name): row for row in every()}
    within = re.search(r"\((.+)\)", name)
    return spelled.get(spelling(name)) or (spelled.get(spelling(within[1])) if within else None)
