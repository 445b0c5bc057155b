"""Compare a large rank that is reduced in training with the small rank from the start: accuracy and cost.

    python benchmarks/rank_adaptation.py           # runs what is missing, prints the table
    python benchmarks/rank_adaptation.py --quick   # two steps of each kind, nothing written to records/

Adapts q, k, v, o of all-MiniLM-L6-v2 for 80 steps at the tuned rates. "carry", "reset": rank 32, reduced to 8 after
40 steps, with the optimizer's moments in the new bases, or begun anew. "slow", "slow reset": in five falls, to 24,
18, 13, 10 and 8 after 40, 45, 50, 55 and 60 steps; "slower": in ten, two steps apart. "root": as carry, in bases that
share the singular values equally between neighbours, where ``reduce_rank`` keeps the factors' sizes. "rank 8", "rank
32": fixed. The loss just before and after a fall is of the next four batches, in eval mode; of several falls the one
with the largest jump is kept.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from kept import append, read
from minilm import Bench, Setting
from torch import Tensor, nn

import tensoradapt as ta
from tensoradapt.lab.analysis.statistics.intervals import t_interval
from tensoradapt.lab.sweeps.frontier import rate
from tensoradapt.lab.tasks.classification import head_of
from tensoradapt.training import rounding
from tensoradapt.training.reduce_rank import reduce_rank

CSV = Path(__file__).parent / "records" / "rank_adaptation.csv"
SEEDS, STEPS, LARGE, SMALL = (3000, 3001, 3002), 80, 32, 8
FAMILIES = ("tensor_train", "cp")
FALLS = {"carry": {40: SMALL}, "slow": {40: 24, 45: 18, 50: 13, 55: 10, 60: SMALL}}
FALLS["slower"] = dict(zip(range(40, 60, 2), (28, 25, 22, 19, 17, 15, 13, 11, 9, SMALL), strict=True))
FALLS |= {"reset": FALLS["carry"], "root": FALLS["carry"], "slow reset": FALLS["slow"]}
KINDS = ("rank 8", "carry", "reset", "slow", "slow reset", "rank 32", "slower", "root")
N_KINDS = {"tensor_train": 8, "cp": 6}  # the first six answer the question
COLUMNS = ("family", "kind", "seed", "n_params", "error", "loss_before", "loss_after", "loss", "accuracy", "seconds")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="two steps of each kind, nothing written")
    parser.add_argument("--families", nargs="+", default=FAMILIES, choices=FAMILIES)
    args = parser.parse_args()
    steps = 2 if args.quick else STEPS
    seeds = SEEDS[:1] if args.quick else SEEDS
    rows = [] if args.quick else read(CSV)
    done = {(row["family"], row["kind"], int(row["seed"])) for row in rows}
    benches = {seed: Bench(Setting(steps=steps, n_test=100 if args.quick else 500), seed) for seed in seeds}
    todo = [(f, k, s) for f in args.families for k in KINDS[: N_KINDS[f]] for s in seeds]
    for family, kind, seed in (key for key in todo if key not in done):
        row = one(benches[seed], family, kind, seed, steps)
        rows.append({name: str(value) for name, value in row.items()})
        if not args.quick:
            append(CSV, row)
    table(rows)


def one(bench: Bench, family: str, kind: str, seed: int, steps: int) -> dict[str, object]:
    """One training."""
    begun, model = time.perf_counter(), bench.fresh()
    rank = SMALL if kind == "rank 8" else LARGE
    ta.attach(model, ta.plan(model, family, rank=rank, train=head_of(model)), seed=seed)
    falls = {at * steps // STEPS: rank for at, rank in FALLS.get(kind, {}).items()}
    with equal_roots(kind == "root"):
        losses, jump = train(bench, model, family, steps, falls, "reset" if "reset" in kind else "carry")
    loss, accuracy = float(np.mean(losses[-10:])), bench.accuracy(model)
    shown = [attached(model).n_params, *(round(x, 5) for x in jump), round(loss, 4), accuracy]
    row = dict(zip(COLUMNS, (family, kind, seed, *shown, round(time.perf_counter() - begun, 1)), strict=True))
    print(*row.values(), flush=True)
    return row


def attached(model: nn.Module) -> ta.Adapter:
    return next(module for module in model.modules() if isinstance(module, ta.Adapter))


def train(
    bench: Bench, model: nn.Module, family: str, steps: int, falls: Mapping[int, int], moments: str
) -> tuple[list[float], tuple[float, float, float]]:
    """Losses of a training as ``fit``'s; of the worst fall: the relative error, the loss before and that after."""
    torch.manual_seed(bench.seed)
    heads = head_of(model)
    groups = ta.parameter_groups(model, rate(family), rate("head"), heads)
    optimizer = torch.optim.AdamW(groups, weight_decay=0.0)
    warm = max(1, round(0.1 * steps))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda s: (s + 1) / warm if s < warm else (steps - s) / max(1, steps - warm)
    )
    losses, jumps, batches = [], [], bench.batches(model)
    model.train()
    for step in range(1, steps + 1):
        value = model(**next(batches)).loss
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], 1.0)
        optimizer.step()
        schedule.step()
        losses.append(float(value.detach()))
        if step in falls:
            following = list(itertools.islice(bench.batches(model), step, step + 4))
            before = mean_loss(model, following)
            report = reduce_rank(model, optimizer, rank=falls[step], moments=moments)
            jumps.append((max(one.error for one in report.tensors), before, mean_loss(model, following)))
    model.eval()
    return losses, max(jumps, key=lambda one: one[2] / one[1], default=(np.nan,) * 3)


@torch.no_grad()
def mean_loss(model: nn.Module, batches: list[Mapping[str, Tensor]]) -> float:
    model.eval()
    loss = float(np.mean([float(model(**batch).loss) for batch in batches]))
    model.train()
    return loss


@contextmanager
def equal_roots(on: bool) -> Iterator[None]:
    """Within it bonds have bases in which both sides' singular values are the roots of the tensor's."""
    kept = rounding.frames

    def frames(left: Tensor, right: Tensor, k: int) -> tuple[Tensor, Tensor]:
        left, right = rounding.regular(left), rounding.regular(right)
        u, s, vt = torch.linalg.svd(left @ right.mT, full_matrices=False)
        root = s[..., None, :k].sqrt()
        return right.mT @ vt.mT[..., :k] / root, left.mT @ u[..., :k] / root

    try:
        rounding.frames = frames if on else kept
        yield
    finally:
        rounding.frames = kept


def table(rows: list[dict[str, str]]) -> None:
    """Means over seeds with 95 % t-intervals; differences to the small rank are paired over seeds."""
    print("\nfamily        kind        params  accuracy               minus rank 8            jump of the loss  error")
    for family, kind in dict.fromkeys((row["family"], row["kind"]) for row in rows):
        own = {row["seed"]: row for row in rows if (row["family"], row["kind"]) == (family, kind)}
        base = {row["seed"]: row for row in rows if (row["family"], row["kind"]) == (family, "rank 8")}
        paired = [float(own[s]["accuracy"]) - float(base[s]["accuracy"]) for s in own if s in base]
        jumps = [float(row["loss_after"]) / float(row["loss_before"]) - 1 for row in own.values()]
        cells = [interval([float(row["accuracy"]) for row in own.values()])]
        cells.append(interval(paired) if paired and kind != "rank 8" else "")
        cells.append(f"{100 * np.mean(jumps):+.1f} %" if np.isfinite(jumps).all() else "")
        errors = [float(row["error"]) for row in own.values()]
        cells.append(f"{np.mean(errors):.2f}" if np.isfinite(errors).all() else "")
        n_params = int(next(iter(own.values()))["n_params"])
        print(f"{family:12}  {kind:10}  {n_params:6,}  {cells[0]:21}  {cells[1]:22}  {cells[2]:16}  {cells[3]}")


def interval(values: list[float]) -> str:
    mean = t_interval(values)
    return f"{mean.mean:.3f} [{mean.low:.3f}, {mean.high:.3f}]"


if __name__ == "__main__":
    main()
