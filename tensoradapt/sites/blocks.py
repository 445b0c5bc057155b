"""Blocks: a site's matrix cut into square blocks that are sites of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from tensoradapt.errors import TensorAdaptError
from tensoradapt.sites.site import Candidate, Site


def _cut(every: Sequence[Candidate], wanted: set[str]) -> tuple[list[Candidate], set[str]]:
    """The sites asked for in square blocks, and the names of those."""
    _check_blocks([one.site for one in every if one.site.name in wanted])
    found = [
        Candidate(site, one.kind)
        for one in every
        for site in (_blocks(one.site) if one.site.name in wanted else [one.site])
    ]
    return found, {one.site.name for one in found if "block" in one.site.coord}


def _check_blocks(sites: Sequence[Site]) -> None:
    uneven = {s.coord["proj"] for s in sites if (ff := dict(s.inner).get("ff")) and (ff % s.model or s.rows)}
    if not uneven:
        return
    site = next(s for s in sites if s.coord["proj"] in uneven)
    asked = dict.fromkeys(str(site.coord["proj"]) for site in sites)
    even = tuple(proj for proj in asked if proj not in uneven)
    fused = " inside a fused module" if site.rows else ""
    raise TensorAdaptError(
        f"site {site.name} is {site.out} x {site.in_}{fused}; blocks need an inner width that is a multiple of the "
        f"model's {site.model}. Adapt what find_sites(model, {even or tuple(asked)}, blocks={bool(even)}) returns"
    )


def _blocks(site: Site) -> list[Site]:
    """A site cut into square blocks along its inner side; attention is one block."""
    ff = dict(site.inner).get("ff")
    if ff is None:
        return [replace(site, coords=(*site.coords, ("block", 0)))]
    return [_block(site, i, site.model) for i in range(ff // site.model)]


def _block(site: Site, i: int, width: int) -> Site:
    part = (i * width, (i + 1) * width)
    side: dict[str, Any] = {"rows": part} if site.reads else {"cols": part}
    label = f"{site.slot}.{site.coord['proj']}{i}" if site.slot is not None else f"{site.coord['proj']}{i}"
    inner = (("ff", width),)
    return replace(
        site,
        name=f"{site.module}[{label}]",
        coords=(*site.coords, ("block", i)),
        out=width,
        in_=width,
        inner=inner,
        **side,
    )
