"""Which factor of Tucker starts at zero: the core, as in papers, or the larger factor of the output side.

    python benchmarks/tucker_start.py

Over ``: out : in`` rank 1 of Tucker, CP and LoRA are one set of updates with one number of parameters (but for the
core), so what differs is how they learn. 150 equal steps at one rate on the rated sentences, accuracy on 1,500 test
sentences after a quarter, a half and all of the steps. Writes records/tucker_start.csv; a rerun goes on where it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from measure import append, options, place, read

ASKED = options(__name__, __doc__)

import numpy as np
from minilm import Bench, Setting

import tensoradapt as ta

CSV = place(ASKED, "tucker_start.csv")
FREE, LR, HEAD, SEEDS = ": out : in", 2e-3, 0.06, (0, 1, 2)
SETTING = Setting(4 if ASKED.quick else 150, n_train=4000, n_validation=100, n_test=1500, batch=16)
CORE = {"options": {"zero": "core"}}
ARMS: Mapping[str, Mapping[str, Any]] = {
    "LoRA": {"method": "lora"},
    "CP": {"method": "cp"},
    "Tucker": {"method": "tucker"},
    "Tucker, core at zero": {"method": "tucker", **CORE},
    "Tucker, core at zero, rates x10": {"method": "tucker", **CORE, "rates": {"out": 10, "in": 10}},
}
CELLS = tuple((arm, rank) for rank in (1, 8) for arm in ARMS if (arm, rank) != ("CP", 8))  # which is LoRA's


def main() -> None:
    """Train what is missing, and print the means."""
    for seed in SEEDS[: 1 if ASKED.quick else None]:
        bench = Bench(SETTING, seed)
        for arm, rank in CELLS:
            if (arm, rank, seed) not in done():
                append(CSV, one(bench, arm, rank))
    for arm, rank in CELLS:
        if found := [rows for (name, r, _), rows in done().items() if (name, r) == (arm, rank)]:
            means = {at: float(np.mean([float(row[at]) for row in found])) for at in ("quarter", "half", "accuracy")}
            print(f"{arm:32} r={rank}", {at: round(value, 4) for at, value in means.items()}, f"{len(found)} seeds")


def one(bench: Bench, arm: str, rank: int) -> dict[str, Any]:
    """Train and score one cell."""
    model, steps, found = bench.fresh(), SETTING.steps, dict[int, float]()
    adapter = ta.attach(model, ta.plan(model, layout=FREE, rank=rank, **ARMS[arm]), seed=bench.seed)

    def on_step(step: int, _: float) -> None:
        if step in (steps // 4, steps // 2):
            model.eval()
            found[step] = bench.accuracy(model)
            model.train()

    bench.fit(model, LR, head_lr=HEAD, optimizer="equal_steps", on_step=on_step, progress=False)
    scores = {"quarter": found[steps // 4], "half": found[steps // 2], "accuracy": bench.accuracy(model)}
    row = {"arm": arm, "rank": rank, "seed": bench.seed, "n_params": adapter.n_params}
    return {**row, **{name: round(value, 4) for name, value in scores.items()}}


def done() -> dict[tuple[str, int, int], dict[str, str]]:
    """The rows that are there, by arm, rank and seed."""
    return {(row["arm"], int(row["rank"]), int(row["seed"])): row for row in read(CSV)}


if __name__ == "__main__":
    main()
