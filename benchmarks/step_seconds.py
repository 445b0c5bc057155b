"""What a training step of the headline's sizes takes, in one process: seconds for its accuracy against steps.

    python benchmarks/step_seconds.py --threads 1           # writes records/step_seconds.csv
    python benchmarks/step_seconds.py --steps 4 --quick     # a look, no record

MiniLM, rated sentences, q k v o, batches of 16, equal steps and bf16, as docs/results/headline has them. A pass
takes all sizes one after the other, in an order of its own, so that what else the machine does meets each of them. A
row has the median of a size's steps in one pass, with the pass as its seed. The record is of three passes in which
sizes took turns after each step.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from tensoradapt.lab.runs.config import RunConfig
from tensoradapt.lab.runs.execute import execution
from tensoradapt.lab.tasks import DataSpec
from tensoradapt.planning.spec import AdapterSpec
from tensoradapt.training.options import Training

CSV = Path(__file__).parent / "records" / "step_seconds.csv"
PASSES = range(10)
TIED = {"layout": "layer : out : in"}
SIZES: dict[tuple[str, int], dict[str, Any]] = {  # by the names and ranks of tables
    **{("LoRA", rank): {"method": "lora", "projections": ("q", "k", "v", "o")} for rank in (1, 8)},
    ("CP", 12): {"method": "cp", **TIED},
    **{("CP by HiRA's rule", rank): {"method": "cp", "rule": "hira", **TIED} for rank in (6, 12)},
}


def main() -> None:
    """Measure each pass, then print the medians and their ratios to LoRA r=8's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    found = [row for seed in PASSES for row in measured(args.steps, seed)]
    if not args.quick:
        pd.DataFrame(found).to_csv(CSV, index=False)
    table = pd.DataFrame(found).pivot(index="pass", columns=["method", "rank"], values="seconds")[list(SIZES)]
    print(pd.DataFrame({"seconds": table.median(), "over LoRA r=8": table.div(table["LoRA", 8], axis=0).median()}))


def measured(steps: int, seed: int) -> list[dict[str, Any]]:
    """Return a row for each size, with the median seconds of its steps."""
    sizes = random.Random(seed).sample(list(SIZES), len(SIZES))
    runs = {size: execution(config(SIZES[size], size[1], steps, seed), "cpu") for size in sizes}
    return [
        {
            "pass": seed,
            "method": name,
            "rank": rank,
            "n_params": run["result"]["n_params"],
            "threads": run["measurements"]["threads"],
            "seconds": round(run["measurements"]["step_seconds_median"], 5),
        }
        for (name, rank), run in runs.items()
    ]


def config(spec: dict[str, Any], rank: int, steps: int, seed: int) -> RunConfig:
    """Return a short run of the headline's."""
    training = Training(2e-3, steps, head_lr=0.06, optimizer="equal_steps", precision="bf16")
    data = DataSpec(n_validation=16, n_test=16, batch=16)
    return RunConfig(
        "all-minilm-l6-v2", "snippets", training, adapter=AdapterSpec(rank=rank, **spec), data=data, seed=seed
    )


if __name__ == "__main__":
    main()
