"""Start from the first gradients against a random start at equal budget: CP, Tucker and tensor-train at two ranks.

    python benchmarks/gradient_start.py

Head and gradient come first: the head is trained alone for 30 steps, the gradient of four batches is taken at that
head, and both starts go on from there with the same data order. Each start's rate is the one of three with the least
loss over the last ten steps (no sentence is seen twice), the mean of two other seeds, at the smaller rank; then
three other seeds, differences paired over seeds and test examples. Writes records/gradient_start.csv; a rerun goes on
where it was.
"""

import csv
import time
from pathlib import Path
from typing import Any

import numpy as np
from minilm import Bench, Setting
from torch import Tensor

import tensoradapt as ta
from tensoradapt.lab.analysis.statistics import intervals
from tensoradapt.lab.sweeps.frontier import rate

HERE = Path(__file__).parent
CSV, RIGHT = HERE / "records" / "gradient_start.csv", HERE / "runs" / "gradient_start"
FAMILIES, RANKS, STARTS, RATES = (
    ("cp", "tucker", "tensor_train"),
    (4, 16),
    ("zero", "gradient"),
    (1e-3, 3e-3, 9e-3),
)
TUNING, SEEDS, SETTING = (1000, 1001), (0, 1, 2), Setting(steps=30, n_test=800)
COLUMNS = (
    "seed",
    "parameterization",
    "rank",
    "start",
    "lr",
    "n_params",
    "loss_first",
    "loss_last",
    "test",
)


def main() -> None:
    tune = [Case(seed) for seed in TUNING]
    cells = [(family, rank, start) for rank in RANKS for family in FAMILIES for start in STARTS]
    losses = {
        (family, start): {lr: sum(case.run(family, RANKS[0], start, lr)[0] for case in tune) for lr in RATES}
        for family in FAMILIES
        for start in STARTS
    }
    chosen = {cell: min(of, key=of.__getitem__) for cell, of in losses.items()}
    print("rates", chosen, flush=True)
    cases = [Case(seed) for seed in SEEDS]
    runs = {cell: [case.run(*cell, chosen[cell[0], cell[2]])[1] for case in cases] for cell in cells}
    right = {cell: np.stack(parts).astype(float) for cell, parts in runs.items()}
    for family, rank in ((family, rank) for family in FAMILIES for rank in RANKS):
        random, gradient = (right[family, rank, start] for start in STARTS)
        means = [round(float(x.mean()), 4) for x in (random, gradient)]
        print(family, rank, "random, gradient", means, intervals.paired_difference(gradient, random))


class Case:
    """One seed, whose head is trained once."""

    def __init__(self, seed: int) -> None:
        self.bench = Bench(SETTING, seed)
        self.head: dict[str, Tensor] | None = None

    def run(self, family: str, rank: int, start: str, lr: float) -> tuple[float, np.ndarray]:
        """The loss of the last ten steps, and which test examples are right; stored on disk."""
        path = RIGHT / f"{self.bench.seed}-{family}-{rank}-{start}-{lr:g}.npz"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            row, loss, right = self.one(family, rank, start, lr)
            append(row)
            np.savez(path, loss=loss, right=right)
        with np.load(path) as kept:
            return float(kept["loss"]), kept["right"]

    def one(self, family: str, rank: int, start: str, lr: float) -> tuple[tuple[Any, ...], float, np.ndarray]:
        begun, bench = time.perf_counter(), self.bench
        model = bench.fresh()
        model.get_submodule("classifier").load_state_dict(self.warm_head())
        plan = ta.plan(model, method=family, rank=rank, start=start, train=("classifier",))
        batches = [batch for batch, _ in zip(bench.batches(model, order=5), range(4), strict=False)]
        ta.attach(model, plan, seed=bench.seed, batches=batches if start == "gradient" else None)
        fitted = bench.fit(model, lr)
        right = bench.correct(model)
        losses = [round(float(np.mean(part)), 4) for part in (fitted.losses[:10], fitted.losses[-10:])]
        shown = (bench.seed, family, rank, start, lr, plan.n_params, *losses)
        print(*shown, right.mean(), f"{time.perf_counter() - begun:.0f} s", flush=True)
        return (*shown, round(float(right.mean()), 4)), losses[-1], right

    def warm_head(self) -> dict[str, Tensor]:
        """The head, trained alone for 30 steps."""
        if self.head is None:
            model = self.bench.fresh()
            for name, parameter in model.named_parameters():
                parameter.requires_grad_(name.startswith("classifier."))
            self.bench.fit(model, rate("head"), order=9)
            self.head = {name: value.clone() for name, value in model.get_submodule("classifier").state_dict().items()}
        return self.head


def append(row: tuple[Any, ...]) -> None:
    new = not CSV.exists()
    with CSV.open("a", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([*([COLUMNS] if new else []), row])


if __name__ == "__main__":
    main()
