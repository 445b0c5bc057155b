"""Ranks of their own for some tensors of a plan, chosen by the names of their sites."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tensoradapt.checks import check_rank
from tensoradapt.errors import TensorAdaptError, did_you_mean
from tensoradapt.networks.layout import Layout
from tensoradapt.networks.network import Network
from tensoradapt.planning.grouping import Bundle
from tensoradapt.planning.ranks import networks
from tensoradapt.sites.site import matches
from tensoradapt.text import Rank


def own_networks(
    family: Any,
    tensors: Sequence[Bundle],
    nets: Mapping[Layout, Network],
    patterns: Mapping[str, Rank],
    options: Mapping[str, Any],
    clip: bool,
) -> list[Network]:
    """The network of each tensor: that of its layout, or one with the rank of the pattern that all its sites match.

    Raises TensorAdaptError for a pattern that matches no site, or only some of a tensor's, and for two patterns with
    different ranks.
    """
    for pattern, rank in patterns.items():
        check_rank(rank, f"rank_pattern of {pattern!r}")
        _check_used(pattern, tensors)
    found = []
    for bundle in tensors:
        own_rank = _rank(bundle, patterns)
        own = nets if own_rank is None else networks(family, {bundle.layout: 1}, own_rank, options, clip)
        found.append(own[bundle.layout])
    return found


def check_patterns(patterns: Any, rank: Any, budget: Any) -> None:
    """Refuses what is no mapping of patterns, and patterns without a rank for the rest."""
    if not isinstance(patterns, Mapping) or not all(isinstance(pattern, str) for pattern in patterns):
        raise TensorAdaptError(
            f"rank_pattern is {patterns!r}; expected a mapping of site name patterns to ranks, as in "
            '{"*.layers.0.*": 2}'
        )
    if patterns and rank is None:
        given = f"budget={budget!r}" if budget is not None else "no rank"
        raise TensorAdaptError(f"rank_pattern was given with {given}; expected rank=, the rank of all other tensors")


def _check_used(pattern: str, tensors: Sequence[Bundle]) -> None:
    names = [member.site.name for bundle in tensors for member in bundle.members]
    if not any(matches(name, pattern) for name in names):
        raise TensorAdaptError(f"rank_pattern {pattern!r} matches no site{did_you_mean(pattern, names[:12])}")


def _rank(bundle: Bundle, patterns: Mapping[str, Rank]) -> Rank | None:
    matching = [pattern for pattern in patterns if _matches(bundle, pattern)]
    if len({str(patterns[pattern]) for pattern in matching}) > 1:
        raise TensorAdaptError(
            f"rank_pattern {' and '.join(map(repr, matching))} both match {bundle.members[0].site.name}, with "
            "different ranks; give each tensor one"
        )
    return patterns[matching[0]] if matching else None


def _matches(bundle: Bundle, pattern: str) -> bool:
    """Whether a pattern is for this tensor: for all of its sites or none."""
    names = [member.site.name for member in bundle.members]
    hit = [name for name in names if matches(name, pattern)]
    if hit and len(hit) < len(names):
        other = next(name for name in names if name not in hit)
        raise TensorAdaptError(
            f"rank_pattern {pattern!r} matches {hit[0]} and not {other}, which share a tensor over "
            f"{str(bundle.layout)!r}, and a tensor has one rank. Match all {len(names)} of its sites, or leave the "
            "coordinate that tells them apart out of the layout, so that each has a tensor of its own"
        )
    return bool(hit)
