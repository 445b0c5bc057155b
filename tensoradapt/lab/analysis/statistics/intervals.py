"""Intervals for few seeds, paired differences over seeds and examples, and how sure a frontier is.

Nothing here resamples seeds: with three, bootstrap intervals that claim 95 % cover about 73 %, Student's t 95 %.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtr, stdtrit

from tensoradapt.checks import check_whole, is_number, shown
from tensoradapt.errors import TensorAdaptError

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A mean over ``n`` seeds with its confidence limits (docs/guides/statistics.md); nothing is checked or raised.

    Attributes:
        mean: in the unit of the scores.
        low, high: confidence limits of the mean; NaN where the data cannot give them.
        n: number of seeds.
        sd: standard deviation over seeds; NaN for one seed.
        sd_examples: what test examples add to the deviation of the mean, however many seeds there are; 0 where only
            seeds are known.

    >>> import tensoradapt as ta
    >>> ta.statistics.Interval(mean=0.02, low=0.0, high=0.04, n=3, sd=0.01).n
    3
    """

    mean: float
    low: float
    high: float
    n: int
    sd: float
    sd_examples: float = 0.0


def t_interval(values: ArrayLike, confidence: float = 0.95) -> Interval:
    """Return Student's t interval for a mean over seeds: mean -/+ t(n - 1) sd / sqrt(n).

    Args:
        values: scores (seeds,).
        confidence: share of such intervals that cover the mean over all seeds.

    Returns:
        An ``Interval``; one value has limits of NaN.

    Raises:
        TensorAdaptError: for no value, one that is not finite, and a confidence that is not between 0 and 1.

    Why not a bootstrap: docs/guides/statistics.md.

    >>> import tensoradapt as ta
    >>> found = ta.statistics.t_interval([0.80, 0.82, 0.84])
    >>> round(found.mean, 4), round(found.low, 4), round(found.high, 4), found.n, round(found.sd, 4)
    (0.82, 0.7703, 0.8697, 3, 0.02)
    """
    data = _finite(values, "values", 1)
    n = len(data)
    if n == 1:
        return Interval(float(data[0]), np.nan, np.nan, 1, np.nan)
    sd = float(data.std(ddof=1))
    return _around(float(data.mean()), sd / np.sqrt(n), n - 1, confidence, n, sd)


def paired_difference(a: ArrayLike, b: ArrayLike, confidence: float = 0.95) -> Interval:
    """Return an interval for the mean of ``a - b``, paired over seeds and test examples (docs/guides/statistics.md).

    The claim is about new seeds *and* new test examples, and the examples are the same for every seed, so neither a
    t-test over seeds nor one over all cells is right. The differences d follow the crossed random-effects model
    d_ij = mu + seed_i + example_j + rest_ij over S seeds and N examples, whose mean has the unbiased variance

        v = var(seed means) / S + var(example means) / N - MS_rest / (S N),

    MS_rest the mean square of the residuals with (S - 1)(N - 1) degrees of freedom (Searle, Casella & McCulloch,
    Variance Components, 1992, ch. 4; Brennan, Generalizability Theory, 2001, ch. 2). Each of the first two terms
    alone has an expectation of at most v, so v is not let fall below the larger. Degrees of freedom: Satterthwaite's,
    (sum of terms)^2 / sum(term^2 / df of term), never below the smaller of S - 1 and N - 1. One seed: variation over
    examples alone, which says nothing about other seeds; one example: over seeds alone.

    Args:
        a, b: scores (seeds, examples) of two methods on the same seeds and examples; 0 and 1 for accuracy.
        confidence: share of such intervals that cover the difference.

    Returns:
        An ``Interval`` of the difference, whose ``sd`` is that of the means of seeds; v is sd^2 / S + sd_examples^2.
        One number has limits of NaN.

    Raises:
        TensorAdaptError: for unequal or empty shapes, a number that is not finite, and a confidence that is not between
            0 and 1.

    >>> import numpy as np
    >>> import tensoradapt as ta
    >>> rng = np.random.default_rng(0)
    >>> d = ta.statistics.paired_difference(rng.random((3, 200)) < 0.8, rng.random((3, 200)) < 0.7)
    >>> round(d.mean, 3), round(d.low, 3), round(d.high, 3)
    (0.085, -0.004, 0.174)
    """
    first, second = _finite(a, "a", 2), _finite(b, "b", 2)
    if first.shape != second.shape:
        raise TensorAdaptError(
            f"paired scores have shapes {first.shape} and {second.shape}; expected the same seeds and examples: "
            "select the seeds that both methods ran"
        )
    difference = first - second
    seeds = len(difference)
    mean = float(difference.mean())
    if difference.size == 1:
        return Interval(mean, np.nan, np.nan, 1, np.nan)
    sd = float(difference.mean(1).std(ddof=1)) if seeds > 1 else np.nan
    variance, df = _crossed(difference)
    examples = math.sqrt(max(variance - sd**2 / seeds, 0.0)) if seeds > 1 else 0.0
    return replace(_around(mean, np.sqrt(variance), df, confidence, seeds, sd), sd_examples=examples)


def crossed_p(a: ArrayLike, b: ArrayLike) -> float:
    """Return the two-sided p value that the mean difference of scores (seeds, examples) is 0.

    The model is that of ``paired_difference``: p is below 0.05 exactly where its 95 % interval leaves 0 out. NaN for
    one seed and one example.
    """
    difference = _finite(a, "a", 2) - _finite(b, "b", 2)
    if difference.size == 1:
        return np.nan
    variance, df = _crossed(difference)
    if variance == 0:
        return float(not difference.any())
    return float(2 * stdtr(df, -abs(difference.mean()) / np.sqrt(variance)))


def on_frontier_probability(
    x: ArrayLike, mean: ArrayLike, sd: ArrayLike, n: ArrayLike, draws: int = 4000, seed: int = 0
) -> Floats:
    """Return the probability that each configuration is on the frontier, given its mean's noise over seeds.

    A configuration is on the frontier if no other has as good a score with as few parameters. Means are drawn from
    mean + t(n - 1) sd / sqrt(n), the posterior of a normal mean under the usual flat prior (Gelman et al., Bayesian
    Data Analysis, 3rd ed., 3.2). A configuration with one seed competes at its mean, but has no noise to draw, so its
    own probability is NaN (docs/guides/statistics.md).

    Args:
        x: what is to be small (k,), such as numbers of trained parameters.
        mean: mean scores (k,), of which large ones are good.
        sd: their standard deviations over seeds (k,), in the unit of the scores.
        n: numbers of seeds (k,).
        draws: how often all means are drawn.
        seed: of the draws.

    Returns:
        The probabilities (k,).

    Raises:
        TensorAdaptError: for what is no number, arrays of other shapes than (k,), and fewer draws than one.

    >>> import tensoradapt as ta
    >>> ta.statistics.on_frontier_probability([1, 2], [0.5, 0.9], [0.01, 0.01], [3, 3]).round(2)
    array([1., 1.])
    """
    given = {"x": x, "mean": mean, "sd": sd, "n": n}
    size, centre, spread, count = (real(values, name) for name, values in given.items())
    check_whole("draws", draws)
    check_whole("seed", seed, 0)
    if size.ndim != 1 or not size.shape == centre.shape == spread.shape == count.shape:
        shapes = f"{size.shape}, {centre.shape}, {spread.shape} and {count.shape}"
        raise TensorAdaptError(f"x, mean, sd and n have shapes {shapes}; expected (k,), one of each per configuration")
    known = count > 1
    scale = np.where(known, spread, 0.0) / np.sqrt(count)
    noise = np.random.default_rng(seed).standard_t(np.maximum(count - 1, 1), (draws, len(centre)))
    share = non_dominated(size, centre + noise * scale).mean(0)
    return np.where(known, share, np.nan)


def non_dominated(x: ArrayLike, y: ArrayLike) -> NDArray[np.bool_]:
    """Return a mask, shaped like ``y`` (..., k), of the points that no other beats; small ``x`` (k,), large ``y`` win.

    A point is beaten by one that is at least as good in both and better in one: of equal ``y`` the larger ``x`` goes,
    and points equal in both stay together.

    >>> non_dominated([1, 2, 3, 3], [0.5, 0.5, 0.7, 0.7])
    array([ True, False,  True,  True])
    """
    size, value = np.asarray(x, float), np.asarray(y, float)
    levels, level, counts = np.unique(size, return_inverse=True, return_counts=True)
    if not len(levels):
        return np.zeros(value.shape, bool)
    ordered = value[..., np.argsort(level, kind="stable")]
    best = np.maximum.reduceat(ordered, np.cumsum(counts) - counts, axis=-1)
    smaller = np.full_like(best, -np.inf)
    smaller[..., 1:] = np.maximum.accumulate(best, axis=-1)[..., :-1]
    return (value == best[..., level]) & (value > smaller[..., level])


def _crossed(difference: Floats) -> tuple[float, float]:
    """Return the variance of the grand mean of (seeds, examples) and its degrees of freedom."""
    counts = np.array(difference.shape)
    if counts.min() == 1:
        return float(difference.var(ddof=1) / difference.size), float(difference.size - 1)
    by_seed, by_example = difference.mean(1), difference.mean(0)
    rest = difference - by_seed[:, None] - by_example + difference.mean()
    dfs = np.array([counts[0] - 1, counts[1] - 1, np.prod(counts - 1)], float)
    mean_square = float((rest**2).sum()) / dfs[2]
    by_axis = by_seed.var(ddof=1) / counts[0], by_example.var(ddof=1) / counts[1]
    terms = np.array([*by_axis, -mean_square / counts.prod()])
    variance = max(float(terms.sum()), float(terms[:2].max()))
    if variance == 0:
        return 0.0, float(dfs.min())
    return variance, float(max(variance**2 / (terms**2 / dfs).sum(), dfs.min()))


def _around(mean: float, error: float, df: float, confidence: float, n: int, sd: float) -> Interval:
    if not (is_number(confidence, 0) and confidence < 1):
        raise TensorAdaptError(f"confidence is {shown(confidence)}; expected a share between 0 and 1, such as 0.95")
    half = float(stdtrit(df, (1 + confidence) / 2) * error)
    return Interval(mean, mean - half, mean + half, n, sd)


def real(values: ArrayLike, name: str) -> Floats:
    """Return real numbers as an array of float64; raise TensorAdaptError for texts, dates, complex and other values."""
    try:
        data = np.asarray(values)
        if data.dtype.kind in "biufO" and not isinstance(values, str):
            return data.astype(np.float64)
    except (TypeError, ValueError, RuntimeError):  # lists of unequal lengths, and tensors on a device
        pass
    raise TensorAdaptError(f"{name} is {shown(values)}; expected real numbers, as a list or an array of numpy")


def _finite(values: ArrayLike, name: str, ndim: int) -> Floats:
    data = real(values, name)
    if data.ndim != ndim or data.size == 0:
        axes = ("seeds",) if ndim == 1 else ("seeds", "examples")
        raise TensorAdaptError(f"{name} has shape {data.shape}; expected ({', '.join(axes)}) with at least one of each")
    if not np.isfinite(data).all():
        raise TensorAdaptError(
            f"{name} holds a number that is not finite; expected scores: count a diverged run as chance"
        )
    return data
