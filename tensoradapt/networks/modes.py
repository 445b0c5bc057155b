"""The modes that a layout can name, in one table: a new mode is a row of it. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple


class ModeKind(NamedTuple):
    """A mode as layouts name it; ``size`` says what its size is the number of.

    ``coordinate``: values of the coordinate of this name among the sites. ``names``: names that the caller gives, of
    which each batch chooses one. ``width``: rows or columns of a site. ``inner``: entries of an inner mode of a site.
    """

    name: str
    roles: tuple[Literal["index", "row", "column"], ...]
    size: Literal["coordinate", "names", "width", "inner"]
    letters: tuple[str, ...] = ()  # what papers call it, and a rank by mode may too

    @property
    def runtime(self) -> bool:
        """Whether a batch chooses a value, so that no site has a position on it."""
        return self.size == "names"


TASK = "task"  # whose names ``tasks`` has where it is no mapping; the adapters of a library are its values
MODES = (
    ModeKind("stack", ("index",), "coordinate"),
    ModeKind("layer", ("index",), "coordinate", ("L",)),
    ModeKind("attn", ("index",), "coordinate"),
    ModeKind("proj", ("index",), "coordinate", ("qkv", "M")),
    ModeKind("expert", ("index",), "coordinate"),
    ModeKind("block", ("index",), "coordinate"),
    ModeKind(TASK, ("index",), "names", ("T",)),
    ModeKind("scene", ("index",), "names"),
    ModeKind("env", ("index",), "names"),
    ModeKind("out", ("row", "column"), "width"),  # a column where the stored matrix is transposed
    ModeKind("head", ("row",), "inner", ("H",)),
    ModeKind("dim", ("row",), "inner", ("dh", "d_h", "h")),
    ModeKind("ff", ("row",), "inner"),
    ModeKind("token", ("row",), "inner"),
    ModeKind("channel", ("row",), "inner"),
    ModeKind("kh", ("row",), "inner"),
    ModeKind("kw", ("row",), "inner"),
    ModeKind("in", ("row", "column"), "width"),  # a row where the stored matrix is transposed
    ModeKind("model", ("column",), "width"),  # the residual stream, whichever side of the stored matrix it is
)
INDEX, ROWS, COLS = (tuple(m.name for m in MODES if role in m.roles) for role in ("index", "row", "column"))
SIDES = tuple(mode.name for mode in MODES if mode.name not in INDEX)  # what can be split
RUNTIME = tuple(mode.name for mode in MODES if mode.runtime)
LETTERS = {letter: mode.name for mode in MODES for letter in mode.letters}


def only(by_mode: Mapping[str, Any]) -> Any:
    """Return what one mode has, and of several modes the mapping."""
    return by_mode if len(by_mode) > 1 else next(iter(by_mode.values()))
