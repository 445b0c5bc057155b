"""The rows of a committed ``within.csv`` once more, from its intervals and the scores by seed of ``records.csv``."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from committed import apart_by_seed, errors

from tensoradapt.analysis.tables import Row, corrected, reported


def margins_again(folder: Path) -> pd.DataFrame:
    """Return the rows of a folder's ``within.csv`` with p values, decisions and seeds as ``corrected`` has them."""
    runs, table = reported(pd.read_csv(folder / "records.csv")), pd.read_csv(folder / "within.csv")
    groups = [own.to_dict("records") for _, own in table.groupby(["margin", "task"], sort=False)]
    return pd.DataFrame([row for own in groups for row in corrected([_again(row, runs) for row in own])], table.index)


def _again(row: Row, runs: pd.DataFrame) -> Row:
    lora = runs[runs["method"].eq("lora") & runs["rank"].astype(float).eq(8) & runs["task"].eq(row["task"])]
    apart = apart_by_seed(runs, row, "lora", int(lora["n_params"].iloc[0]))
    known = errors(row, apart)
    p = 2 * known.p_above(abs(row["difference"])), known.p_above(row["difference"] + row["margin"])
    return {**row, "sd": apart.std(ddof=1), "sd_examples": known.examples, "p": p[0], "p_within": p[1]}
