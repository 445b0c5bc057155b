"""Published adapters are found here by name. Their rows are data, in ``rows`` and in extras."""

from __future__ import annotations

from tensoradapt import doors, parameterizations
from tensoradapt.errors import TensorAdaptError, did_you_mean
from tensoradapt.published import registry
from tensoradapt.published.registry import every
from tensoradapt.published.row import Published

__all__ = ["LETTERS", "Published", "every", "get", "named", "names"]
LETTERS = (
    "d width, f width of the MLP, o outputs and i inputs of a matrix (both d where it is square), H heads, h head "
    "dimension, L layers, M adapted matrices of a layer, T tasks, r rank, n the parts of a width, cores a train's"
)


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
    if row := named(name):
        return row
    other = parameterizations.name_of(name)
    hint = f". {other} is a parameterization, which parameterizations.get({other!r}) returns"
    if other not in parameterizations.names():
        hint = did_you_mean(name, names()) + doors.missing("rows", name)
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
    found = registry.known(name, paper=True)
    return found.row if found else None
