"""Noise rank: the number of directions of a spectrum that stand above what noise gives."""

from __future__ import annotations

import math

import numpy as np
from scipy.special import gammaincinv

from tensoradapt.lab.analysis.statistics.intervals import Floats

TRACY_WIDOM = 4.36  # 99.99 % point of the Tracy-Widom law of order 1
ALARM = 1e-3  # chance that the first bound on the noise variance is too low
ROUNDING = 10  # eps of the largest: rounded entries of a product leave up to 0.6, whatever the size


def unfold(data: Floats, axis: int) -> Floats:
    """Return the matrix (n, size / n) of a tensor whose rows run along an axis of size n."""
    return np.moveaxis(data, axis, 0).reshape(data.shape[axis], -1)


def left_singular(matrix: Floats, full: bool = False) -> tuple[Floats, Floats]:
    """Return left singular vectors (all if ``full``) and singular values, by a QR of the transpose."""
    left, values, _ = np.linalg.svd(np.asarray(np.linalg.qr(matrix.T, mode="r")).T, full_matrices=full)
    return left, values


def rotated(core: Floats, left: Floats, axis: int) -> Floats:
    """Return ``core`` in the basis of the singular vectors: the other unfoldings keep their singular values."""
    return np.moveaxis(np.tensordot(left.T, core, (1, axis)), 0, axis)


def above_noise(core: Floats, values: list[Floats], shape: tuple[int, ...], eps: float) -> tuple[float, list[int]]:
    """Return the variance of the noise in an entry, and each mode's number of directions that stand above it."""
    modes = [(spectrum, n, math.prod(shape) // n) for spectrum, n in zip(values, shape, strict=True)]
    exact = [spectrum[0] * max(max(n, m) * np.finfo(float).eps, ROUNDING * eps) for spectrum, n, m in modes]
    variance = min(_bound(*mode) for mode in modes)
    ranks: list[int] = []
    while True:  # ends: the variance only falls, so ranks only grow
        before, ranks = ranks, [_count(*mode, variance, least) for mode, least in zip(modes, exact, strict=True)]
        if ranks == before:
            return _with_weak(core, ranks, shape, variance, exact) if any(ranks) else (variance, ranks)
        variance = min(variance, _outside(core, ranks, shape))


def _with_weak(
    core: Floats, ranks: list[int], shape: tuple[int, ...], variance: float, exact: list[float]
) -> tuple[float, list[int]]:
    """Add the directions that stand out once the other modes are cut to theirs, which leaves them less noise.

    Steps of higher-order orthogonal iteration (De Lathauwer, De Moor and Vandewalle 2000, the sequel). Ranks only grow.
    """
    ranks, before = [max(1, rank) for rank in ranks], [0]
    while ranks != before:
        before = list(ranks)
        for axis, n in enumerate(shape):
            cut = tuple(slice(None) if other == axis else slice(rank) for other, rank in enumerate(ranks))
            matrix = unfold(core[cut], axis)
            left, spectrum = left_singular(matrix, full=True)
            core = rotated(core, left, axis)
            ranks[axis] = max(ranks[axis], _count(spectrum, n, matrix.shape[1], variance, exact[axis]))
        variance = min(variance, _outside(core, ranks, shape))
    return variance, ranks


def _outside(core: Floats, ranks: list[int], shape: tuple[int, ...]) -> float:
    """Return the energy outside the leading block of the rotated core, per degree of freedom that is left there."""
    rest = core**2  # energies that differ by 1e30 cannot be subtracted
    rest[tuple(slice(rank) for rank in ranks)] = 0
    free = math.prod(shape) - math.prod(ranks) - sum(rank * (n - rank) for rank, n in zip(ranks, shape, strict=True))
    return float(rest.sum()) / free if free > 0 else math.inf


def _count(values: Floats, n: int, m: int, variance: float, least: float) -> int:
    """Count the singular values of an (n, m) unfolding above noise; after i of them (n - i, m - i) of it is left.

    Noise alone is above the edge with probability 0.0001 (Johnstone, Ann. Stat. 29, 2001).
    """
    i = np.arange(len(values))
    a, b = np.sqrt(n - i), np.sqrt(m - i)
    edge = (a + b) ** 2 + TRACY_WIDOM * (a + b) * (1 / a + 1 / b) ** (1 / 3)
    return int(np.cumprod(values > np.maximum(np.sqrt(variance * edge), least)).sum())


def _bound(values: Floats, n: int, m: int) -> float:
    """Return an upper bound on the variance of (n, m) noise whatever the signal: the least that trailing values allow.

    The j smallest squares over those of noise alone, over the lower limit of chi^2 / df with their degrees of freedom.
    """
    j = np.arange(1, len(values) + 1)
    df = j * (abs(n - m) + j)
    lower = 2 * gammaincinv(df / 2, ALARM) / df
    return float((np.cumsum(values[::-1] ** 2) / np.cumsum(_marchenko_pastur(n, m)[::-1]) / lower).min())


def _marchenko_pastur(n: int, m: int) -> Floats:
    """Return the squared singular values (min(n, m),) that noise of variance 1 has on average, largest first.

    Quantiles of the law of Marchenko and Pastur (1967): x = n + m + 2 sqrt(n m) cos(t) has density sin(t)^2 / x in t.
    """
    t = (np.arange(4096) + 0.5) * np.pi / 4096
    x = n + m + 2 * math.sqrt(n * m) * np.cos(t)
    share = np.cumsum(np.sin(t) ** 2 / x)
    return np.interp((np.arange(min(n, m)) + 0.5) / min(n, m), share / share[-1], x)
