"""The rows of a committed ``within.csv`` once more, from its intervals and the scores by seed of ``records.csv``.

Scores of test examples are not committed: what they add to the variance of a difference follows from the width of its
95 % interval, whose degrees of freedom are Satterthwaite's.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from scipy import optimize, stats

from tensoradapt.analysis.tables import Row, corrected, reported


def margins_again(folder: Path) -> pd.DataFrame:
    """Return the rows of a folder's ``within.csv`` with p values, decisions and seeds as ``corrected`` has them."""
    runs, table = reported(pd.read_csv(folder / "records.csv")), pd.read_csv(folder / "within.csv")
    groups = [own.to_dict("records") for _, own in table.groupby(["margin", "task"], sort=False)]
    return pd.DataFrame([row for own in groups for row in corrected([_again(row, runs) for row in own])], table.index)


def _again(row: Row, runs: pd.DataFrame) -> Row:
    apart = _by_seed(row, runs)
    sd, examples, df = apart.std(ddof=1), *_examples(row, apart)
    over_seeds, over_both = sd / len(apart) ** 0.5, (sd**2 / len(apart) + examples**2) ** 0.5
    gap = row["difference"] + row["margin"]
    p = max(2 * stats.t.sf(abs(row["difference"]) / se, n) for se, n in ((over_seeds, len(apart) - 1), (over_both, df)))
    p_within = max(stats.t.sf(gap / se, n) for se, n in ((over_seeds, len(apart) - 1), (over_both, df)))
    return {**row, "sd": sd, "sd_examples": examples, "p": p, "p_within": p_within}


def _by_seed(row: Row, runs: pd.DataFrame) -> pd.Series:
    """Return the differences to LoRA r=8 of one row, by seed."""
    of_task = runs[runs["task"] == row["task"]]
    own = of_task[(of_task["method"] == row["method"]) & (of_task["n_params"] == row["n_params"])]
    lora = of_task[(of_task["method"] == "lora") & (of_task["rank"].astype(float) == 8)]
    return (own.set_index("seed")["score"] - lora.set_index("seed")["score"]).dropna()


def _examples(row: Row, apart: pd.Series) -> tuple[float, float]:
    """Return what test examples add to the deviation of a row's mean, and the degrees of freedom of its interval."""
    seeds, half = apart.var(ddof=1) / len(apart), (row["high"] - row["low"]) / 2

    def excess(df: float) -> float:
        return (len(apart) - 1) * (half / stats.t.ppf(0.975, df)) ** 4 / seeds**2 - df

    df = optimize.brentq(excess, len(apart) - 1, 1e6) if excess(len(apart) - 1) > 0 else len(apart) - 1.0
    return max((half / stats.t.ppf(0.975, df)) ** 2 - seeds, 0.0) ** 0.5, df
