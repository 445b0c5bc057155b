"""Compare a large rank that is reduced in training with the small rank from the start: accuracy and cost.

    python benchmarks/rank_adaptation.py    # runs what is missing, prints the table

Adapts q, k, v, o of all-MiniLM-L6-v2 for 80 steps at the tuned rates. "carry", "reset": rank 32, reduced to 8 after
40 steps, with the optimizer's moments in the new bases, or begun anew. "slow", "slow reset": in five falls, to 24,
18, 13, 10 and 8 after 40, 45, 50, 55 and 60 steps. "rank 8", "rank
32": fixed. The loss just before and after a fall is of the next four batches, in eval mode; of several falls the one
with the largest jump is kept.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping

from measure import append, options, place, read, show

ASKED = options(__name__, __doc__)

import numpy as np
import torch
from minilm import Bench, Setting
from torch import Tensor, nn

import tensoradapt as ta
from tensoradapt.lab.analysis.statistics.intervals import t_interval
from tensoradapt.lab.sweeps.frontier import rate
from tensoradapt.lab.tasks.classification import head_of
from tensoradapt.training.reduce_rank import reduce_rank

SEEDS, STEPS, LARGE, SMALL = (3000, 3001, 3002), 2 if ASKED.quick else 80, 32, 8
FAMILIES = ("tensor_train", "cp")
FALLS = {"carry": {40: SMALL}, "slow": {40: 24, 45: 18, 50: 13, 55: 10, 60: SMALL}}
FALLS |= {"reset": FALLS["carry"], "slow reset": FALLS["slow"]}
KINDS = ("rank 8", "carry", "reset", "slow", "slow reset", "rank 32")
COLUMNS = ("family", "kind", "seed", "n_params", "error", "loss_before", "loss_after", "loss", "accuracy", "seconds")


def main() -> None:
    """Run what is missing, and print the table."""
    path, seeds = place(ASKED, "rank_adaptation.csv"), SEEDS[: 1 if ASKED.quick else None]
    rows = read(path)
    done = {(row["family"], row["kind"], int(row["seed"])) for row in rows}
    benches = {seed: Bench(Setting(STEPS, n_test=100 if ASKED.quick else 500), seed) for seed in seeds}
    for family, kind, seed in (key for key in itertools.product(FAMILIES, KINDS, seeds) if key not in done):
        row = one(benches[seed], family, kind, seed)
        rows.append({name: str(value) for name, value in row.items()})
        append(path, row)
    show(table(rows))


def one(bench: Bench, family: str, kind: str, seed: int) -> dict[str, object]:
    """One training."""
    begun, model = time.perf_counter(), bench.fresh()
    rank = SMALL if kind == "rank 8" else LARGE
    ta.attach(model, ta.plan(model, family, rank=rank, train=head_of(model)), seed=seed)
    falls = {max(1, at * STEPS // 80): rank for at, rank in FALLS.get(kind, {}).items()}
    losses, jump = train(bench, model, family, falls, "reset" if "reset" in kind else "carry")
    loss, accuracy = float(np.mean(losses[-10:])), bench.accuracy(model)
    shown = [attached(model).n_params, *(round(x, 5) for x in jump), round(loss, 4), accuracy]
    return dict(zip(COLUMNS, (family, kind, seed, *shown, round(time.perf_counter() - begun, 1)), strict=True))


def attached(model: nn.Module) -> ta.Adapter:
    """The adapter of a model."""
    return next(module for module in model.modules() if isinstance(module, ta.Adapter))


def train(
    bench: Bench, model: nn.Module, family: str, falls: Mapping[int, int], moments: str
) -> tuple[list[float], tuple[float, float, float]]:
    """Losses of a training as ``fit``'s; of the worst fall: the relative error, the loss before and that after."""
    torch.manual_seed(bench.seed)
    heads = head_of(model)
    groups = ta.parameter_groups(model, rate(family), rate("head"), heads)
    optimizer = torch.optim.AdamW(groups, weight_decay=0.0)
    warm = max(1, round(0.1 * STEPS))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda s: (s + 1) / warm if s < warm else (STEPS - s) / max(1, STEPS - warm)
    )
    losses, jumps, batches = [], [], bench.batches(model)
    model.train()
    for step in range(1, STEPS + 1):
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
    """The loss over batches in eval mode."""
    model.eval()
    loss = float(np.mean([float(model(**batch).loss) for batch in batches]))
    model.train()
    return loss


def table(rows: list[dict[str, str]]) -> Iterator[tuple[str, ...]]:
    """Means over seeds with 95 % t-intervals; differences to the small rank are paired over seeds."""
    yield "family", "kind", "params", "accuracy", "minus rank 8", "jump of the loss", "error"
    for family, kind in dict.fromkeys((row["family"], row["kind"]) for row in rows):
        own = {row["seed"]: row for row in rows if (row["family"], row["kind"]) == (family, kind)}
        base = {row["seed"]: row for row in rows if (row["family"], row["kind"]) == (family, "rank 8")}
        gaps = [float(own[s]["accuracy"]) - float(base[s]["accuracy"]) for s in own if s in base]
        jump = np.mean([float(row["loss_after"]) / float(row["loss_before"]) - 1 for row in own.values()])
        error = np.mean([float(row["error"]) for row in own.values()])
        paired = interval(gaps) if gaps and kind != "rank 8" else ""
        accuracy = interval([float(row["accuracy"]) for row in own.values()])
        count = f"{int(next(iter(own.values()))['n_params']):,}"
        fell = ("", "") if np.isnan(jump) else (f"{100 * jump:+.1f} %", f"{error:.2f}")
        yield family, kind, count, accuracy, paired, *fell


def interval(values: list[float]) -> str:
    """A mean over seeds with its interval."""
    if len(values) < 2:
        return f"{values[0]:.3f}"
    mean = t_interval(values)
    return f"{mean.mean:.3f} [{mean.low:.3f}, {mean.high:.3f}]"


if __name__ == "__main__":
    main()
