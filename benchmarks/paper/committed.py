"""What a committed difference says without the scores of test examples, which stay with the runs.

What these add to its variance follows from the width of its 95 % interval, whose degrees of freedom are of
Satterthwaite.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd
from scipy import optimize, stats

from tensoradapt.lab.analysis.tables import Row


@dataclass(frozen=True)
class Errors:
    """The standard errors of a mean difference over seeds, and over seeds and test examples, with their degrees."""

    seeds: float
    seeds_df: float
    both: float
    both_df: float

    @property
    def examples(self) -> float:
        """What test examples add to the standard error, however many seeds there are."""
        return max(self.both**2 - self.seeds**2, 0.0) ** 0.5

    def p_above(self, gap: float) -> float:
        """Return the one-sided p that a mean of ``gap`` is not above 0, of the larger p of the two t tests."""
        tests = (self.seeds, self.seeds_df), (self.both, self.both_df)
        p = max(float(stats.t.sf(abs(gap) / error, df)) for error, df in tests)
        return p if gap > 0 else 1 - p


def errors(row: Row, apart: pd.Series) -> Errors:
    """Return the standard errors of a committed difference.

    Args:
        row: with the limits ``low`` and ``high`` of its interval and, where that is known, ``sd_examples``; without it
            of two solutions the one with less of test examples.
        apart: its differences by seed.
    """
    n, half = len(apart), (row["high"] - row["low"]) / 2
    over_seeds, examples = float(apart.std(ddof=1)) / n**0.5, row.get("sd_examples")
    if examples is not None and not pd.isna(examples):
        both = (over_seeds**2 + examples**2) ** 0.5
        return Errors(over_seeds, n - 1, both, _degrees(lambda df: stats.t.ppf(0.975, df) * both - half, n - 1))
    df = _degrees(lambda df: (n - 1) * (half / stats.t.ppf(0.975, df)) ** 4 / over_seeds**4 - df, n - 1)
    return Errors(over_seeds, n - 1, max(half / float(stats.t.ppf(0.975, df)), over_seeds), df)


def _degrees(excess: Callable[[float], float], least: float) -> float:
    """Return the degrees of freedom at which ``excess``, which is positive below them, is 0."""
    return float(optimize.brentq(excess, least, 1e6)) if excess(least) > 0 else least


def apart_by_seed(runs: pd.DataFrame, row: Row, reference: str, n_params: int) -> pd.Series:
    """Return what one size has more than another, by seed.

    Args:
        runs: reported ones of one or several tasks.
        row: the task, method and parameters of the size.
        reference, n_params: those of the other.
    """
    of_task = runs[runs["task"] == row["task"]].set_index("seed")
    sides = ((row["method"], row["n_params"]), (reference, n_params))
    own, other = (of_task[of_task["method"].eq(name) & of_task["n_params"].eq(n)]["score"] for name, n in sides)
    return (own - other).dropna()
