"""Whether the steps of a family's runs are enough: LoRA r=8 with half as many, as many and twice as many.

    python benchmarks/paper/plateau.py --family glue               # goes on where it was stopped
    python benchmarks/paper/plateau.py --family glue --report      # docs/results/glue/plateau.csv and plateau.png

Each number of steps is a sweep of its own, with its own rate from the grid of the specification, chosen on validation.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import report
import run
from matplotlib.figure import Figure

import tensoradapt as ta
from tensoradapt.analysis.tables.comparable import by_task, reported, score
from tensoradapt.files import csv_bytes, replace_file
from tensoradapt.runs.store import Run, load_runs

SHARES = (0.5, 1, 2)  # of the specification's steps
SEEDS = [0, 1]
OF_METHODS = ("methods", "published", "references", "targets")
COLUMNS = ("task", "steps", "n_seeds", "metric", "mean", "low", "high")


def specifications(family: str) -> Iterator[dict[str, Any]]:
    """A sweep of LoRA r=8 alone for each share of the steps of each sweep of the family's scale "here"."""
    for name in run.FAMILIES[family]["here"]:
        for spec in run.specifications(run.HERE / f"{name}.toml"):
            rates = spec["learning_rates"]
            alone = {"parameterizations": ["lora"], "ranks": [8], "seeds": SEEDS}
            alone["learning_rates"] = rates["lora"] if isinstance(rates, dict) else rates
            others = {key: value for key, value in spec.items() if key not in OF_METHODS}
            for share in SHARES:
                yield {**others, **alone, "steps": max(1, round(share * spec["steps"]))}


def curve(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """A row for each task and number of steps: the mean test score, and the seeds' least and largest."""
    rows = []
    for task, of_task in by_task(reported(runs)).items():
        for steps in sorted({one.config["steps"] for one in of_task}):
            found = [score(one) for one in of_task if one.config["steps"] == steps]
            values = (task, steps, len(found), of_task[0].result["metric"], statistics.fmean(found))
            rows.append(dict(zip(COLUMNS, (*values, min(found), max(found)), strict=True)))
    return rows


def draw(rows: Sequence[dict[str, Any]]) -> Figure:
    """Score against steps, a panel for each task."""
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    figure = Figure(figsize=(2.6 * len(tasks), 2.4), layout="constrained")
    for axes, task in zip(figure.subplots(1, len(tasks), squeeze=False)[0], tasks, strict=True):
        own = [row for row in rows if row["task"] == task]
        steps, means = [row["steps"] for row in own], [row["mean"] for row in own]
        axes.vlines(steps, [row["low"] for row in own], [row["high"] for row in own], color="0.6")
        axes.plot(steps, means, "o-", color="C0")
        axes.set(xscale="log", xlabel="steps", ylabel=f"test {own[0]['metric'].replace('_', ' ')}", title=task)
        axes.set_xticks(steps, [f"{n:,}" for n in steps])
        axes.minorticks_off()
    return figure


def main() -> int:
    """Run or report what the command line asks for; returns 0 where all of it is done."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--family", choices=tuple(run.FAMILIES), required=True)
    p.add_argument("--out", type=Path, help="folder of runs (default: runs/paper/FAMILY-plateau)")
    p.add_argument("--report", action="store_true")
    p.add_argument("--executor", default="local")
    p.add_argument("--workers", type=int)
    args = p.parse_args()
    out = args.out or Path("runs") / "paper" / f"{args.family}-plateau"
    if args.report:
        rows, folder = curve(load_runs(out)), report.RESULTS / args.family
        folder.mkdir(parents=True, exist_ok=True)
        replace_file(folder / "plateau.csv", csv_bytes(COLUMNS, rows))
        draw(rows).savefig(folder / "plateau.png", dpi=150)
        return 0
    options = {"executor": args.executor, "workers": args.workers, "probe": False}
    ended = [ta.sweep(spec, out, **options) for spec in specifications(args.family)]
    return 0 if all(one.complete for one in ended) else 1


if __name__ == "__main__":
    raise SystemExit(main())
