"""p values of the differences in docs/results from the files there, for runs whose predictions are not kept.

    python benchmarks/paper/recompute.py    # writes differences.csv of FOLDERS again, and the heads into records.csv

p is the larger of the t test's over seeds, exact from ``records.csv``, and the crossed model's over seeds and test
examples. Where the metric has scores of examples the latter follows from the printed interval but for its degrees of
freedom. These are bounded: the model's variance v is at least that of the seeds' means, a, and Satterthwaite's formula
gives at most (S - 1) (v / a)^2 for S seeds. The largest p that these bounds and the rounding of the interval allow is
taken, so a difference that is called decided is. ``report.py`` computes p itself where there are predictions.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import report
from scipy.special import stdtr, stdtrit

from tensoradapt.analysis.facts import size
from tensoradapt.analysis.statistics.intervals import Floats
from tensoradapt.analysis.statistics.significance import paired_p
from tensoradapt.analysis.tables import corrected, one_sided, reported
from tensoradapt.files import csv_bytes, replace_file

FOLDERS = ("glue", "glue/long", "glue/one-rate", "instruct", "instruct/ranks", "vision")
HEADS = {"sst2": 770, "stsb": 385, "mrpc": 770, "cola": 770, "rte": 770, "cifar10": 7690}
HEADS["alpaca"] = 0  # ``n_trained_base`` of runs
PAIRED = ("accuracy", "f1", "matthews", "pearson", "spearman")  # the metrics whose examples those runs compared
MARGIN = 0.01  # one point; nats where the metric is a log-likelihood
ROUNDING = 5e-5  # the rounding of limits with four decimals


def largest_p(mean: float, half: float, variance: float, n: int) -> float:
    """The largest p of the crossed model for a difference with an interval of half this width, whose seeds' means,
    ``n`` of them, have this variance of their mean.
    """
    df = np.geomspace(n - 1, 1e6, 20001)
    error = (half + ROUNDING) / stdtrit(df, 0.975)
    with np.errstate(divide="ignore"):
        allowed = (error**2 >= variance) & (df <= (n - 1) * (error**2 / variance) ** 2 * (1 + 1e-9))
    if not allowed.any():
        raise SystemExit(f"no degrees of freedom give {mean:.4f} a half width of {half:.4f}: is records.csv of it?")
    return float((2 * stdtr(df, -abs(mean) / error))[allowed].max())


def recomputed(folder: Path) -> list[report.Row]:
    """The rows of a folder's ``differences.csv``: intervals as they are printed there, p values anew."""
    runs = reported(pd.read_csv(folder / "records.csv"))
    printed = {(row["task"], row["method"], row["size"]): row for row in report.read(folder / "differences.csv")}
    scores, found = dict(zip(runs["id"], runs["score"], strict=True)), list[report.Row]()
    for task, own in runs.groupby("task"):
        over_seeds = report.comparisons(own)
        known = [printed[task, row["method"], size(row, short=True)] for row in over_seeds]
        apart = [np.array([scores[a] - scores[b] for a, b in _pairs(row)]) for row in over_seeds]
        rows = [_row(*each) for each in zip(over_seeds, known, apart, strict=True)]
        for row, seeds in zip(corrected(rows), over_seeds, strict=True):
            found.append(report.rounded_row(row, seeds["low"], HEADS[task]))
    return found


def _pairs(row: report.Row) -> Iterable[tuple[str, str]]:
    """The runs of a comparison and of its reference, by seed."""
    return zip(row["runs"][0::2], row["runs"][1::2], strict=True)


def _row(row: report.Row, printed: Mapping[str, str], apart: Floats) -> report.Row:
    """A comparison over seeds alone with its printed interval, and p values that this allows."""
    low, high = float(printed["low"]), float(printed["high"])
    if len(apart) != int(printed["n_seeds"]) or abs(apart.mean() - (low + high) / 2) > 2 * ROUNDING:
        raise SystemExit(f"{printed} is not of the runs in records.csv; write it again: run.py --report")
    p, p_above = (_p(apart + shift, (high - low) / 2, row["metric"]) for shift in (0.0, MARGIN))
    interval = {key: float(printed[key]) for key in ("difference", "low", "high")}
    return {**row, **interval, "p": p, "p_within": one_sided(p_above, apart.mean() + MARGIN)}


def _p(apart: Floats, half: float, metric: str) -> float:
    exact, n = paired_p(apart), len(apart)
    return max(exact, largest_p(apart.mean(), half, apart.var(ddof=1) / n, n)) if metric in PAIRED else exact


def add_heads(records: Path) -> None:
    """Write ``n_head``, the numbers of the head that each run trains, into records; other cells stay as they are."""
    rows = [{**row, "n_head": str(HEADS[row["task"]])} for row in report.read(records)]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    replace_file(records, text.getvalue().encode())


def main(folders: Iterable[str] = FOLDERS) -> None:
    """Write the files of the folders."""
    for name in folders:
        folder = report.RESULTS / name
        rows = recomputed(folder)
        replace_file(folder / "differences.csv", csv_bytes(list(rows[0]), rows))
        add_heads(folder / "records.csv")


if __name__ == "__main__":
    main()
