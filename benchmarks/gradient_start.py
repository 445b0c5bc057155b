"""Start from the first gradients against a random start at equal budget: CP, Tucker and tensor-train at two ranks.

    python benchmarks/gradient_start.py

Head and gradient come first: the head is trained alone for 30 steps, then the gradient of four batches is taken at that
head, and both starts go on from there with the same data order and rate. Three seeds, differences paired over seeds and
test examples. Writes records/gradient_start.csv and prints the paired differences.
"""

import csv
import time
from pathlib import Path

import numpy as np
from minilm import Bench, Setting

import tensoradapt as ta
from tensoradapt.analysis import statistics
from tensoradapt.sweep.spec import rate

CSV = Path(__file__).parent / "records" / "gradient_start.csv"
FAMILIES, RANKS, SEEDS, STARTS = ("cp", "tucker", "tensor_train"), (4, 16), (0, 1, 2), ("zero", "gradient")
COLUMNS = (
    "parameterization",
    "rank",
    "seed",
    "start",
    "n_params",
    "lr",
    "loss_first",
    "loss_last",
    "accuracy",
    "seconds",
)


def main() -> None:
    rows, right = [], {}
    for seed in SEEDS:
        bench = Bench(Setting(steps=40, n_test=800), seed)
        head = warm_head(bench)
        for rank in RANKS:
            for family in FAMILIES:
                for start in STARTS:
                    row, right[family, rank, seed, start] = one(bench, head, family, rank, start)
                    print(*row, flush=True)
                    rows.append(row)
    with CSV.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([COLUMNS, *rows])
    for family in FAMILIES:
        for rank in RANKS:
            both = [np.stack([right[family, rank, seed, start] for seed in SEEDS]) for start in STARTS]
            print(family, rank, [round(float(part.mean()), 4) for part in both], paired(both[1], both[0]))


def warm_head(bench: Bench) -> dict:
    """The head after 30 steps alone."""
    model = bench.fresh()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith("classifier."))
    bench.fit(model, rate("head"), steps=30, order=9)
    return {name: value.clone() for name, value in model.classifier.state_dict().items()}


def one(bench: Bench, head: dict, family: str, rank: int, start: str) -> tuple[tuple, np.ndarray]:
    begun, model = time.perf_counter(), bench.fresh()
    model.classifier.load_state_dict(head)
    plan = ta.plan(model, parameterization=family, rank=rank, start=start, train=("classifier",))
    batches = [batch for batch, _ in zip(bench.batches(order=5), range(4), strict=False)]
    ta.attach(model, plan, seed=bench.seed, batches=batches if start == "gradient" else None)
    fitted = bench.fit(model, rate(family))
    right = bench.correct(model)
    losses = [round(float(np.mean(part)), 4) for part in (fitted.losses[:10], fitted.losses[-10:])]
    shown = (family, rank, bench.seed, start, plan.n_params, rate(family), *losses, round(float(right.mean()), 4))
    return (*shown, round(time.perf_counter() - begun, 1)), right


def paired(a: np.ndarray, b: np.ndarray) -> str:  # (seeds, examples)
    """The mean difference and its 95 % interval over seeds and examples."""
    found = statistics.paired_difference(a.astype(float), b.astype(float))
    return str(found)


if __name__ == "__main__":
    main()
