"""The numbers that pages say, from the files that hold them."""

from __future__ import annotations

import csv
import math
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from tensoradapt.lab.analysis.statistics.intervals import Floats, Interval, t_interval
from tensoradapt.lab.analysis.tables import compare, reported

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
sys.path.append(str(Path(__file__).parents[2] / "benchmarks" / "paper"))
import best_rate

ROOT = Path(__file__).parents[2]
STEP = best_rate.STEP
TUCKER_START = "benchmarks/records/tucker_start.csv"
NUMBERS = "none one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen".split()
Row = dict[str, str]


@cache
def rows(path: str) -> tuple[Row, ...]:
    """The rows of a CSV file."""
    with (ROOT / path).open(newline="") as file:
        return tuple(csv.DictReader(file))


def one(path: str, **wanted: str) -> Row:
    """The only row of a file with these cells."""
    (found,) = [row for row in rows(path) if all(row[key] == value for key, value in wanted.items())]
    return found


@cache
def all_runs(folder: str) -> pd.DataFrame:
    """All runs of a folder of docs/results, those that tuned too."""
    return pd.read_csv(ROOT / "docs/results" / folder / "records.csv")


def unsigned(gap: Interval) -> str:
    """A mean that is above zero with its interval."""
    return f"{gap.mean:.3f} ({gap.low:.3f} to {gap.high:.3f})"


def forgetting_gains() -> list[float]:
    """By how much general text became more likely in each configuration of docs/examples/forgetting, nats a token."""
    cells: dict[tuple[str, str], list[float]] = {}
    for row in rows("docs/examples/forgetting/runs.csv"):
        cells.setdefault((row["method"], row["rank"]), []).append(-float(row["forgetting"]))
    return [float(np.mean(values)) for values in cells.values()]


BUDGETS = ("19000", "37500", "75000")
AROUND = {  # cells of docs/examples/around of one number of parameters, whose difference is taken over sizes
    "CP": [(("CP by HiRA's rule", n), ("CP", n)) for n in BUDGETS],
    "Tensor-train": [(("Tensor-train by HiRA's rule", n), ("Tensor-train", n)) for n in BUDGETS],
    "LoRA": [(("hira", r), ("lora", r)) for r in ("1.0", "2.0", "4.0")],
    "GraLoRA": [(("gralora", "1.0"), ("lora", "2.0")), (("gralora", "2.0"), ("lora", "4.0"))],
    "RaSA": [(("rasa", r), ("lora", r)) for r in ("2.0", "4.0")],
}


def around(method: str, size: str) -> Floats:
    """The accuracy of each seed of a cell of docs/examples/around, by rank or budget."""
    found = one("docs/examples/around/means.csv", method=method, **{"rank" if "." in size else "budget": size})
    return np.array([float(score) for score in found["scores"].strip("'").split()])


def gain_around(*names: str) -> str:
    """What the first cells of these pairs gain over the second, as a mean over sizes and names, paired over seeds."""
    gains = [np.mean([around(*a) - around(*b) for a, b in AROUND[name]], axis=0) for name in names]
    return unsigned(t_interval(np.mean(gains, axis=0)))


def same_rows(spec: str) -> tuple[Row, ...]:
    """The configurations of a specification of docs/examples/same-function."""
    return rows(f"docs/examples/same-function/{spec}.csv")


def same_row(spec: str, method: str) -> tuple[int | float, ...]:
    """A configuration's parameters, its rate (1e-3), its mean over seeds, and the interval."""
    (row,) = [row for row in same_rows(spec) if row["method"] == method]
    return int(row["n_params"]), 1e3 * float(row["lr"]), *(float(row[key]) for key in ("mean", "low", "high"))


def same_tried(method: str) -> float:
    """By how much three tuning seeds put the rate 3.6e-3 ahead of 2e-3 on validation."""
    found = {
        lr: np.mean(
            [float(row["validation"]) for row in same_rows("tried") if (row["method"], row["lr"]) == (method, lr)]
        )
        for lr in ("0.0036", "0.002")
    }
    return float(found["0.0036"] - found["0.002"])


def same_apart(spec: str) -> float:
    """How far apart the means of a specification of it are."""
    means = [float(row["mean"]) for row in same_rows(spec)]
    return max(means) - min(means)


OTHERS = "headline/others"
OF_FIRST_RANK = {"lora_xs", "lotr", "Tensor-train by HiRA's rule", "CP, projections tied too"}  # of LoRA r=1's size


@cache
def runs_of_others() -> pd.DataFrame:
    """The reported runs of ``OTHERS`` of LoRA r=1's size, and those of the headline over the same seeds."""
    others, first = (reported(all_runs(name)) for name in (OTHERS, "headline"))
    assert {*others["seed"]} == {*range(5)}
    return pd.concat([others[others["method"].isin(OF_FIRST_RANK)], first[first["seed"].isin(others["seed"])]])


def rule_on_tensor_train() -> tuple[str]:
    """What tensor-train by HiRA's rule has more than tensor-train of its size over the same seeds, not decided."""
    runs, name = runs_of_others(), "Tensor-train"
    both = runs[runs["method"].isin([name, f"{name} by HiRA's rule"]) & runs["n_params"].eq(17616)]
    (row,) = compare(both, name, at="budget").itertuples()
    assert row.p > 0.05
    return (f"{row.difference:.3f} ({row.low:+.3f} to {row.high:+.3f})",)


LINEAR = "headline/linear"


def rates_on_linear() -> tuple[int | float | str, ...]:
    """The number of runs on all linear layers, the rates of LoRA (in 1e-4) and CP (in 1e-3), a step of 1.8 below those
    of attention, and how many runs are lost, all of which tuned.
    """
    every = rows(f"docs/results/{LINEAR}/records.csv")
    chosen = {(row["method"], float(row["lr"])) for row in rows(f"docs/results/{LINEAR}/means.csv")}
    assert chosen == {("lora", 6.1e-4), ("CP", 1.1e-3)}
    lora, cp = rates_of_headline()[:2]
    assert math.isclose(lora / 0.61, STEP, rel_tol=0.02) and math.isclose(cp / 1.1, STEP, rel_tol=0.02)
    lost = [row for row in every if row["status"] != "finished"]
    assert all(row["tuning"] == "True" for row in lost) and {row["method"] for row in lost} == {"lora", "CP"}
    return len(every), 6.1, 1.1, NUMBERS[len(lost)]


def pair(reference: str, n_params: int, method: str = "CP by HiRA's rule") -> tuple[str, float, float]:
    """A difference of docs/results/headline/pairs.csv with its interval, its p and Holm's."""
    every = [row for row in rows("docs/results/headline/pairs.csv") if row["reference"] == reference]
    assert not any(float(row["p_holm"]) < 0.05 for row in every)
    (row,) = (row for row in every if (row["n_params"], row["method"]) == (str(n_params), method))
    gap, low, high = (float(row[key]) for key in ("difference", "low", "high"))
    return f"{gap:.3f} ({low:.3f} to {high:.3f})", float(row["p"]), float(row["p_holm"])


def rates_of_headline() -> tuple[float, ...]:
    """The chosen rates, in thousandths: one for all sizes of the methods that have it."""
    found = rows("docs/results/headline/means.csv")
    groups = (("lora",), ("CP", "Tensor-train", "Tucker"), ("vera", "CP by HiRA's rule", "CP, heads split"))
    rates = [{1e3 * float(row["lr"]) for row in found if row["method"] in group} for group in groups]
    return tuple(round(of.pop(), 2) for of in rates if len(of) == 1)


def tucker_cells() -> tuple[tuple[str, str], ...]:
    """The arms and ranks of benchmarks/records/tucker_start.csv."""
    return tuple(dict.fromkeys((row["arm"], row["rank"]) for row in rows(TUCKER_START)))


def tucker_scores(arm: str, rank: str) -> tuple[float, ...]:
    """Mean accuracies over seeds of an arm of it: after a quarter, a half and all of the steps."""
    found = [row for row in rows(TUCKER_START) if (row["arm"], row["rank"]) == (arm, rank)]
    return tuple(float(np.mean([float(row[at]) for row in found])) for at in ("quarter", "half", "accuracy"))


@cache
def of_scale(what: str) -> tuple[float, ...]:
    """Processor seconds of a row of benchmarks/records/sweep_scale.csv at three sizes, and MiB at the largest."""
    found = [one("benchmarks/records/sweep_scale.csv", runs=n, what=what) for n in ("100", "1000", "10000")]
    return (*(float(row["processor_seconds"]) for row in found), int(found[-1]["MiB_peak"]))


def power_of_scale(*whats: str) -> tuple[float, float]:
    """By which powers of the number of runs processor seconds grow from 1,000 to 10,000 of them, least and most."""
    powers = [math.log10(of_scale(what)[2] / of_scale(what)[1]) for what in whats]
    return min(powers), max(powers)


def spread_of_rank_one(tucker: str) -> float:
    """How far apart LoRA, CP and an arm of Tucker are at rank 1."""
    found = [tucker_scores(arm, "1")[-1] for arm in ("LoRA", "CP", tucker)]
    return max(found) - min(found)
