"""Site and Sites: a block of a weight matrix that can be adapted, and a list of them. No torch."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Site:
    """A block of one module's logical (out, in) matrix, with the coordinates a layout can tie.

    ``reads`` is true where the residual stream is the input (q, k, v, up, gate), false where it is the output (o,
    down). ``inner`` names the other side's modes, outermost first. ``rows`` and ``cols`` are the block of the module's
    rows and columns, None for all; with a ``period``, the rows of every ``period`` (GPT-NeoX: q, k, v head by head).
    ``parameter`` is what holds the matrix, ``slot`` its place there where several are stacked (experts).
    """

    name: str  # unique: "transformer.h.3.attn.c_attn[k]"
    module: str
    coords: tuple[tuple[str, int | str], ...]
    out: int
    in_: int
    inner: tuple[tuple[str, int], ...]  # (("head", 12), ("dim", 64)) or (("ff", 3072),)
    reads: bool = True
    rows: tuple[int, int] | None = None
    cols: tuple[int, int] | None = None
    period: int | None = None
    parameter: str = "weight"
    slot: int | None = None

    @property
    def key(self) -> str:
        """The stored weight's name in the model."""
        return f"{self.module}.{self.parameter}"

    @property
    def block(self) -> tuple[slice | list[int], slice]:
        """The site's rows and columns, as an index of its module's (out, in) matrix."""
        cols = slice(None) if self.cols is None else slice(*self.cols)
        if self.rows is None or self.period is None:
            return slice(None) if self.rows is None else slice(*self.rows), cols
        starts = range(0, self.out // (self.rows[1] - self.rows[0]) * self.period, self.period)
        return [row for start in starts for row in range(start + self.rows[0], start + self.rows[1])], cols

    @property
    def coord(self) -> dict[str, int | str]:
        return dict(self.coords)

    @property
    def model(self) -> int:
        """Width of the residual stream."""
        return self.in_ if self.reads else self.out

    def modes(self, orientation: str) -> dict[str, int]:
        """Sizes of the row and column modes this site can have with column mode "in", "model" or "out".

        As stored ("in"), ``head dim`` are the heads of the output: for o, whose output is the residual stream, as many
        slices of it as there are heads. Transposed ("out") they are those of the input, in the same way.
        """
        if orientation == "model":
            return {"model": self.model, **dict(self.inner)}
        sizes = {"in": self.in_, "out": self.out}
        if self.reads == (orientation == "in"):
            return {**sizes, **dict(self.inner)}
        heads = dict(self.inner).get("head", 0)
        fits = heads and self.model % heads == 0
        return {**sizes, "head": heads, "dim": self.model // heads} if fits else sizes

    def shape(self, orientation: str) -> tuple[int, int]:
        """Rows and columns with column mode "in", "model" or "out"."""
        stored = (self.out, self.in_)
        return stored[::-1] if self.transposed(orientation) else stored

    def transposed(self, orientation: str) -> bool:
        """Whether that orientation turns the stored matrix around."""
        return orientation == "out" or (orientation == "model" and not self.reads)


@dataclass(frozen=True)
class Sites(Sequence):
    """Found sites, in model order, with what was passed over and why, and whether the model's names are known."""

    sites: tuple[Site, ...]
    skipped: tuple[tuple[str, str], ...] = ()
    source: str = ""

    def __iter__(self) -> Iterator[Site]:
        return iter(self.sites)

    def __len__(self) -> int:
        return len(self.sites)

    def __getitem__(self, i: Any) -> Any:
        return self.sites[i]


@dataclass(frozen=True)
class Candidate:
    """A site that could be asked for, and its group: attention, mlp, experts, or none."""

    site: Site
    kind: str


def matches(name: str, pattern: str) -> bool:
    """Whether a pattern is for a site: brackets are those of names, as in ``*c_attn[q]``, or a choice of letters."""
    return any(fnmatch.fnmatchcase(name, text) for text in (pattern, pattern.replace("[", "[[]")))


@dataclass(frozen=True)
class RowBlock:
    """Sites in the same rows of one matrix; several where blocks of its columns are sites of their own."""

    sites: tuple[Site, ...]

    @property
    def out(self) -> int:
        """Rows."""
        return self.sites[0].out

    @property
    def rows(self) -> slice | list[int]:
        """Which of the matrix."""
        return self.sites[0].block[0]


def row_blocks(sites: Iterable[Site]) -> tuple[RowBlock, ...]:
    """The blocks of rows of a plan's sites, in their order."""
    found: dict[tuple, list[Site]] = {}
    for site in sites:
        found.setdefault((site.key, site.slot, site.rows, site.period), []).append(site)
    return tuple(RowBlock(tuple(own)) for own in found.values())
