"""Tests of differences between methods: paired over seeds, corrected for their number."""

from __future__ import annotations

import math

import numpy as np
import scipy  # its stats take half a second to load, and do so when they are first used
from numpy.typing import ArrayLike

from tensoradapt.checks import check_is, check_whole, is_number, is_whole, shown
from tensoradapt.errors import TensorAdaptError
from tensoradapt.lab.analysis.statistics.intervals import Floats, Interval, crossed_p, real

EQUAL = 1e-12  # times the scores: differences below are of rounding


def holm(p: ArrayLike) -> Floats:
    """Return Holm's adjusted p values (Scandinavian Journal of Statistics 1979).

    The k-th smallest of m is multiplied by m - k + 1; none is below those before it, none above 1
    (docs/guides/statistics.md).

    Args:
        p: p values (m,) of all comparisons that are looked at together.

    Returns:
        The adjusted p values (m,), in the order given.

    Raises:
        TensorAdaptError: for other shapes than (m,), and for values that are NaN, below 0 or above 1.

    >>> import tensoradapt as ta
    >>> ta.statistics.holm([0.01, 0.04, 0.03]).round(3).tolist()
    [0.03, 0.06, 0.06]
    """
    values = real(p, "p")
    if values.ndim != 1 or not ((values >= 0) & (values <= 1)).all():
        raise TensorAdaptError(f"p is {shown(p)}; expected p values (m,), each between 0 and 1")
    order = np.argsort(values, kind="stable")
    steps = np.arange(len(values), 0, -1) * values[order]
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted


def paired_p(
    a: ArrayLike,  # (seeds,)
    b: ArrayLike = 0.0,  # (seeds,), or 0 where ``a`` are differences
) -> float:
    """Return the p value that the scores of two methods differ by nothing but the noise of seeds, by the paired t test.

    Few test examples leave few values that a difference can take, so two or three seeds often differ by just the same,
    of which the t test would make p = 0. There p is that of the sign test, 2^(1 - seeds); 1 where they do not differ.

    >>> paired_p([0.81, 0.83, 0.84], [0.8, 0.8, 0.8]) < 0.1, paired_p([0.83, 0.83, 0.83], [0.8, 0.8, 0.8])
    (True, 0.25)
    """
    difference, rounding = _apart(a, b)
    if np.ptp(difference) <= rounding:
        return 2.0 ** (1 - len(difference)) if np.abs(difference).max() > rounding else 1.0
    t = difference.mean() / (difference.std(ddof=1) / math.sqrt(len(difference)))
    return float(2 * scipy.special.stdtr(len(difference) - 1, -abs(t)))


def _apart(a: ArrayLike, b: ArrayLike) -> tuple[Floats, float]:
    """Return the differences of scores (seeds,), and what two of them may be apart by rounding alone."""
    first, second = np.asarray(a, float), np.asarray(b, float)
    return first - second, EQUAL * float(max(np.abs(first).max(), np.abs(second).max()))


def seeds_needed(difference: Interval, n_comparisons: int = 1, level: float = 0.05, most: int = 200) -> int | None:
    """Return the fewest seeds with which the mean difference and spread hold by the paired t test among so many others.

    The level is divided by the number of comparisons, as Holm's correction does for the smallest p. Where the
    difference is one over test examples too, it has to hold over new ones as well, and these bound how small a
    difference can hold, however many seeds there are; where all seeds differ by the same, it is the sign test that has
    to hold (docs/guides/statistics.md).

    Args:
        difference: as measured, from ``paired_difference``, or from ``t_interval`` of the differences of seeds.
        n_comparisons: number of comparisons that are corrected for.
        level: probability of any false one among them.
        most: number of seeds up to which is searched.

    Returns:
        The number of seeds; None above ``most``, for a difference of 0 and for that of one seed, and where more test
        examples are needed.

    Raises:
        TensorAdaptError: for what is no ``Interval``, fewer comparisons or seeds than one, and a level that is not
            between 0 and 1.

    >>> import tensoradapt as ta
    >>> measured = ta.statistics.Interval(mean=0.02, low=0.0, high=0.04, n=3, sd=0.01)
    >>> ta.statistics.seeds_needed(measured), ta.statistics.seeds_needed(measured, n_comparisons=21)
    (4, 7)
    """
    check_is("difference", difference, Interval)
    check_whole("most", most)
    if not (is_whole(n_comparisons) and is_number(level, 0) and level < 1):
        raise TensorAdaptError(
            f"n_comparisons is {shown(n_comparisons)} and level {shown(level)}; expected 1 or more, and a share such "
            "as 0.05"
        )
    mean, sd, sd_examples = map(float, real([difference.mean, difference.sd, difference.sd_examples], "difference"))
    if not mean or not math.isfinite(sd):
        return None
    n, mean = np.arange(2, most + 1), abs(mean)
    seeds, examples = max(sd, EQUAL * mean) ** 2 / n, sd_examples**2
    over_both = (seeds + examples) ** 2 / (seeds**2 / (n - 1))  # Satterthwaite's, as examples are many
    tests = ((seeds, n - 1.0), (seeds + examples, over_both))
    p = np.maximum(*(2 * scipy.special.stdtr(df, -mean / np.sqrt(variance)) for variance, df in tests))
    if sd <= EQUAL * mean and not examples:
        p = np.maximum(p, 2.0 ** (1 - n))
    holds = np.flatnonzero(p < level / n_comparisons)
    return int(n[holds[0]]) if len(holds) else None


def crossed_paired_p(
    a: ArrayLike,  # (seeds, examples)
    b: ArrayLike,  # (seeds, examples)
) -> float:
    """Return the p value that two methods differ over new seeds and new examples.

    It is the larger of the crossed model's (``crossed_p``) and the paired t test's over the means of seeds.

    The crossed model estimates its degrees of freedom. Where seeds differ much, a few that happen to agree make it
    reject too often far in the tail, where a correction for many comparisons looks: with 3 seeds 8 times too often at
    0.0024. The t test over seeds is exact there, and too bold where the examples decide, where the model holds. The
    larger keeps its level in both and between (``tests/lab/analysis/test_comparisons.py``). Where all seeds differ by
    the same, the crossed model's alone; NaN for one seed.

    >>> rng = np.random.default_rng(0)
    >>> round(crossed_paired_p(rng.random((3, 200)) < 0.8, rng.random((3, 200)) < 0.7), 3)
    0.075
    """
    first, second = np.asarray(a, float), np.asarray(b, float)
    if len(first) < 2:
        return np.nan
    by_seed = first.mean(1), second.mean(1)
    difference, rounding = _apart(*by_seed)
    return max(crossed_p(first, second), paired_p(*by_seed) if np.ptp(difference) > rounding else 0.0)


def mcnemar(
    a: ArrayLike,  # (examples,), whether each is right
    b: ArrayLike,  # (examples,)
) -> float:
    """Return McNemar's exact p value (Psychometrika 1947) that two classifiers err equally often.

    A fair coin decides each example that one alone gets right.

    >>> mcnemar([1, 1, 1, 1, 0], [0, 0, 0, 1, 0])
    0.25
    """
    first, second = np.asarray(a, bool), np.asarray(b, bool)
    if first.shape != second.shape or first.ndim != 1:
        raise TensorAdaptError(f"answers have shapes {first.shape} and {second.shape}; expected the same (examples,)")
    alone = int((first & ~second).sum()), int((second & ~first).sum())
    return float(scipy.stats.binomtest(alone[0], sum(alone)).pvalue) if sum(alone) else 1.0
