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
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import report
from scipy.special import stdtr, stdtrit

from tensoradapt.analysis.statistics.intervals import Floats, t_interval
from tensoradapt.analysis.statistics.significance import paired_p
from tensoradapt.files import csv_bytes, replace_file

FOLDERS = ("glue", "glue/long", "glue/one-rate", "instruct", "instruct/ranks", "preference", "protein", "vision")
HEADS = {"sst2": 770, "stsb": 385, "mrpc": 770, "cola": 770, "rte": 770, "cifar10": 7690, "polyreactivity": 1026}
HEADS |= dict.fromkeys(("alpaca", "ultrafeedback", "antibody-mlm"), 0)  # ``n_trained_base`` of runs
PAIRED = ("accuracy", "f1", "matthews", "pearson", "spearman")  # the metrics whose examples those runs compared
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
    """The rows of a folder's ``differences.csv`` with p values."""
    runs: dict[tuple[str, str], list[dict[str, str]]] = {}
    for run in report.read(folder / "records.csv"):
        if run["kind"] == "adapter" and run["tuning"] == "False":
            runs.setdefault((run["task"], f"{run['method']} r={run['rank']}"), []).append(run)
    rows = [_row(row, runs) for row in report.read(folder / "differences.csv")]
    tasks = dict.fromkeys(row["task"] for row in rows)
    return [row for task in tasks for row in report.corrected([row for row in rows if row["task"] == task])]


def _row(row: Mapping[str, str], runs: Mapping[tuple[str, str], Sequence[Mapping[str, str]]]) -> report.Row:
    own, other = runs[row["task"], f"{row['method']} {row['size']}"], runs[row["task"], row["reference"]]
    scores = {run["seed"]: _score(run) for run in other}
    apart = np.array([_score(run) - scores[run["seed"]] for run in own if run["seed"] in scores])
    low, high, head = float(row["low"]), float(row["high"]), HEADS[row["task"]]
    if len(apart) != int(row["n_seeds"]) or abs(apart.mean() - (low + high) / 2) > 2 * ROUNDING:
        raise SystemExit(f"{row} is not of the runs in records.csv; write it again: run.py --report")
    trained = [int(side[0]["n_params"]) + head for side in (own, other)]
    p, p_above = (_p(apart + shift, (high - low) / 2, row["metric"]) for shift in (0.0, report.MARGIN))
    return {
        **{key: row[key] for key in ("task", "method", "size", "n_params")},
        "n_head": head,
        **{key: row[key] for key in ("reference", "times_fewer")},
        "times_fewer_trained": report.rounded(trained[1] / trained[0]),
        "metric": row["metric"],
        **{key: float(row[key]) for key in ("difference", "low", "high")},
        "low_seeds": round(t_interval(apart).low, 4),
        "n_seeds": row["n_seeds"],
        "p": p,
        "p_within": report.one_sided(p_above, apart.mean() + report.MARGIN),
    }


def _score(run: Mapping[str, str]) -> float:
    return float(run["chance" if run["status"] == "diverged" else "test"])


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
