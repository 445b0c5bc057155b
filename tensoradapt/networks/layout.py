"""Layouts name the modes of a tensor of weight updates: ``"layer proj : head dim : model"``. No torch.

Colons separate index modes, row modes and column modes. Index modes are *tied*: one tensor spans them. Parentheses
merge modes into one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from tensoradapt.checks import check_whole, shown
from tensoradapt.errors import TensorAdaptError, did_you_mean
from tensoradapt.networks.modes import COLS, INDEX, ROWS

At = Mapping[str, "int | range"]  # a position: index modes -> int; row and column modes may carry a range

_TOKEN = re.compile(r"\(([^()]*)\)|([A-Za-z_]\w*)")


@dataclass(frozen=True)
class Mode:
    """A named axis; ``parts`` are the names merged into it, outermost first, or empty."""

    name: str
    size: int
    parts: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"({' '.join(self.parts)})" if self.parts else self.name


@dataclass(frozen=True)
class Pattern:
    """A layout without sizes: index, row and column axes, each a tuple of the names merged into it."""

    index: tuple[tuple[str, ...], ...]
    rows: tuple[tuple[str, ...], ...]
    cols: tuple[tuple[str, ...], ...]

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """Return the pattern that a layout string describes.

        >>> Pattern.parse("(layer proj) : out : in").index
        (('layer', 'proj'),)
        """
        groups = text.split(":") if isinstance(text, str) else ()
        if len(groups) != 3:
            raise TensorAdaptError(
                f"layout {shown(text)} has {max(len(groups) - 1, 0)} colons; expected exactly two, as in "
                '"layer proj : head dim : model" (index modes : row modes : column modes)'
            )
        pattern = cls(*(_axes(group, text) for group in groups))
        pattern._check(text)
        return pattern

    def _check(self, text: str) -> None:
        for role, axes in (("row", self.rows), ("column", self.cols)):
            if not axes:
                raise TensorAdaptError(f'layout {text!r} leaves its {role} modes empty; expected e.g. ": out : in"')
        names = [name for axis in self.axes for name in axis]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise TensorAdaptError(f"layout {text!r} names {', '.join(twice)} more than once; each mode has one place")
        rows = [name for name in ROWS if name != ("out" if self.orientation == "out" else "in")]
        for role, axes, valid in (("index", self.index, INDEX), ("column", self.cols, COLS), ("row", self.rows, rows)):
            for name in (name for axis in axes for name in axis):
                if stem(name) not in valid:
                    raise TensorAdaptError(
                        f"layout {text!r} has an unknown {role} mode {name!r}{did_you_mean(name, valid)}"
                    )
        if len(mixed := dict.fromkeys(stem(name) for axis in self.cols for name in axis)) > 1:
            raise TensorAdaptError(
                f"layout {text!r} mixes column modes {' and '.join(mixed)}; the column name fixes one orientation"
            )

    @property
    def axes(self) -> tuple[tuple[str, ...], ...]:
        return self.index + self.rows + self.cols

    @property
    def orientation(self) -> str:
        """The column mode: "in" (as stored), "model" (the residual stream in the columns), "out" (transposed)."""
        return stem(self.cols[0][0])

    def __str__(self) -> str:
        return " : ".join(" ".join(map(_axis_text, group)) for group in (self.index, self.rows, self.cols)).strip()


@dataclass(frozen=True)
class Layout:
    """A pattern with sizes; a parameterization is built over one. Equal layouts hash equal.

    Law: ``Layout.parse(str(layout), layout.sizes) == layout``.
    """

    index: tuple[Mode, ...]
    rows: tuple[Mode, ...]
    cols: tuple[Mode, ...]

    @classmethod
    def parse(cls, text: str | Pattern, sizes: Mapping[str, int]) -> Layout:
        """Return the layout of ``text`` with ``sizes`` for its names.

        A merged mode has the size given under its joined name (``"layer proj"``), else the product of its parts'.

        >>> Layout.parse("layer proj : head dim : model", dict(layer=2, proj=4, head=3, dim=5, model=15)).shape
        (2, 4, 3, 5, 15)
        """
        pattern = text if isinstance(text, Pattern) else Pattern.parse(text)

        def mode(axis: tuple[str, ...]) -> Mode:
            joined = " ".join(axis)
            if missing := [name for name in axis if name not in sizes and joined not in sizes]:
                raise TensorAdaptError(
                    f"layout {str(pattern)!r} needs a size for {missing[0]!r}{did_you_mean(missing[0], sizes)}"
                )
            size = sizes[joined] if joined in sizes else math.prod(sizes[name] for name in axis)
            check_whole(f"the size of mode {joined!r}", size)
            return Mode("_".join(axis), size, axis if len(axis) > 1 else ())

        return cls(*(tuple(map(mode, axes)) for axes in (pattern.index, pattern.rows, pattern.cols)))

    @property
    def modes(self) -> tuple[Mode, ...]:
        return self.index + self.rows + self.cols

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(mode.name for mode in self.modes)

    @cached_property
    def shape(self) -> tuple[int, ...]:
        return tuple(mode.size for mode in self.modes)

    @property
    def sizes(self) -> dict[str, int]:
        return {" ".join(mode.parts) or mode.name: mode.size for mode in self.modes}

    @cached_property
    def size_of(self) -> Mapping[str, int]:
        return dict(zip(self.names, self.shape, strict=True))

    @property
    def out(self) -> int:
        """The number of rows of one slice."""
        return math.prod(mode.size for mode in self.rows)

    @property
    def in_(self) -> int:
        """The number of columns of one slice."""
        return math.prod(mode.size for mode in self.cols)

    def __str__(self) -> str:
        return " : ".join(" ".join(map(str, group)) for group in (self.index, self.rows, self.cols)).strip()


def stem(name: str) -> str:
    """Return the mode that a split name belongs to: ``out2`` -> ``out``."""
    return name.rstrip("0123456789")


def split_sizes(split: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """Return the sizes of the modes that ``split`` makes: ``{"out": (8, 12)}`` -> ``{"out1": 8, "out2": 12}``."""
    return {f"{name}{i}": size for name, parts in split.items() for i, size in enumerate(parts, 1)}


def near_equal(width: int, n_parts: int) -> tuple[int, ...]:
    """Factor a width into ``n_parts`` numbers, as equal as greedy choice finds them, the largest first.

    >>> near_equal(768, 3), near_equal(30, 2), near_equal(31, 2)
    ((12, 8, 8), (6, 5), (31, 1))
    """
    rest, parts = width, []
    for left in range(n_parts, 0, -1):
        share = rest ** (1 / left)
        divisors = [n for n in range(1, rest + 1) if rest % n == 0]
        parts.append(min(divisors, key=lambda n: max(n / share, share / n)))
        rest //= parts[-1]
    return tuple(sorted(parts, reverse=True))


def _axes(group: str, text: str) -> tuple[tuple[str, ...], ...]:
    if rest := _TOKEN.sub("", group).strip():
        raise TensorAdaptError(
            f"layout {text!r} does not parse at {rest!r}; expected mode names, with parentheses only to merge modes, "
            'as in "(layer proj) : out : in"'
        )
    axes = tuple(tuple(match[1].split()) if match[1] is not None else (match[2],) for match in _TOKEN.finditer(group))
    if () in axes:
        raise TensorAdaptError(f"layout {text!r} has empty parentheses; expected names to merge, as in (layer proj)")
    return axes


def _axis_text(axis: tuple[str, ...]) -> str:
    return axis[0] if len(axis) == 1 else f"({' '.join(axis)})"
