"""What is looked at before a family is run: whether its steps are enough, and which rate the head takes.

    python benchmarks/paper/first_looks.py --family glue             # goes on where it was stopped
    python benchmarks/paper/first_looks.py --family glue --report    # adds them to benchmarks/records/first_looks.csv

LoRA r=8 alone, with half as many steps as the family has, as many and twice as many, and with a third of the head's
rate and three times it: at the middle of its rates, with a seed that no other run has, by the score on validation. With
``--task cola`` one task alone, with ``--steps 2 4`` so many times the steps of the family, with ``--seed 2001 2002``
several seeds.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import report
import run

import tensoradapt as ta
from tensoradapt.files import replace_file
from tensoradapt.lab.runs.store import load_runs

SEEDS = (2001,)
STEPS, HEADS = (0.5, 1, 2), (1 / 3, 3)  # shares of the specification's
RECORD = Path(__file__).parents[1] / "records" / "first_looks.csv"
KEY = ["model", "task", "steps", "head_lr", "lr", "seed"]
COLUMNS = [*KEY, "validation", "score"]


def specifications(
    family: str,
    scale: str = "here",
    task: str | None = None,
    steps: Sequence[float] = STEPS,
    seeds: Sequence[int] = SEEDS,
) -> Iterator[dict[str, Any]]:
    """A sweep of LoRA r=8 with one rate for each look at each sweep of a family's scale, or at those of one task."""
    for file in run.files_of(family, scale):
        for spec in run.specifications(file):
            lora = next((method for method in spec.get("method", ()) if method["method"] == "lora"), None)
            if lora is not None and task in (None, spec["task"]):
                alone = {key: value for key, value in spec.items() if key not in ("reference", "tuning")}
                alone |= {"method": [{**lora, "rank": 8}], "lr": _middle(spec["lr"]), "seed": [*seeds]}
                yield from ({**alone, "steps": max(1, round(share * spec["steps"]))} for share in steps)
                heads = [spec["head_lr"] * share for share in HEADS] if "head_lr" in spec else []
                yield from ({**alone, "head_lr": report.rounded(rate)} for rate in heads)


def _middle(rates: Any) -> float:
    grid = rates["lora"] if isinstance(rates, dict) else rates
    return grid[len(grid) // 2] if isinstance(grid, list) else grid


def looks(out: Path) -> list[dict[str, str]]:
    """A row for each finished run of a folder, as the record has it; ``score`` is of older looks, at the test."""
    return [{**{key: _text(one.row[key]) for key in COLUMNS[:-1]}, "score": ""} for one in load_runs(out)]


def _text(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else "" if value is None else str(value)


def added(rows: list[dict[str, str]], new: list[dict[str, str]]) -> list[dict[str, str]]:
    """Rows of the record with new ones, each in the place of the one of its model, task, rates, steps and seed."""
    known = {tuple(row[key] for key in KEY) for row in new}
    every = [row for row in rows if tuple(row[key] for key in KEY) not in known] + new
    return sorted(every, key=lambda row: (row["model"], row["task"], int(row["steps"]), float(row["head_lr"] or 0)))


def main() -> int:
    """Run or report what the command line asks for; returns 0 where all of it is done."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--family", choices=tuple(run.FAMILIES), required=True)
    p.add_argument("--scale", default="here")
    p.add_argument("--task", help="look at this one alone")
    p.add_argument(
        "--steps", type=float, nargs="+", default=STEPS, help="times the steps of the family (default: %(default)s)"
    )
    p.add_argument("--seed", type=int, nargs="+", default=SEEDS)
    p.add_argument("--out", type=Path, help="folder of runs (default: runs/paper/FAMILY-first)")
    p.add_argument("--report", action="store_true")
    p.add_argument("--executor", default="local")
    p.add_argument("--workers", type=int)
    args = p.parse_args()
    out = args.out or Path("runs") / "paper" / f"{args.family}-first"
    if args.report:
        table = pd.DataFrame(added(report.read(RECORD), looks(out)), columns=COLUMNS)
        replace_file(RECORD, table.to_csv(index=False, lineterminator="\n").encode())
        return 0
    specs = list(specifications(args.family, args.scale, args.task, args.steps, args.seed))
    if not specs:
        raise SystemExit(f"{args.family} has no sweep with LoRA on {args.task or 'any task'} at scale {args.scale}")
    options = {"executor": args.executor, "workers": args.workers, "probe": False}
    ended = [ta.sweep(spec, out, **options) for spec in specs]
    return 0 if all(one.complete for one in ended) else 1


if __name__ == "__main__":
    raise SystemExit(main())
