"""Strips: rows of one stored matrix and the sites in them; what a magnitude of DoRA scales. No torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tensoradapt.sites.site import Site


@dataclass(frozen=True)
class Strip:
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


def strips(sites: Iterable[Site]) -> tuple[Strip, ...]:
    """The strips of a plan's sites, in their order."""
    found: dict[tuple, list[Site]] = {}
    for site in sites:
        found.setdefault((site.key, site.slot, site.rows, site.period), []).append(site)
    return tuple(Strip(tuple(own)) for own in found.values())
