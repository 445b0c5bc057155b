"""The best learning rate of each method and rank: AdamW at the matched scale, equal steps, and the papers' own scale.

    python benchmarks/best_rate.py --part 0/2    # runs what is missing; parts run side by side
    python benchmarks/best_rate.py --figure      # figure and table of what is there
    python benchmarks/best_rate.py --choice      # whether to choose rates by loss, and what the size says of them

All adapt q, k, v, o of all-MiniLM-L6-v2 on the rated sentences. Rates are in steps of 1.8. For each optimizer, method
and rank the search begins at a guess and goes on until the best rate, by the mean loss on validation, is inside.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import figure_style
import matplotlib as mpl
import numpy as np
import torch
from equal_steps_variants import VARIANTS, variant
from kept import append, read
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from minilm import Bench, Setting

import tensoradapt as ta
from tensoradapt.lab.analysis.names import COLOURS, MARKERS, display, tone
from tensoradapt.lab.analysis.plots import _parts
from tensoradapt.lab.analysis.statistics import t_interval
from tensoradapt.training.fit import autocast

HERE = Path(__file__).parent
RECORD, FIGURE = HERE / "records" / "best_rate.csv", HERE.parent / "docs" / "results" / "figures" / "best_rate.png"
BASE, STEP, MOST = 1e-3, 1.8, 12  # rates are BASE * STEP ** k
SEEDS, RANKS = (2000, 2001), (1, 4, 16, 64)
SPLIT = {"layout": ": out1 out2 : in1 in2", "split": {"out": (16, 24), "in": (16, 24)}}
METHODS: Mapping[str, Mapping[str, Any]] = {
    "lora": {"method": "lora", "paper": True},
    "cp": {"method": "lorta", "paper": True},
    "tucker": {"method": "tucker"},
    "tensor_train": {"method": "tensor_train"},
    "tensor_ring": {"method": "tensor_ring"},
    "lotr": {"method": "lotr", "paper": True},
    "metatt-4d": {"method": "metatt-4d", "paper": True},
    "loha": {"method": "loha", "paper": True},
    "vera": {"method": "vera", "paper": True},
    "kronecker": {"method": "kronecker", **SPLIT},
}
NAMES = {"cp": "CP (LoRTA)"}  # the name of the published row; others are named as in the table
OPTIMIZERS = {"equal": "equal steps", "adamw": "AdamW, matched scale", "paper": "AdamW, papers' scales"}
TICKS = (1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2)
DECADES = (1e-4, 1e-3, 1e-2, 1e-1)
LEFT_OUT = {("tensor_ring", 64): "1.8 million parameters, more than LoRA r=64, and 20 times its arithmetic"}
GUESS = {"equal": 2, "adamw": 3, "paper": 3, **dict.fromkeys(VARIANTS, 2)}
TRIED = (("lora", 16), ("cp", 16), ("tucker", 16), ("tensor_train", 16), ("vera", 64))  # cells of the variants
COLUMNS = ("steps", "optimizer", "method", "rank", "k", "lr", "seed", "n_params", "status", "loss", "validation_loss")
Cell = tuple[int, str, str, int]  # steps, optimizer, method, rank


def cells(steps: int, optimizers: tuple[str, ...]) -> list[Cell]:
    """Those at 300 steps are a third of those at 60."""
    every = [(m, r) for r in (4, 16, 1, 64) for m in METHODS if (m, r) not in LEFT_OUT]
    if steps > 60:
        every = every[::3]
    if set(optimizers) <= VARIANTS.keys():
        every = list(TRIED)
    return [(steps, optimizer, m, r) for m, r in every for optimizer in optimizers]


def search(bench: Bench, cell: Cell, seed: int, precision: str, also: Sequence[int] = ()) -> None:
    """Run the rates of a cell with a seed until the best of them is inside, beginning where another seed has it.

    ``also``: powers of the step that are run first, of rates that all cells are to have.
    """
    others = [min(of, key=lambda k: of[k]) for s in seeds_of(cell) if s != seed and (of := losses(cell, s))]
    todo = [others[0] - 1, others[0], others[0] + 1] if others else [GUESS[cell[1]], GUESS[cell[1]] + 1]
    todo = sorted({*also, *todo})
    while todo:
        for k in todo:
            if k not in losses(cell, seed):
                append(RECORD, measured(bench, cell, k, seed, precision))
        known = losses(cell, seed)
        best = min(known, key=lambda k: (known[k], -k))  # the highest of rates that are too small to matter
        around = (best - 1, best + 1) if learned(known[best]) else (min(known) - 1,)
        todo = [k for k in around if k not in known][: MOST - len(known)]


def learned(loss: float) -> bool:
    """Whether a loss on validation is below chance, log 2."""
    return loss < math.log(2) - 0.01


def seeds_of(cell: Cell) -> list[int]:
    """The seeds that a cell was run with."""
    return sorted({int(row["seed"]) for row in rows_of(cell)})


def losses(cell: Cell, seed: int, what: str = "validation_loss") -> dict[int, float]:
    """Loss on validation, or another column, by rate; of a run in both precisions the later."""
    return {int(row["k"]): float(row[what]) for row in rows_of(cell) if int(row["seed"]) == seed}


def rows_of(cell: Cell) -> list[dict[str, str]]:
    return by_cell(RECORD, RECORD.stat().st_size if RECORD.exists() else 0).get(cell, [])


@lru_cache(maxsize=1)
def by_cell(record: Path, size: int) -> dict[Cell, list[dict[str, str]]]:
    """The rows of a record by cell, read once while it has this size in bytes: rows are only ever appended."""
    found: dict[Cell, list[dict[str, str]]] = {}
    for r in read(record):
        found.setdefault((int(r["steps"]), r["optimizer"], r["method"], int(r["rank"])), []).append(r)
    return found


def measured(bench: Bench, cell: Cell, k: int, seed: int, precision: str) -> dict[str, object]:
    steps, optimizer, method, rank = cell
    begun, model, lr = time.perf_counter(), bench.fresh(), BASE * STEP**k
    scale = "paper" if optimizer == "paper" else "matched"
    sites = ta.find_sites(model, ("q", "k", "v", "o"))
    plan = ta.plan(sites, rank=rank, scale=scale, train=(), **METHODS[method])
    ta.attach(model, plan, seed=seed)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(parameter.requires_grad or name.startswith("classifier."))
    fitted = fit(bench, model, lr, steps, optimizer, precision)
    loss, validation, right = math.inf, math.inf, 0.0
    if fitted.status == "finished":
        loss, (validation, right) = float(np.mean(fitted.losses[-10:])), validated(bench, model, precision)
    row = (steps, optimizer, method, rank, k, f"{lr:.4g}", seed, plan.n_params, fitted.status, round(loss, 4))
    more = (round(validation, 5), round(right, 5), round(time.perf_counter() - begun, 1), precision)
    print(*row, *more, flush=True)
    return dict(zip((*COLUMNS, "accuracy", "seconds", "precision"), (*row, *more), strict=True))


def fit(bench: Bench, model: torch.nn.Module, lr: float, steps: int, optimizer: str, precision: str) -> Any:
    if optimizer in ("adamw", "paper"):
        return bench.fit(model, lr, steps, precision=precision)
    with patch("tensoradapt.training.fit.equal_steps", variant(optimizer)):
        return bench.fit(model, lr, steps, optimizer="equal_steps", precision=precision)


def validated(bench: Bench, model: torch.nn.Module, precision: str) -> tuple[float, float]:
    """Cross-entropy and accuracy on validation."""
    with autocast(precision, "cpu"):
        logits = torch.from_numpy(bench.predictions(model, "validation")).double()
    labels = torch.from_numpy(bench.data.validation.labels)
    loss = float(torch.nn.functional.cross_entropy(logits, labels))
    return (loss if math.isfinite(loss) else math.inf), float((logits.argmax(1) == labels).double().mean())


def best(cell: Cell) -> float | None:
    """The best rate, the geometric mean over the seeds; None where no rate of a seed gained 0.01 on chance, log 2."""
    found = [best_of(losses(cell, seed)) for seed in seeds_of(cell) if seed in SEEDS]
    return None if not found or None in found else float(np.exp(np.mean(np.log(np.array(found, dtype=float)))))


def best_of(loss: Mapping[int, float]) -> float | None:
    """The rate of the least loss: of the parabola through it and its neighbours, in log rate."""
    k = min(loss, key=lambda k: loss[k])
    if not learned(loss[k]):
        return None
    if not {k - 1, k + 1} <= loss.keys() or not math.isfinite(loss[k - 1] + loss[k + 1]):
        return BASE * STEP**k
    a, b, c = loss[k - 1], loss[k], loss[k + 1]
    if a == b == c:  # none of them changed anything
        return None
    return float(BASE * STEP ** (k + (a - c) / (2 * (a - 2 * b + c))))


def shared(every: Sequence[Cell]) -> list[dict[str, Any]]:
    """For each rate: what it loses against each cell's own best, in accuracy and in loss, over cells and seeds."""
    rows: list[dict[str, Any]] = []
    units = [(cell, seed) for cell in every for seed in seeds_of(cell) if seed in SEEDS]
    for k in range(-MOST, MOST):
        lost = [(*lost_at(cell, seed, k), cell) for cell, seed in units if k in losses(cell, seed)]
        if lost:
            accuracy, loss = (float(np.mean([of[i] for of in lost])) for i in (0, 1))
            worst = max(lost, key=lambda of: of[0])
            rows.append({"k": k, "have": len(lost), "of": len(units), "accuracy": accuracy, "loss": loss})
            rows[-1]["worst"] = (worst[0], worst[2])
    return rows


def lost_at(cell: Cell, seed: int, k: int) -> tuple[float, float]:
    """How much accuracy is lower and loss is higher at rate k than at the cell's best, by the loss."""
    loss, right = losses(cell, seed), losses(cell, seed, "accuracy")
    own = min(loss, key=lambda k: loss[k])
    return right[own] - right[k], min(loss[k], 9.0) - loss[own]


def table(steps: int) -> dict[str, Any]:
    """For each optimizer: best rates, their spread, and the best rate for all."""
    found = {}
    for optimizer in GUESS:
        every = [cell for cell in cells(steps, (optimizer,)) if seeds_of(cell)]
        rates = {f"{m} r={r}": rate for _, _, m, r in every if (rate := best((steps, optimizer, m, r)))}
        if not rates:
            continue
        complete = [row for row in shared(every) if row["have"] == row["of"]]
        chosen = min(complete or shared(every), key=lambda row: row["accuracy"])
        found[optimizer] = {"cells": len(every), "rates": rates, "spread": max(rates.values()) / min(rates.values())}
        found[optimizer] |= {"one rate": BASE * STEP ** chosen["k"], **chosen}
    return found


def by_size(steps: int, optimizer: str) -> tuple[float, float]:
    """The power of the number of parameters that best rates follow, by least squares, and how far apart they are
    without it.
    """
    rates = table(steps)[optimizer]["rates"]
    counts = [float(rows_of((steps, optimizer, *_named(cell)))[0]["n_params"]) for cell in rates]
    x, y = np.log(counts), np.log([*rates.values()])
    slope = float(np.polyfit(x, y, 1)[0])
    return slope, float(np.exp(np.ptp(y - slope * x)))


def _named(cell: str) -> tuple[str, int]:
    method, _, rank = cell.partition(" r=")
    return method, int(rank)


def gain_of_loss(steps: int = 60) -> np.ndarray:
    """For each cell how much accuracy a rate gains that is chosen by loss on validation in place of accuracy.

    Each seed chooses once, and the accuracy is that of the other, at rates that both have.
    """
    every = [cell for optimizer in ("equal", "adamw") for cell in cells(steps, (optimizer,))]
    pairs = [(cell, *pair) for cell in every for pair in (SEEDS, SEEDS[::-1]) if set(pair) <= set(seeds_of(cell))]
    gains: dict[Cell, list[float]] = {}
    for cell, chooses, other in pairs:
        loss, right, theirs = losses(cell, chooses), *(losses(cell, s, "accuracy") for s in (chooses, other))
        common = sorted(loss.keys() & theirs.keys())
        by_loss, by_accuracy = min(common, key=lambda k: loss[k]), max(common, key=lambda k: right[k])
        gains.setdefault(cell, []).append(theirs[by_loss] - theirs[by_accuracy])
    return np.array([np.mean(of) for of in gains.values()])


def figure(steps: int) -> None:
    """The best rates of each optimizer in a panel, and what one rate for all loses."""
    found = {optimizer: row for optimizer, row in table(steps).items() if optimizer not in VARIANTS}
    rates = [rate for row in found.values() for rate in row["rates"].values()]
    with mpl.rc_context(figure_style.RC):
        whole = Figure(figsize=(3 * len(found) + 3, 3.9), layout="constrained")
        axes = whole.subplots(1, len(found) + 1)
        for ax, (optimizer, row) in zip(axes, found.items(), strict=False):
            ax.set(xscale="log", xlim=(min(rates) / 1.5, max(rates) * 1.5), xlabel="best learning rate")
            ax.set_title(f"{OPTIMIZERS[optimizer]}: {float(format(row['spread'], '.2g')):g} apart")
            _rates(ax, row["rates"], names=ax is axes[0])
        axes[0].legend(title="rank", fontsize="small", title_fontsize="small", loc="best", handletextpad=0)
        _shared(axes[-1], steps, list(found))
        figure_style.write(whole, FIGURE)


def _rates(ax: Axes, rates: Mapping[str, float], names: bool) -> None:
    """Draw a row for each method, LoRA's on top, with a mark for each rank, the largest darkest."""
    shades = [tone(0.35, COLOURS[0]), tone(0.7, COLOURS[0]), COLOURS[0], tone(0.45, COLOURS[0], ink=True)]
    for j, rank in enumerate(RANKS):
        own = {i: rates[key] for i, method in enumerate(METHODS) if (key := f"{method} r={rank}") in rates}
        rows = [i + 0.2 * (j - 1.5) for i in own]
        if own:
            ax.plot([*own.values()], rows, MARKERS[j], color=shades[j], ms=5.5, label=f"{rank}")
    labels = [NAMES.get(method, display(method)) for method in METHODS]
    ax.set_yticks(range(len(METHODS)), labels if names else [""] * len(METHODS))
    ax.set_ylim(len(METHODS) - 0.4, -0.6)
    _rate_axis(ax)


def _rate_axis(ax: Axes) -> None:
    """Write few rates at x, with their grid."""
    low, high = ax.get_xlim()
    ax.set_xticks([tick for tick in (TICKS if high < 100 * low else DECADES) if low < tick < high])
    ax.minorticks_off()
    ax.xaxis.set_major_formatter("{x:g}")
    ax.grid(axis="x")


def _shared(ax: Axes, steps: int, optimizers: Sequence[str]) -> None:
    """Draw what one rate for all loses, over rates that nearly all cells have."""
    for j, optimizer in enumerate(optimizers):
        every = [cell for cell in cells(steps, (optimizer,)) if seeds_of(cell)]
        rows = [row for row in shared(every) if row["have"] >= 0.9 * row["of"]]
        rates, lost = [BASE * STEP ** r["k"] for r in rows], [r["accuracy"] for r in rows]
        ax.plot(rates, lost, f"{MARKERS[j]}-", color=COLOURS[j + 1], ms=5.5, label=OPTIMIZERS[optimizer])
    ax.axhline(0.01, color=tone(_parts.GREY), lw=0.9, ls=(0, (4, 2)))
    ax.set(xscale="log", xlim=(TICKS[1], TICKS[4]), title="one rate for all", xlabel="learning rate")
    ax.set_ylabel("mean accuracy lost against\neach cell's own best")
    _rate_axis(ax)
    ax.grid()
    ax.legend(fontsize="small")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", default="0/1", help="which part of the cells, such as 0/2")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--optimizers", nargs="+", default=["equal", "adamw", "paper"])
    parser.add_argument("--record", type=Path, default=RECORD)
    parser.add_argument(
        "--precision", default="fp32", help="bf16 takes a third of the time where there is hardware for it"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--also", type=int, nargs="+", default=(), metavar="K", help="rates 1e-3 * 1.8^K of every cell")
    parser.add_argument("--table", action="store_true")
    parser.add_argument(
        "--choice", action="store_true", help="whether to choose a rate by loss, and what size says of it"
    )
    parser.add_argument("--figure", action="store_true")
    args = parser.parse_args()
    globals().update(RECORD=args.record, SEEDS=tuple(args.seeds))
    if args.choice:
        print("gain of a choice by loss:", t_interval(gain_of_loss(args.steps)))
        print(
            *(
                f"{o}: power of size {p:.2f}, {a:.2g} apart without"
                for o in OPTIMIZERS
                for p, a in [by_size(args.steps, o)]
            )
        )
        return
    if args.figure:
        figure(args.steps)
    if args.table or args.figure:
        for optimizer, row in table(args.steps).items():
            print(optimizer, row)
        return
    part, of = map(int, args.part.split("/"))
    for seed in args.seeds:
        bench = Bench(Setting(args.steps, 2000 if args.steps <= 60 else 4000, 600, 64, 16), seed)
        for optimizers in ([o for o in args.optimizers if o != "paper"], [o for o in args.optimizers if o == "paper"]):
            for cell in cells(args.steps, tuple(optimizers))[part::of]:
                search(bench, cell, seed, args.precision, args.also)


if __name__ == "__main__":
    main()
