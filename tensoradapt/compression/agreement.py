"""Tells what adapters of a library share from what chance explains: rows of A that agree, and a null of the task mode.

Adapters that are drawn with one seed start from one A, and a trained A stays close to its start. Training also turns
every A towards the inputs that the model has, so that spaces of rows overlap more than random ones do, whatever the
seeds. The sign of a row tells the two apart: B starts at zero, so a row of A that is drawn with the other sign is
trained to the same row with the other sign. Of independent draws the cosine of row k of one adapter and row k of
another therefore has either sign with the same probability; with one seed it stays positive.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence

import numpy as np

from tensoradapt.compression.sources import TrainedUpdates
from tensoradapt.errors import few
from tensoradapt.lora.pair import LoraPair

ROWS = 128  # as many of an adapter are compared: 2 MiB where inputs are 4,096 wide
FALSE_ALARM = 1e-3  # probability that any pair of a library of independent draws is named, at most
LEAST = 0.1  # a mean cosine under this is 1 % of a row's square, too little to matter to a library
TIED = 0.9  # rows of one adapter that are closer than this are one factor, and count once
DRAWS = 3


def rows_of(trained: TrainedUpdates) -> list[np.ndarray]:  # (k, in) for each compared module
    """Return the first rows of A, of length 1, of modules spread over an adapter; zeros where it has none to compare.

    Factors of other methods than LoRA are left out, and so are rows that repeat another's direction: parts of a fused
    module have one A, and exports of tied factors have the same rows in all layers.
    """
    sites = list({site.module: site for site in trained.sites}.values())
    sites = sites[:: math.ceil(len(sites) / ROWS) or 1]
    rows = [np.zeros((max(1, ROWS // len(sites)), site.in_), np.float32) for site in sites]
    if trained.adapter is None or trained.adapter.plan.parameterization == "lora":
        seen: dict[int, list[np.ndarray]] = {}
        for site, own in zip(sites, rows, strict=True):
            update = trained.updates[""][site.name]
            if isinstance(update, LoraPair):
                _fill(own, update.a, seen.setdefault(site.in_, []))
    return rows


def _fill(rows: np.ndarray, a: np.ndarray, seen: list[np.ndarray]) -> None:
    """Write unit rows of A in place, but those of zeros and those that were seen."""
    for row, given in zip(rows, a, strict=False):
        if length := np.linalg.norm(given):
            unit = (given / length).astype(np.float32)
            if not seen or np.abs(np.stack(seen) @ unit).max() < TIED:
                row[:] = unit
                seen.append(unit)


def agreeing(rows: Mapping[str, Sequence[np.ndarray]]) -> list[tuple[list[str], float]]:
    """Return groups of adapters whose rows of A agree more than chance allows, each with its pairs' mean cosine.

    Two are linked where the sum of their cosines is above t times the root of their sum of squares. With independent
    signs that has a probability of exp(-t²/2) at most (Hoeffding 1963), and t is such that all pairs together have
    ``FALSE_ALARM``; fewer than about t² rows can link nothing. The mean cosine is above ``LEAST`` besides. A group is
    what links connect.
    """
    names, n = list(rows), len(rows)
    total, squares, count = np.zeros((3, n, n))
    for of_module in zip(*rows.values(), strict=True):
        for row in np.stack(of_module, axis=1):  # (n, in)
            cosines = (row @ row.T).astype(float)
            total, squares, count = total + cosines, squares + cosines**2, count + (cosines != 0)
    t = math.sqrt(2 * math.log(n * (n - 1) / 2 / FALSE_ALARM))
    linked = (total > t * np.sqrt(squares)) & (total > LEAST * count) & ~np.eye(n, dtype=bool)
    mean = total / np.maximum(count, 1)
    return [([names[i] for i in own], _mean_of(mean, linked, own)) for own in _components(linked)]


def _mean_of(mean: np.ndarray, linked: np.ndarray, own: Sequence[int]) -> float:
    """Return the mean over the linked pairs of a group."""
    at = np.ix_(own, own)
    return float(mean[at][linked[at]].mean())


def _components(linked: np.ndarray) -> list[list[int]]:
    """Return the connected components of two or more."""
    left, found = set(range(len(linked))), list[list[int]]()
    while left:
        group = {min(left)}
        while more := set(np.flatnonzero(linked[list(group)].any(0)).tolist()) - group:
            group |= more
        left -= group
        found += [sorted(group)] if len(group) > 1 else []
    return found


def warn_of_agreement(rows: Mapping[str, Sequence[np.ndarray]], stacklevel: int) -> None:
    """Warn once, with the names of all groups that agree."""
    if not (groups := agreeing(rows)):
        return
    told = [f"{few([repr(name) for name in names], 8)} (mean cosine {cosine:.2f})" for names, cosine in groups]
    warnings.warn(
        f"these adapters have rows of A that agree more than chance allows: {few(told, 8)}. By chance the mean "
        "cosine is 0. Adapters that were drawn with one seed agree so, whatever their tasks have in common. Train each "
        "with a seed of its own, as in ta.attach(model, plan, seed=7), to share only what the tasks do",
        stacklevel=stacklevel + 1,
    )


def null_spectrum(norms: np.ndarray, areas: np.ndarray) -> np.ndarray:
    """Return the singular values that a tensor has along its adapters, the largest first, if directions are random.

    Each matrix keeps its singular values and has random directions, independent of the others'. The inner product of
    two of them then has mean 0 and variance ``|X|² |Y|² / (out in)``, whatever these values are, so that the norms
    suffice: the Gram matrix of the adapters is drawn with normal entries of this variance, as sums over matrices and
    pairs of directions are. The same arguments give the same values, root mean squares over three draws.

    Args:
        norms: (adapters, sites), squared Frobenius norms.
        areas: (sites,), entries of each matrix.
    """
    spread, g = np.sqrt((norms / areas) @ norms.T), np.random.default_rng(0)
    squares = np.zeros(len(norms))
    for _ in range(DRAWS):
        upper = np.triu(spread * g.standard_normal(spread.shape), 1)
        squares += np.linalg.eigvalsh(np.diag(norms.sum(1)) + upper + upper.T)[::-1].clip(0) / DRAWS
    return np.asarray(np.sqrt(squares))
