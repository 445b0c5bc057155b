"""Splits: the parts of each site's modes by ``split=``, and its checks. Names and sizes only."""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from tensoradapt.checks import is_whole, shown
from tensoradapt.errors import TensorAdaptError, did_you_mean
from tensoradapt.networks.layout import Pattern, near_equal, split_sizes, stem
from tensoradapt.networks.modes import SIDES
from tensoradapt.sites.site import Site

Parts = Sequence[int] | Mapping[int, Sequence[int]]  # the parts of a split mode, or of each width that it can have
Split = Mapping[str, Parts]


def check_parts(split: Any) -> None:
    """Raise for anything but a mapping of row and column modes to sizes of parts, or to these by width."""
    example = "{'out': (8, 12)}"
    if not isinstance(split, Mapping):
        raise TensorAdaptError(
            f"split is {shown(split)}; expected a mapping of modes to the sizes of their parts: {example}"
        )
    for mode, parts in split.items():
        if mode not in SIDES:
            raise TensorAdaptError(f"split names {shown(mode)}, no row or column mode{did_you_mean(mode, SIDES)}")
        for sizes in parts.values() if isinstance(parts, Mapping) else (parts,):
            if isinstance(sizes, str) or not isinstance(sizes, Sequence):
                raise TensorAdaptError(
                    f"split {mode}={shown(parts)}; expected the sizes of its parts, as in {example}, or these by "
                    "width, as in {'out': {96: (8, 12)}}"
                )
            if not sizes or not all(map(is_whole, sizes)):
                raise TensorAdaptError(
                    f"split {mode}={shown(sizes)} has a part that is not a whole number of 1 or more"
                )


def check_widths(sites: Sequence[Site], split: Split) -> None:
    """Raise for a split by width that lacks the width of a site."""
    by_width = {mode: parts for mode, parts in split.items() if isinstance(parts, Mapping)}
    for site in sites:
        for mode, parts in by_width.items():
            if (width := _widths(site).get(mode)) is not None and width not in parts:
                raise TensorAdaptError(
                    f"split of {mode} has no parts for the width {width} of site {site.name}, only for "
                    f"{', '.join(map(str, parts)) or 'none'}; give them with split={_fitting(sites, split)}"
                )


def check_product(site: Site, pattern: Pattern, sites: Sequence[Site], split: Split) -> None:
    """Raise for parts that do not multiply to a site's width."""
    modes, parts = site.modes(pattern.orientation), parts_at(site, split)
    names = [name for axis in (*pattern.rows, *pattern.cols) for name in axis]
    for mode in dict.fromkeys(stem(name) for name in names if name not in modes):
        if math.prod(parts[mode]) != modes[mode]:
            raise TensorAdaptError(
                f"split {mode}={tuple(parts[mode])} has the product {math.prod(parts[mode])}, but {mode} of site "
                f"{site.name} is {modes[mode]} wide; the parts must multiply to the width, as in "
                f"split={_fitting(sites, split)}"
            )


def check_split(
    split: Mapping[str, Sequence[int]], patterns: Sequence[Pattern], sites: Sequence[Site], near: Sequence[int]
) -> None:
    """Raise for parts that no layout names, and for names that no split makes."""
    used = {name for pattern in patterns for axis in pattern.axes for name in axis}
    for mode, parts in split.items():
        if absent := [name for name in split_sizes({mode: parts}) if name not in used]:
            raise TensorAdaptError(
                f"split of {mode} makes {', '.join(split_sizes({mode: parts}))}, but no layout names {absent[0]}; "
                f"write all of them where {mode} stood"
            )
    names = split_sizes(split)
    if unknown := sorted(name for name in used if name != stem(name) and name not in names):
        numbered = [name for name in used if name != stem(name)]
        modes = {mode: n for mode in SIDES if (n := max((_number(x) for x in numbered if stem(x) == mode), default=0))}
        raise TensorAdaptError(
            f"a layout names {unknown[0]!r}, but split={dict(split)} makes {', '.join(names) or 'no modes'}; "
            f"give the sizes of its parts, as in {_advised(sites, modes, near)}"
        )


def _number(name: str) -> int:
    return int(name.removeprefix(stem(name)))


def refuse_unsplit(text: str, sites: Sequence[Site], near: Sequence[int]) -> None:
    """Raise for ``out*`` in a layout where no split says what the parts of out are."""
    modes = re.findall(rf"\b({'|'.join(SIDES)})[*]", text)
    if modes:
        raise TensorAdaptError(
            f"layout {text!r} names the parts of {' and '.join(modes)}, and no split says what they are; give e.g. "
            f"{_advised(sites, dict.fromkeys(modes, len(near)), near)}"
        )


def _advised(sites: Sequence[Site], modes: Mapping[str, int], near: Sequence[int]) -> str:
    """Return ``usual_split`` as code and as an option."""
    fitting = usual_split(sites, modes, near)
    pairs = (f"{mode}={json.dumps(parts, separators=(',', ':'))}" for mode, parts in fitting.items())
    return f"split={fitting} (on the command line --split {shlex.join(pairs)})"


def usual_split(sites: Sequence[Site], modes: Mapping[str, int], near: Sequence[int]) -> dict[str, Any]:
    """Return a split of modes into as many parts, which are near those of ``near``; near one another where it is 1."""
    return _fitting(sites, {mode: near if len(near) == n else (1,) * n for mode, n in modes.items()})


def parts_at(site: Site, split: Split) -> dict[str, Sequence[int]]:
    """Return the parts of each split mode for one site's widths."""
    widths = _widths(site)
    of_mode: dict[str, Sequence[int]] = {}
    for mode, parts in split.items():
        if not isinstance(parts, Mapping):
            of_mode[mode] = parts
        elif mode in widths:
            of_mode[mode] = parts[widths[mode]]
    return of_mode


def _widths(site: Site) -> dict[str, int]:
    """Return the width of every mode that a site can have."""
    return {**site.modes("in"), **site.modes("out"), **site.modes("model")}


def _fitting(sites: Sequence[Site], split: Split) -> dict[str, Any]:
    """Return the split; parts that do not multiply to a site's width become the nearest that do.

    A width without parts, or whose parts are all 1, gets near-equal ones.
    """
    fitting: dict[str, Any] = {}
    for mode, parts in split.items():
        widths = dict.fromkeys(width for site in sites if (width := _widths(site).get(mode)))
        given = parts if isinstance(parts, Mapping) else dict.fromkeys(widths, parts)
        n = min(map(len, given.values()), default=2)
        right = {width: tuple(sizes) for width, sizes in given.items() if math.prod(sizes) == width}
        wrong = {width: sizes for width, sizes in given.items() if width not in right and set(sizes) != {1}}
        near = {width: nearest(width, wrong[width]) if width in wrong else near_equal(width, n) for width in widths}
        by_width = {width: right.get(width) or near[width] for width in widths}
        fitting[mode] = by_width if len(by_width) > 1 else next(iter(by_width.values()), parts)
    return fitting


def nearest(width: int, parts: Sequence[int]) -> tuple[int, ...]:
    """Return as many parts that multiply to the width: each but the last is the divisor nearest to the given one."""
    found: list[int] = []
    for part in parts[:-1]:
        rest = width // math.prod(found)
        found.append(min((n for n in range(1, rest + 1) if rest % n == 0), key=lambda n: abs(n - part)))
    return (*found, width // math.prod(found))
