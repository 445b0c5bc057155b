"""Grouping: which sites share a tensor, and where in it each one reads. Names and sizes only."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tensoradapt.errors import TensorAdaptError, did_you_mean
from tensoradapt.modes import COLS, INDEX, ROWS, RUNTIME, Layout, Pattern, split_sizes, stem
from tensoradapt.sites import Site

Sizes = Mapping[str, int]
Parts = Sequence[int] | Mapping[int, Sequence[int]]  # of a split mode; or of each width it can have
Split = Mapping[str, Parts]


@dataclass(frozen=True)
class Member:
    """A site and its slice of the tensor; ``transposed`` where the layout turns its stored matrix around."""

    site: Site
    at: Mapping[str, int | range]
    transposed: bool


@dataclass(frozen=True)
class Bundle:
    """A layout with sizes, and the sites that read from one tensor over it."""

    layout: Layout
    members: tuple[Member, ...]


def bundles(
    sites: Iterable[Site],
    layouts: Sequence[str | tuple[str, Sequence[str]]],  # a text, or a text and the projections it is for
    split: Split,
    on_mismatch: str,
    tasks: Sequence[str] = (),
) -> list[Bundle]:
    """The tensors that ``layouts`` make of ``sites``; a site takes the first layout whose modes it has."""
    _check_parts(split)
    targets = [one if isinstance(one, tuple) else (one, None) for one in layouts]
    tied: dict[Any, list[Site]] = {}
    for site in sites:
        own = _parts_at(site, split)
        patterns = [_expanded(text, own) for text, _ in targets]
        _check_split(own, patterns)
        pattern = _pattern_for(site, [p for p, (_, of) in zip(patterns, targets, strict=True) if _is_for(site, of)])
        free = tuple((k, v) for k, v in site.coords if k not in {n for axis in pattern.index for n in axis})
        tied.setdefault((pattern, free), []).append(site)
    found = []
    for (pattern, _), together in tied.items():
        _check_tasks(pattern, tasks)
        for group in _by_shape(together, pattern, split, on_mismatch):
            found.append(_bundle(group, pattern, split, tasks))
    return found


def block_sizes(site: Site, pattern: Pattern, split: Split) -> dict[str, int]:
    """Sizes of a layout's row and column modes at one site, with the split modes checked against it."""
    modes, own = site.modes(pattern.orientation), _parts_at(site, split)
    names = [name for axis in (*pattern.rows, *pattern.cols) for name in axis]
    for mode in {stem(name) for name in names if name not in modes}:
        if math.prod(own[mode]) != modes[mode]:
            raise TensorAdaptError(
                f"split {mode}={tuple(own[mode])} has the product {math.prod(own[mode])}, but {mode} of site "
                f"{site.name} is {modes[mode]} wide; the parts must multiply to the width"
            )
    return {name: {**modes, **split_sizes(own)}[name] for name in names}


def _is_for(site: Site, projections: Sequence[str] | None) -> bool:
    return projections is None or site.coord.get("proj") in projections


def _parts_at(site: Site, split: Split) -> dict[str, Sequence[int]]:
    """The parts of each split mode for one site's widths."""
    widths = {**site.modes("in"), **site.modes("out"), **site.modes("model")}
    found: dict[str, Sequence[int]] = {}
    for mode, parts in split.items():
        if isinstance(parts, Mapping) and mode in widths:
            if widths[mode] not in parts:
                raise TensorAdaptError(
                    f"split of {mode} has no parts for the width {widths[mode]} of site {site.name}, only for "
                    f"{', '.join(map(str, parts))}; give them with split={{{mode!r}: (...)}}"
                )
            parts = parts[widths[mode]]
        if not isinstance(parts, Mapping):
            found[mode] = parts
    return found


def _expanded(text: str, own: Mapping[str, Sequence[int]]) -> Pattern:
    """The pattern of a layout text where ``out*`` stands for all parts that the split makes of out."""
    if isinstance(text, str):
        for mode, parts in own.items():
            text = re.sub(rf"\b{mode}[*]", " ".join(split_sizes({mode: parts})), text)
    return Pattern.parse(text)


def _check_tasks(pattern: Pattern, tasks: Sequence[str]) -> None:
    sequence = isinstance(tasks, Sequence) and not isinstance(tasks, str)
    if not sequence or not all(isinstance(name, str) and name.strip() for name in tasks):
        raise TensorAdaptError(
            f"tasks={tasks!r}; expected a sequence of distinct, non-empty names, as in tasks=('rte', 'cola')"
        )
    named = any(set(axis) & set(RUNTIME) for axis in pattern.index)
    if merged := [axis for axis in pattern.index if len(axis) > 1 and set(axis) & set(RUNTIME)]:
        raise TensorAdaptError(f"layout {str(pattern)!r} merges {' '.join(merged[0])}; task needs a mode of its own")
    if named and not tasks:
        raise TensorAdaptError(f"layout {str(pattern)!r} has a task mode; name the tasks, as in tasks=('rte', 'cola')")
    if tasks and not named:
        raise TensorAdaptError(f"tasks={tuple(tasks)} were given, and layout {str(pattern)!r} has no task mode")
    if len(set(tasks)) < len(tasks):
        raise TensorAdaptError(f"tasks={tuple(tasks)} names one twice; each has a place of its own")


def _check_parts(split: Any) -> None:
    example = "{'out': (8, 12)}"
    if not isinstance(split, Mapping):
        raise TensorAdaptError(
            f"split is {split!r}; expected a mapping of modes to the sizes of their parts: {example}"
        )
    for mode, parts in split.items():
        if mode not in (valid := dict.fromkeys((*ROWS, *COLS))):
            raise TensorAdaptError(f"split names {mode!r}, no row or column mode{did_you_mean(mode, valid)}")
        for one in parts.values() if isinstance(parts, Mapping) else (parts,):
            if isinstance(one, str) or not isinstance(one, Sequence):
                raise TensorAdaptError(
                    f"split {mode}={parts!r}; expected the sizes of its parts, as in {example}, or these by width, as "
                    "in {'out': {96: (8, 12)}}"
                )


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
        modes = site.modes(pattern.orientation)
        names = {stem(name) if name not in modes else name for axis in (*pattern.rows, *pattern.cols) for name in axis}
        index = {name for axis in pattern.index for name in axis} - set(RUNTIME)
        if names <= set(modes) and index <= set(site.coord):
            return pattern
    have = f"{', '.join(site.coord)} : {' '.join(site.modes('model'))} / {' '.join(site.modes('in'))}"
    raise TensorAdaptError(
        f"site {site.name} has none of the layouts {', '.join(repr(str(p)) for p in patterns)}: its modes are {have}. "
        'Give a layout for it too (several are allowed), such as "layer proj : ff : model" for an MLP'
    )


def _by_shape(sites: list[Site], pattern: Pattern, split: Split, on_mismatch: str) -> Iterable[list[Site]]:
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
    whole = site.shape(pattern.orientation)
    for role, axes, width in zip(("rows", "columns"), (pattern.rows, pattern.cols), whole, strict=True):
        names = [name for axis in axes for name in axis]
        if (covered := math.prod(sizes[name] for name in names)) != width:
            raise TensorAdaptError(
                f"{role} {_times((n, sizes[n]) for n in names)} of layout {str(pattern)!r} cover {covered} of the "
                f"{width} of site "
                f"{site.name}; expected modes that multiply to {width}"
            )


def _bundle(sites: list[Site], pattern: Pattern, split: Split, tasks: Sequence[str]) -> Bundle:
    blocks = {site.name: block_sizes(site, pattern, split) for site in sites}
    own = [axis for axis in pattern.index if not set(axis) & set(RUNTIME)]
    values = {axis: list(dict.fromkeys(_value(site, axis) for site in sites)) for axis in own}
    _refuse_holes(sites, own, values)
    sizes = {" ".join(axis): len(values.get(axis, tasks)) for axis in pattern.index}
    sizes |= {name: max(block[name] for block in blocks.values()) for name in blocks[sites[0].name]}
    layout = Layout.parse(pattern, sizes)
    return Bundle(layout, tuple(_member(site, pattern, layout, values, blocks[site.name]) for site in sites))


def _value(site: Site, axis: tuple[str, ...]) -> tuple[int | str, ...]:
    return tuple(site.coord[name] for name in axis)


def _refuse_holes(sites: list[Site], index: Sequence[tuple[str, ...]], values: Mapping[tuple[str, ...], list]) -> None:
    present = {tuple(_value(site, axis) for axis in index) for site in sites}
    expected = math.prod(len(found) for found in values.values())
    if len(present) == expected:
        return
    names = " ".join(name for axis in index for name in axis)
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
        if axis in values:
            at[mode.name] = values[axis].index(_value(site, axis))
    for axis, mode in zip((*pattern.rows, *pattern.cols), (*layout.rows, *layout.cols), strict=True):
        if (own := math.prod(block[name] for name in axis)) < mode.size:
            at[mode.name] = range(own)
    return Member(site, at, site.transposed(pattern.orientation))
