"""Whether the steps of a family's runs are enough: LoRA r=8 with half as many, as many and twice as many.

    python benchmarks/paper/plateau.py --family glue               # goes on where it was stopped
    python benchmarks/paper/plateau.py --family glue --report      # docs/results/glue/plateau.csv and plateau.png

Half and twice are sweeps of their own, with rates from the grid of the specification, chosen on validation; as many are
the family's own runs (``records.csv``, which ``run.py --report`` writes). All count with the first two seeds.
"""

from __future__ import annotations

import argparse
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import report
import run
from matplotlib.figure import Figure

import tensoradapt as ta
from tensoradapt.files import csv_bytes, replace_file
from tensoradapt.runs.store import load_runs

SHARES = (0.5, 2)  # shares of the specification's steps
SEEDS = [0, 1]
COLUMNS = ("task", "steps", "lr", "metric", "n_seeds", "mean", "low", "high")


def specifications(family: str) -> Iterator[dict[str, Any]]:
    """A sweep of LoRA r=8 alone for each share of the steps of each sweep of the family's scale "here"."""
    for name in run.FAMILIES[family]["here"]:
        for spec in run.specifications(run.HERE / f"{name}.toml"):
            rates = spec["lr"]
            lora = next(method for method in spec["method"] if method["method"] == "lora")
            alone = {"method": [{**lora, "rank": 8}], "seed": SEEDS}
            alone["lr"] = rates["lora"] if isinstance(rates, dict) else rates
            others = {key: value for key, value in spec.items() if key != "reference"}
            for share in SHARES:
                yield {**others, **alone, "steps": max(1, round(share * spec["steps"]))}


def curve(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row for each task and number of steps of LoRA r=8: its mean test score, and its seeds' least and largest.

    Tasks whose runs of half or twice the steps are not there are left out.
    """
    scores: dict[tuple[str, int, float, str], list[float]] = {}
    for row in records:
        if report.is_reference(row) and int(row["seed"]) in SEEDS:
            case = (row["task"], int(row["steps"]), float(row["lr"]), row["metric"])
            scores.setdefault(case, []).append(float(row["chance" if row["status"] == "diverged" else "test"]))
    numbers = Counter(task for task, *_ in scores)
    rows = [(*case, len(v), statistics.fmean(v), min(v), max(v)) for case, v in sorted(scores.items())]
    return [dict(zip(COLUMNS, row, strict=True)) for row in rows if numbers[row[0]] == len(SHARES) + 1]


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
        folder = report.RESULTS / args.family
        own = folder / "records.csv"
        if not own.is_file():
            raise SystemExit(f"{own} is missing; write it first: run.py --family {args.family} --report")
        rows = curve([*report.records(load_runs(out), {}), *report.read(own)])
        if not rows:
            raise SystemExit(
                f"{out} has no task with runs of both half and twice the steps; run them first: "
                f"plateau.py --family {args.family}"
            )
        replace_file(folder / "plateau.csv", csv_bytes(COLUMNS, rows))
        draw(rows).savefig(folder / "plateau.png", dpi=150)
        return 0
    options = {"executor": args.executor, "workers": args.workers, "probe": False}
    ended = [ta.sweep(spec, out, **options) for spec in specifications(args.family)]
    return 0 if all(one.complete for one in ended) else 1


if __name__ == "__main__":
    raise SystemExit(main())
