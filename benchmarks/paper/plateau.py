"""Whether the steps of a family's runs are enough: LoRA r=8 with half as many, as many and twice as many.

    python benchmarks/paper/plateau.py --family glue               # goes on where it was stopped
    python benchmarks/paper/plateau.py --family glue --report      # docs/results/glue/plateau.csv and plateau.png

Half and twice are sweeps of their own, with rates from the grid of the specification, chosen on validation; as many are
the family's own runs (``records.csv``, which ``run.py --report`` writes). All count with the first two seeds.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import report
import run

import tensoradapt as ta
from tensoradapt.analysis import paper
from tensoradapt.analysis.tables import records, reported, summarise

SHARES = (0.5, 2)  # shares of the specification's steps
SEEDS = [0, 1]
COLUMNS = ["task", "steps", "lr", "metric", "n_seeds", "mean", "low", "high"]


def specifications(family: str) -> Iterator[dict[str, Any]]:
    """A sweep of LoRA r=8 alone for each share of the steps of each sweep of the family's scale "here"."""
    for name in run.FAMILIES[family]["here"]:
        for spec in run.specifications(run.HERE / f"{name}.toml"):
            rates = spec["lr"]
            lora = next((method for method in spec.get("method", ()) if method["method"] == "lora"), None)
            if lora is None:
                continue
            alone = {"method": [{**lora, "rank": 8}], "seed": SEEDS}
            alone["lr"] = rates["lora"] if isinstance(rates, dict) else rates
            others = {key: value for key, value in spec.items() if key != "reference"}
            for share in SHARES:
                yield {**others, **alone, "steps": max(1, round(share * spec["steps"]))}


def curve(runs: pd.DataFrame) -> pd.DataFrame:
    """A row for each task and number of steps of LoRA r=8: its mean test score, and its seeds' least and largest.

    Tasks whose runs of half or twice the steps are not there are left out.
    """
    own = reported(runs)
    method, rank = report.REFERENCE
    own = own[(own["method"] == method) & (own["rank"] == rank) & own["seed"].isin(SEEDS)]
    if own.empty:
        return pd.DataFrame(columns=COLUMNS)
    means = summarise(own, "steps")
    means["low"], means["high"] = (means["scores"].map(end) for end in (min, max))
    return means[means.groupby("task")["steps"].transform("nunique") == len(SHARES) + 1][COLUMNS]


def runs_of(rows: pd.DataFrame) -> pd.DataFrame:
    """Runs behind rows of ``curve``: of two seeds the least and the largest score, whichever seed has which."""
    scores = [[row["low"], row["high"]][: row["n_seeds"]] for _, row in rows.iterrows()]
    runs = rows.assign(score=scores, method="lora", rank=8, n_params=None).drop(columns=["mean", "low", "high"])
    runs = runs.explode("score").astype({"score": float})
    return runs.assign(seed=runs.groupby(["task", "steps"]).cumcount())


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
        every = [table for table in (report.records(out), pd.read_csv(own)) if len(table)]
        rows = curve(pd.DataFrame([row for table in every for row in records(reported(table))]))
        if rows.empty:
            raise SystemExit(
                f"{out} has no task with runs of both half and twice the steps; run them first: "
                f"plateau.py --family {args.family}"
            )
        paper.write(rows, folder / "plateau.csv")
        report.draw(runs_of(rows), "plateau", folder / "plateau")
        return 0
    options = {"executor": args.executor, "workers": args.workers, "probe": False}
    ended = [ta.sweep(spec, out, **options) for spec in specifications(args.family)]
    return 0 if all(one.complete for one in ended) else 1


if __name__ == "__main__":
    raise SystemExit(main())
