"""Grouping: which sites share a tensor, and where in it each one reads. Names and sizes only."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tensoradapt.errors import TensorAdaptError
from tensoradapt.modes import INDEX, Layout, Pattern, split_sizes, stem
from tensoradapt.sites import Site

Sizes = Mapping[str, int]


@dataclass(frozen=True)
class Member:
    """A site and its slice of the tensor; ``transposed`` in the residual orientation where the site writes to it."""

    site: Site
    at: Mapping[str, int | range]
    transposed: bool


@dataclass(frozen=True)
class Bundle:
    """A layout with sizes, and the sites that read from one tensor over it."""

    layout: Layout
    members: tuple[Member, ...]


def bundles(
    sites: Iterable[Site], layouts: Sequence[str], split: Mapping[str, Sequence[int]], on_mismatch: str
) -> list[Bundle]:
    """The tensors that ``layouts`` make of ``sites``; a site takes the first layout whose modes it has."""
    patterns = [Pattern.parse(text) for text in layouts]
    _check_split(split, patterns)
    tied: dict[Any, list[Site]] = {}
    for site in sites:
        pattern = _pattern_for(site, patterns)
        free = tuple((k, v) for k, v in site.coords if k not in {n for axis in pattern.index for n in axis})
        tied.setdefault((pattern, free), []).append(site)
    found = []
    for (pattern, _), together in tied.items():
        for group in _by_shape(together, pattern, split, on_mismatch):
            found.append(_bundle(group, pattern, split))
    return found


def block_sizes(site: Site, pattern: Pattern, split: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """Sizes of a layout's row and column modes at one site, with the split modes checked against it."""
    modes = site.modes(pattern.residual)
    names = [name for axis in (*pattern.rows, *pattern.cols) for name in axis]
    for mode in {stem(name) for name in names if name not in modes}:
        if math.prod(split[mode]) != modes[mode]:
            raise TensorAdaptError(
                f"split {mode}={tuple(split[mode])} has the product {math.prod(split[mode])}, but {mode} of site "
                f"{site.name} is {modes[mode]} wide; the parts must multiply to the width"
            )
    return {name: {**modes, **split_sizes(split)}[name] for name in names}


def _check_split(split: Mapping[str, Sequence[int]], patterns: Sequence[Pattern]) -> None:
    used = {name for pattern in patterns for axis in pattern.axes for name in axis}
    for mode, parts in split.items():
        if any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in parts) or not parts:
            raise TensorAdaptError(f"split {mode}={tuple(parts)} has a part that is not a whole number of 1 or more")
        if absent := [name for name in split_sizes({mode: parts}) if name not in used]:
            raise TensorAdaptError(
                f"split of {mode} makes {', '.join(split_sizes({mode: parts}))}, but no layout names {absent[0]}; "
                f"write all of them where {mode} stood"
            )
    made = split_sizes(split)
    if unknown := sorted(name for name in used if name != stem(name) and name not in made):
        raise TensorAdaptError(
            f"a layout names {unknown[0]!r}, but split={dict(split)} makes {', '.join(made) or 'no modes'}; "
            f"give the sizes of its parts, as in split={{{stem(unknown[0])!r}: (8, 12)}}"
        )


def _pattern_for(site: Site, patterns: Sequence[Pattern]) -> Pattern:
    for pattern in patterns:
        modes = site.modes(pattern.residual)
        names = {stem(name) if name not in modes else name for axis in (*pattern.rows, *pattern.cols) for name in axis}
        if names <= set(modes) and {name for axis in pattern.index for name in axis} <= set(site.coord):
            return pattern
    have = f"{', '.join(site.coord)} : {' '.join(site.modes(True))} / {' '.join(site.modes(False))}"
    raise TensorAdaptError(
        f"site {site.name} has none of the layouts {', '.join(repr(str(p)) for p in patterns)}: its modes are {have}. "
        'Give a layout for it too (several are allowed), such as "layer proj : ff : model" for an MLP'
    )


def _by_shape(
    sites: list[Site], pattern: Pattern, split: Mapping[str, Sequence[int]], on_mismatch: str
) -> Iterable[list[Site]]:
    shapes: dict[tuple[tuple[str, int], ...], list[Site]] = {}
    for site in sites:
        sizes = block_sizes(site, pattern, split)
        _check_cover(site, pattern, sizes)
        shapes.setdefault(tuple(sizes.items()), []).append(site)
    if len(shapes) > 1 and on_mismatch == "error":
        (big, first), (small, other) = list(shapes.items())[:2]
        raise TensorAdaptError(
            f"site {other[0].name} is {_times(small)}, but {first[0].name} of the same tensor is {_times(big)}. "
            f"These cannot "
            'share modes of one size: use on_mismatch="split" (a tensor for each shape) or "crop" (the first entries '
            "of the larger)"
        )
    return [sites] if on_mismatch == "crop" else shapes.values()


def _times(sizes: Iterable[tuple[str, int]]) -> str:
    return " x ".join(f"{name}={n}" for name, n in sizes)


def _check_cover(site: Site, pattern: Pattern, sizes: Sizes) -> None:
    whole = (math.prod(n for _, n in site.inner), site.model) if pattern.residual else (site.out, site.in_)
    for role, axes, width in zip(("rows", "columns"), (pattern.rows, pattern.cols), whole, strict=True):
        names = [name for axis in axes for name in axis]
        if (covered := math.prod(sizes[name] for name in names)) != width:
            raise TensorAdaptError(
                f"{role} {_times((n, sizes[n]) for n in names)} of layout {str(pattern)!r} cover {covered} of the "
                f"{width} of site "
                f"{site.name}; expected modes that multiply to {width}"
            )


def _bundle(sites: list[Site], pattern: Pattern, split: Mapping[str, Sequence[int]]) -> Bundle:
    blocks = {site.name: block_sizes(site, pattern, split) for site in sites}
    values = {axis: list(dict.fromkeys(_value(site, axis) for site in sites)) for axis in pattern.index}
    _refuse_holes(sites, pattern, values)
    sizes = {" ".join(axis): len(found) for axis, found in values.items()}
    sizes |= {name: max(block[name] for block in blocks.values()) for name in blocks[sites[0].name]}
    layout = Layout.parse(pattern, sizes)
    return Bundle(layout, tuple(_member(site, pattern, layout, values, blocks[site.name]) for site in sites))


def _value(site: Site, axis: tuple[str, ...]) -> tuple[int | str, ...]:
    return tuple(site.coord[name] for name in axis)


def _refuse_holes(sites: list[Site], pattern: Pattern, values: Mapping[tuple[str, ...], list]) -> None:
    present = {tuple(_value(site, axis) for axis in pattern.index) for site in sites}
    expected = math.prod(len(found) for found in values.values())
    if len(present) == expected:
        return
    names = " ".join(name for axis in pattern.index for name in axis)
    sides = " x ".join(f"{' '.join(axis)}={len(found)}" for axis, found in values.items())
    raise TensorAdaptError(
        f"the tied grid {sides} has holes: only {len(present)} of its {expected} positions are sites. "
        f'Merge the modes, "({names}) : ...", or tie fewer of {", ".join(INDEX)}'
    )


def _member(
    site: Site, pattern: Pattern, layout: Layout, values: Mapping[tuple[str, ...], list], block: Sizes
) -> Member:
    at: dict[str, int | range] = {}
    for axis, mode in zip(pattern.index, layout.index, strict=True):
        at[mode.name] = values[axis].index(_value(site, axis))
    for axis, mode in zip((*pattern.rows, *pattern.cols), (*layout.rows, *layout.cols), strict=True):
        if (own := math.prod(block[name] for name in axis)) < mode.size:
            at[mode.name] = range(own)
    return Member(site, at, pattern.residual and not site.reads)
