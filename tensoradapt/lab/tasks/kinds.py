"""Kinds of own data whose rows have no label, such as prompts with answers. Extras bring them in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tensoradapt import doors
from tensoradapt.errors import TensorAdaptError
from tensoradapt.lab.tasks.splits import Split
from tensoradapt.lab.tasks.tables import LABEL_NAMES, Table
from tensoradapt.lab.tasks.task import Task

SYSTEM = "system"  # the column that any of these kinds may have


@dataclass(frozen=True)
class Kind:
    """A kind of own data.

    Attributes:
        columns: those that a table of this kind has.
        task: makes the task of a name, ``load_splits``, a source, a licence and the ``settings``.
        examples: reads a table of a part, with the names of its columns, as a split and notes of what is left out.
        settings: fields of own data that this kind has besides columns.
    """

    columns: tuple[str, ...]
    task: Callable[..., Task]
    examples: Callable[[Table, str, Mapping[str, str] | None], tuple[Split, tuple[str, ...]]]
    settings: tuple[str, ...] = ()


def kinds() -> dict[str, Kind]:
    """Return the kinds by name."""
    return doors.table("tasks")


def roles() -> tuple[str, ...]:
    """Return the columns that a kind may have."""
    return tuple(dict.fromkeys((*(name for kind in kinds().values() for name in kind.columns), SYSTEM)))


def kind_of(table: Table, columns: Mapping[str, str]) -> str | None:
    """Return the kind that a table has the columns of; None where it has those of none.

    Raises TensorAdaptError where it may be of another kind as well.
    """
    found = [
        name for name, kind in kinds().items() if {columns.get(one, one) for one in kind.columns} <= {*table.columns}
    ]
    labels = ["classification"] if set(LABEL_NAMES) & {*table.columns} else []
    if found and len(found + labels) > 1:
        raise TensorAdaptError(
            f"{table.where} has the columns {', '.join(table.columns)}, which may be of several kinds; say kind = "
            + " or ".join(f'"{kind}"' for kind in found + labels)
        )
    return found[0] if found else None
