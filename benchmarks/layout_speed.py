"""Does whole outputs' layout learn in 200 steps what that with split heads learns in 300, with no more numbers?

    TENSORADAPT_DATA=... python benchmarks/layout_speed.py             # the folder that has glue
    TENSORADAPT_DATA=... python benchmarks/layout_speed.py --part 0/2  # parts run side by side

MiniLM, q k v o, equal steps, three seeds: CP r=64 and tensor-train r=32 over LoRTA's layout against CP r=9 and
tensor-train r=10 over ``layer : out : in``; on the rated sentences at 2e-3, CP on SST-2 and STS-B (Spearman) too, in
bf16, and on CoLA (Matthews correlation) for 800 steps at 1.1e-3 and, but with split heads, 2e-3, beside LoRA r=1.
Writes records/layout_speed.csv; a rerun goes on where it was.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from measure import append, options, part_of, place, read

ASKED = options(__name__, __doc__, part="0/1")

import pandas as pd

from tensoradapt.lab.runs.config import RunConfig
from tensoradapt.lab.runs.execute import execute
from tensoradapt.lab.tasks import DataSpec
from tensoradapt.planning.spec import AdapterSpec
from tensoradapt.training.options import Training

CSV = place(ASKED, "layout_speed.csv")
SPLIT, TIED = "layer proj : head dim : model", "layer : out : in"
SEEDS, HEAD = (0, 1, 2), {"snippets": 0.06, "sst2": 0.01, "stsb": 0.06, "cola": 0.002}
BF16 = ("sst2", "stsb")


class Cell(NamedTuple):
    """What is trained, and for how long."""

    task: str
    method: str
    layout: str
    rank: int
    steps: int
    lr: float


CELLS = [
    Cell("snippets", "cp", SPLIT, 64, 300, 2e-3),
    Cell("snippets", "cp", TIED, 9, 200, 2e-3),
    Cell("snippets", "tensor_train", SPLIT, 32, 300, 2e-3),
    Cell("snippets", "tensor_train", TIED, 10, 200, 2e-3),
    *(Cell(task, "cp", *rest) for task in BF16 for rest in ((SPLIT, 64, 300, 2e-3), (TIED, 9, 200, 2e-3))),
    Cell("cola", "cp", SPLIT, 64, 800, 1.1e-3),
    *(
        Cell("cola", method, layout, rank, 800, lr)
        for lr in (1.1e-3, 2e-3)
        for method, layout, rank in (("cp", TIED, 9), ("lora", "", 1))
    ),
]


def main() -> None:
    """Run a part of what is missing, then print the means."""
    done = {tuple(row.values())[: len(Cell._fields) + 1] for row in read(CSV)}
    missing = [(seed, cell) for seed in SEEDS for cell in CELLS if (*map(str, cell), str(seed)) not in done]
    for seed, cell in part_of(missing, ASKED.part)[: 1 if ASKED.quick else None]:
        append(CSV, one(cell._replace(steps=2) if ASKED.quick else cell, seed))
    if found := read(CSV):
        table = pd.DataFrame(found).astype({"score": float, "n_params": int})
        print(table.groupby([*Cell._fields, "n_params"], sort=False)["score"].agg(["mean", "std", "count"]).round(4))


def one(cell: Cell, seed: int) -> dict[str, Any]:
    """Train and score one run."""
    layout = {"layout": cell.layout} if cell.layout else {"projections": ("q", "k", "v", "o")}
    precision = "bf16" if cell.task in BF16 else "fp32"
    training = Training(cell.lr, cell.steps, head_lr=HEAD[cell.task], optimizer="equal_steps", precision=precision)
    data = DataSpec(n_train=4000, n_validation=100, n_test=1000, batch=16)
    spec = AdapterSpec(cell.method, rank=cell.rank, **layout)
    config = RunConfig("all-minilm-l6-v2", cell.task, training, adapter=spec, data=data, seed=seed)
    result = execute(config, "cpu")["result"]
    score = result["test"][result["metric"]["name"]]
    return {**cell._asdict(), "seed": seed, "n_params": result["n_params"], "score": f"{score:.4f}"}


if __name__ == "__main__":
    main()
