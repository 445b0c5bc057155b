"""Grouping: which sites share a tensor, and where in it each one reads. Names and sizes only."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tensoradapt.errors import TensorAdaptError
from tensoradapt.networks.layout import Layout, Pattern, split_sizes, stem
from tensoradapt.networks.modes import INDEX, RUNTIME
from tensoradapt.planning.plan import Member
from tensoradapt.planning.spec import AdapterSpec, tasks_of
from tensoradapt.planning.splits import (
    Split,
    check_parts,
    check_product,
    check_split,
    check_widths,
    parts_at,
    refuse_unsplit,
)
from tensoradapt.sites.site import Site

Sizes = Mapping[str, int]
Shape = tuple[tuple[str, int], ...]  # the row and column modes of a site, with their sizes
Tied = tuple[Layout, tuple[Member, ...]]  # a tensor's layout with sizes, and the sites that read from it


def tied_sites(
    sites: Sequence[Site], spec: AdapterSpec, one_shape: bool = False, near: Sequence[int] = (1, 1)
) -> list[Tied]:
    """Group sites into the tensors of a spec's layouts; a site takes the first layout whose modes it has.

    ``spec`` has its defaults filled in. ``one_shape``: sites that share no tensor may not differ in shape either.
    ``near``: parts that those of a split which an error advises are near; all 1: near one another.
    """
    split: Split = spec.split
    targets = [layout if isinstance(layout, tuple) else (layout, None) for layout in spec.layout]
    grids: dict[Any, list[Site]] = {}
    check_parts(split)
    check_widths(sites, split)
    for site in sites:
        parts = parts_at(site, split)
        patterns = [_expanded(text, parts, sites, near) for text, _ in targets]
        check_split(parts, patterns, sites, near)
        proj, pairs = site.coord.get("proj"), zip(patterns, targets, strict=True)
        pattern = _pattern_for(site, [p for p, (_, of) in pairs if of is None or proj in of])
        check_product(site, pattern, sites, split)
        free = tuple((k, v) for k, v in site.coords if k not in {n for axis in pattern.index for n in axis})
        grids.setdefault((pattern, free), []).append(site)
    for pattern, _ in grids:
        _check_runtime(pattern, spec)
    shaped = [(pattern, _by_shape(grid, pattern, split)) for (pattern, _), grid in grids.items()]
    if spec.on_mismatch == "error":
        tensors = [shapes for _, shapes in shaped]
        where = "" if one_shape else "of the same tensor "
        _refuse_mismatch([_joined(tensors)] if one_shape else tensors, spec.name if spec.paper else None, where)
    return [
        _tied(group, pattern, split, spec.runtime)
        for (pattern, shapes), grid in zip(shaped, grids.values(), strict=True)
        for group in ([grid] if spec.on_mismatch == "crop" else shapes.values())
    ]


def block_sizes(site: Site, pattern: Pattern, split: Split) -> dict[str, int]:
    """Return the sizes of a layout's row and column modes at one site."""
    modes, parts = site.modes(pattern.orientation), parts_at(site, split)
    names = [name for axis in (*pattern.rows, *pattern.cols) for name in axis]
    return {name: {**modes, **split_sizes(parts)}[name] for name in names}


def _expanded(text: str, parts: Mapping[str, Sequence[int]], sites: Sequence[Site], near: Sequence[int]) -> Pattern:
    """Parse a layout text where ``out*`` stands for all parts that the split makes of out."""
    if isinstance(text, str):
        for mode, sizes in parts.items():
            text = re.sub(rf"\b{mode}[*]", " ".join(split_sizes({mode: sizes})), text)
        refuse_unsplit(text, sites, near)
    return Pattern.parse(text)


def _check_runtime(pattern: Pattern, spec: AdapterSpec) -> None:
    """Raise unless ``tasks`` names the values of the modes that a batch chooses, each a mode of its own."""
    text, modes = str(pattern), [mode for axis in pattern.index for mode in axis if mode in RUNTIME]
    for mode in modes:
        if merged := [axis for axis in pattern.index if len(axis) > 1 and mode in axis]:
            raise TensorAdaptError(f"layout {text!r} merges {' '.join(merged[0])}; {mode} needs a mode of its own")
        if mode not in spec.runtime:
            usual = tasks_of((text,), ("a", "b"))
            raise TensorAdaptError(f"layout {text!r} has the mode {mode}; name the {mode}s, as in tasks={usual}")
    if odd := [mode for mode in spec.runtime if mode not in modes]:
        raise TensorAdaptError(f"tasks={spec.tasks} were given, and layout {text!r} has no mode {odd[0]}")


def _pattern_for(site: Site, patterns: Sequence[Pattern]) -> Pattern:
    for pattern in patterns:
        modes = site.modes(pattern.orientation)
        names = {stem(name) if name not in modes else name for axis in (*pattern.rows, *pattern.cols) for name in axis}
        index = {name for axis in pattern.index for name in axis} - set(RUNTIME)
        if names <= set(modes) and index <= set(site.coord):
            return pattern
    have = f"{', '.join(site.coord)} : {' '.join(site.modes('model'))} / {' '.join(site.modes('in'))}"
    cut = any("block" in axis for pattern in patterns for axis in pattern.index) and "block" not in site.coord
    other = "Find the sites with blocks=True, or give" if cut else "Give"
    raise TensorAdaptError(
        f"site {site.name} has none of the layouts {', '.join(repr(str(p)) for p in patterns)}: its modes are {have}. "
        f"{other} a layout for it too (several are allowed), such as {_fitting(site)}"
    )


def _fitting(site: Site) -> str:
    """Return a layout that a site has, for an error to name."""
    is_mlp = "ff" in dict(site.inner)
    return '"layer proj : ff : model" for an MLP' if is_mlp else '": out : in", which every matrix has'


def _by_shape(sites: list[Site], pattern: Pattern, split: Split) -> dict[Shape, list[Site]]:
    shapes: dict[Shape, list[Site]] = {}
    for site in sites:
        sizes = block_sizes(site, pattern, split)
        _check_cover(site, pattern, sizes)
        shapes.setdefault(tuple(sizes.items()), []).append(site)
    return shapes


def _joined(tensors: Sequence[Mapping[Shape, list[Site]]]) -> dict[Shape, list[Site]]:
    """Return the sites of all tensors, by shape."""
    every: dict[Shape, list[Site]] = {}
    for shape, sites in (item for shapes in tensors for item in shapes.items()):
        every.setdefault(shape, []).extend(sites)
    return every


def _refuse_mismatch(tensors: Sequence[Mapping[Shape, list[Site]]], published: str | None, tied: str) -> None:
    torn = [shapes for shapes in tensors if len(shapes) > 1]
    if not torn:
        return
    (big, first), (small, other) = list(torn[0].items())[:2]
    blocks = ", blocks=True" if "block" in first[0].coord else ""
    counted = ", and so another count than the paper has" if published else ""
    calls = [f"find_sites(model, {projections}{blocks})" for projections in _of_one_shape(tensors)]
    raise TensorAdaptError(
        f"{f'{published} with paper=True is not defined on these matrices: ' if published else ''}"
        f"site {other[0].name} is {_times(small)}, but {first[0].name} {tied}is {_times(big)}. "
        f'These cannot share modes of one size: use on_mismatch="split" (a tensor for each shape{counted}) or "crop" '
        "(the first entries of the larger)"
        f"{', or sites of one shape: ' if calls else ''}{' or '.join(calls[:3])}"
    )


def _of_one_shape(tensors: Sequence[Mapping[Shape, list[Site]]]) -> list[tuple[str, ...]]:
    """Return the largest choices of projections with which no tensor has sites of two shapes."""
    kinds = [[frozenset(site.coord.get("proj") for site in sites) for sites in shapes.values()] for shapes in tensors]
    torn = [shapes for shapes in dict.fromkeys(map(tuple, kinds)) if len(shapes) > 1]
    every = dict.fromkeys(site.coord.get("proj") for shapes in tensors for sites in shapes.values() for site in sites)
    whole = set(every) - {proj for shapes in torn for kind in shapes for proj in kind}
    chosen = [whole.union(*kept) for kept in itertools.product(*torn)]
    sound = [choice for choice in chosen if all(sum(bool(kind & choice) for kind in kinds) == 1 for kinds in torn)]
    return [tuple(str(proj) for proj in every if proj in choice) for choice in sound if None not in choice]


def _times(sizes: Iterable[tuple[str, int]]) -> str:
    return " x ".join(f"{name}={n}" for name, n in sizes)


def _check_cover(site: Site, pattern: Pattern, sizes: Sizes) -> None:
    whole = site.shape(pattern.orientation)
    for role, axes, width in zip(("rows", "columns"), (pattern.rows, pattern.cols), whole, strict=True):
        names = [name for axis in axes for name in axis]
        if (covered := math.prod(sizes[name] for name in names)) != width:
            raise TensorAdaptError(
                f"{role} {_times((n, sizes[n]) for n in names)} of layout {str(pattern)!r} cover {covered} of the "
                f"{width} of site {site.name}; expected modes that multiply to {width}"
            )


def _tied(sites: list[Site], pattern: Pattern, split: Split, runtime: Mapping[str, Sequence[str]]) -> Tied:
    blocks = {site.name: block_sizes(site, pattern, split) for site in sites}
    axes = [axis for axis in pattern.index if not set(axis) & set(RUNTIME)]
    values = {axis: list(dict.fromkeys(_value(site, axis) for site in sites)) for axis in axes}
    _refuse_holes(sites, axes, values)
    sizes = {" ".join(axis): len(values[axis] if axis in values else runtime[axis[0]]) for axis in pattern.index}
    sizes |= {name: max(block[name] for block in blocks.values()) for name in blocks[sites[0].name]}
    layout = Layout.parse(pattern, sizes)
    return layout, tuple(_member(site, pattern, layout, values, blocks[site.name]) for site in sites)


def _value(site: Site, axis: tuple[str, ...]) -> tuple[int | str, ...]:
    return tuple(site.coord[name] for name in axis)


def _refuse_holes(
    sites: list[Site], index: Sequence[tuple[str, ...]], values: Mapping[tuple[str, ...], list[Any]]
) -> None:
    present = {tuple(_value(site, axis) for axis in index) for site in sites}
    expected = math.prod(map(len, values.values()))
    if len(present) == expected:
        return
    names = " ".join(name for axis in index for name in axis)
    sides = " x ".join(f"{' '.join(axis)}={len(rows)}" for axis, rows in values.items())
    raise TensorAdaptError(
        f"the tied grid {sides} has holes: only {len(present)} of its {expected} positions are sites. "
        f'Merge the modes, "({names}) : ...", or tie fewer of {", ".join(INDEX)}'
    )


def _member(
    site: Site, pattern: Pattern, layout: Layout, values: Mapping[tuple[str, ...], list[Any]], block: Sizes
) -> Member:
    at: dict[str, int | range] = {}
    for axis, mode in zip(pattern.index, layout.index, strict=True):
        if axis in values:
            at[mode.name] = values[axis].index(_value(site, axis))
    for axis, mode in zip((*pattern.rows, *pattern.cols), (*layout.rows, *layout.cols), strict=True):
        if (width := math.prod(block[name] for name in axis)) < mode.size:
            at[mode.name] = range(width)
    return Member(site, at, site.transposed(pattern.orientation))
