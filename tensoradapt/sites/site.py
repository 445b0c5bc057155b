"""A site is a weight matrix, or a block of one, that can be adapted. No torch."""

from __future__ import annotations

import fnmatch
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tensoradapt.text import align, count_text, displayed, screen


@dataclass(frozen=True)
class Site:
    """A block of one module's logical (out, in) matrix, with the coordinates that a layout can tie.

    ``reads``: the residual stream is the input (q, k, v, up, gate), not the output (o, down). ``inner`` names the modes
    of the other side, outermost first. ``rows`` and ``cols`` are the block's ranges in the module's matrix, None for
    all; with a ``period`` the rows repeat every ``period`` rows (GPT-NeoX stores q, k, v head by head). ``parameter``
    holds the matrix, at index ``slot`` where several are stacked (experts).
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
        """The site's rows and columns: an index into its module's (out, in) matrix."""
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
        """The width of the residual stream."""
        return self.in_ if self.reads else self.out

    def modes(self, orientation: str) -> dict[str, int]:
        """Return the sizes of the row and column modes that this site can have with column mode "in", "model" or "out".

        As stored ("in"), ``head dim`` split the output into heads: for o, whose output is the residual stream, into as
        many slices as there are heads. Transposed ("out"), they split the input in the same way.
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
        """Return the numbers of rows and columns with column mode "in", "model" or "out"."""
        stored = (self.out, self.in_)
        return stored[::-1] if self.transposed(orientation) else stored

    def transposed(self, orientation: str) -> bool:
        """Say whether that orientation transposes the stored matrix."""
        return orientation == "out" or (orientation == "model" and not self.reads)


@dataclass(frozen=True, repr=False)
class Sites(Sequence[Site]):
    """The sites of a model in its order, the matrices skipped, with the reasons, and how the sites were found."""

    sites: tuple[Site, ...]
    skipped: tuple[tuple[str, str], ...] = ()
    source: str = ""

    def __repr__(self) -> str:
        skipped = [f"  {name}  {why}" for name, why in folded_reasons(self.skipped)]
        source = f" ({self.source})" if self.source else ""
        lines = [
            f"{count_text(len(self), 'site')}{source}",
            *align(site_table(self)),
            *(["skipped:"] if skipped else []),
        ]
        return screen("\n".join([*lines, *skipped]))

    def _repr_html_(self) -> str:
        return displayed(self)

    def __len__(self) -> int:
        return len(self.sites)

    def __getitem__(self, i: Any) -> Any:
        return self.sites[i]


def site_table(sites: Iterable[Site]) -> list[tuple[str, ...]]:
    """Return the rows of a table of sites; layers of a projection with equal matrices are one row."""
    layers: dict[tuple[str, str, str], list[Any]] = {}
    for site in sites:
        modes = " ".join(f"{name}={n}" for name, n in site.inner)
        layers.setdefault((folded_name(site.name), f"{site.out} x {site.in_}", modes), []).append(
            site.coord.get("layer")
        )
    rows = [(*key, ranges({*numbers} - {None}) or "-") for key, numbers in layers.items()]
    return [("site", "out x in", "modes", "layers"), *rows]


def folded_name(name: str) -> str:
    """Return a site's name for all layers, and for all experts of a layer."""
    return re.sub(r"\[\d+[.]", "[*.", re.sub(r"[.]\d+[.]", ".*.", name, count=1))


def folded_reasons(skipped: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return names of modules, folded and counted, and why each was left out."""
    counts = Counter((folded_name(name), why) for name, why in skipped)
    return [(f"{name}{f' ({n})' if n > 1 else ''}", why) for (name, why), n in counts.items()]


def ranges(numbers: Iterable[Any]) -> str:
    """Write ``0-3, 7`` for 0, 1, 2, 3, 7."""
    runs: list[list[int]] = []
    for n in sorted(set(numbers)):
        if runs and n == runs[-1][1] + 1:
            runs[-1][1] = n
        else:
            runs.append([n, n])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)


@dataclass(frozen=True)
class Candidate:
    """A site that can be asked for, and its group: "attention", "mlp", "experts" or ""."""

    site: Site
    kind: str


def matches(name: str, pattern: str) -> bool:
    """Say whether a name fits a pattern; brackets match themselves, as in ``*c_attn[q]``, or one of their letters."""
    return any(fnmatch.fnmatchcase(name, text) for text in (pattern, pattern.replace("[", "[[]")))


@dataclass(frozen=True)
class RowBlock:
    """The sites in the same rows of one matrix: several where its columns are cut into blocks."""

    sites: tuple[Site, ...]

    @property
    def out(self) -> int:
        """The number of rows."""
        return self.sites[0].out

    @property
    def rows(self) -> slice | list[int]:
        """The index of the rows in the matrix."""
        return self.sites[0].block[0]


def row_blocks(sites: Iterable[Site]) -> tuple[RowBlock, ...]:
    """Group sites into the row blocks they make up, in their order."""
    grouped: dict[tuple[Any, ...], list[Site]] = {}
    for site in sites:
        grouped.setdefault((site.key, site.slot, site.rows, site.period), []).append(site)
    return tuple(RowBlock(tuple(block)) for block in grouped.values())
