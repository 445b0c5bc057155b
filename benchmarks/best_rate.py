"""The best learning rate of each method and rank: AdamW at the matched scale, equal steps, and the papers' own scale.

    python benchmarks/best_rate.py --part 0/2    # runs what is missing; parts run side by side
    python benchmarks/best_rate.py --table       # table of what is there; --figure: and the figure

All adapt q, k, v, o of all-MiniLM-L6-v2 on the rated sentences. Rates are in steps of 1.8. For each optimizer, method
and rank the search begins at a guess and goes on until the best rate, by the mean loss on validation, is inside.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

from measure import RECORDS, append, options, part_of, place, read

TABLE = {"action": "store_true", "help": "print the table of what is there"}
ASKED = options(__name__, __doc__, part="0/1", steps=60, precision="fp32", table=TABLE, figure=False)

import figure_style
import numpy as np
import torch
from matplotlib.axes import Axes
from minilm import Bench, Setting

import tensoradapt as ta
from tensoradapt.lab.analysis.names import COLOURS, MARKERS, display, tone
from tensoradapt.lab.analysis.plots import _parts
from tensoradapt.training.fit import autocast

RECORD = RECORDS / "best_rate.csv" if ASKED.table or ASKED.figure else place(ASKED, "best_rate.csv")
FIGURE = figure_style.DOCS / "results" / "figures" / "best_rate.png"
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
GUESS = {"equal": 2, "adamw": 3, "paper": 3}
COLUMNS = ("steps", "optimizer", "method", "rank", "k", "lr", "seed", "n_params", "status", "loss", "validation_loss")
Cell = tuple[int, str, str, int]  # steps, optimizer, method, rank


ROWS: dict[Cell, list[dict[str, str]]] = {}  # of the record, by cell
for _row in read(RECORD):
    ROWS.setdefault((int(_row["steps"]), _row["optimizer"], _row["method"], int(_row["rank"])), []).append(_row)


def cells(steps: int, optimizers: tuple[str, ...]) -> list[Cell]:
    """Those at 300 steps are a third of those at 60."""
    every = [(m, r) for r in (4, 16, 1, 64) for m in METHODS if (m, r) not in LEFT_OUT]
    if steps > 60:
        every = every[::3]
    return [(steps, optimizer, m, r) for m, r in every for optimizer in optimizers]


def search(bench: Bench, cell: Cell, seed: int) -> None:
    """Run the rates of a cell with a seed until the best of them is inside, beginning where another seed has it."""
    others = [min(of, key=lambda k: of[k]) for s in seeds_of(cell) if s != seed and (of := losses(cell, s))]
    todo = [others[0] - 1, others[0], others[0] + 1] if others else [GUESS[cell[1]], GUESS[cell[1]] + 1]
    while todo:
        for k in todo:
            if k not in losses(cell, seed):
                row = measured(bench, cell, k, seed)
                append(RECORD, row)
                ROWS.setdefault(cell, []).append({name: str(value) for name, value in row.items()})
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
    """The rows of a cell."""
    return ROWS.get(cell, [])


def measured(bench: Bench, cell: Cell, k: int, seed: int) -> dict[str, object]:
    """Train one run; returns its row."""
    steps, optimizer, method, rank = cell
    begun, model, lr = time.perf_counter(), bench.fresh(), BASE * STEP**k
    scale = "paper" if optimizer == "paper" else "matched"
    sites = ta.find_sites(model, ("q", "k", "v", "o"))
    plan = ta.plan(sites, rank=rank, scale=scale, train=(), **METHODS[method])
    ta.attach(model, plan, seed=seed)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(parameter.requires_grad or name.startswith("classifier."))
    fitted = bench.fit(
        model, lr, steps, optimizer="equal_steps" if optimizer == "equal" else "adamw", precision=ASKED.precision
    )
    loss, validation, right = math.inf, math.inf, 0.0
    if fitted.status == "finished":
        loss, (validation, right) = float(np.mean(fitted.losses[-10:])), validated(bench, model)
    row = (steps, optimizer, method, rank, k, f"{lr:.4g}", seed, plan.n_params, fitted.status, round(loss, 4))
    more = (round(validation, 5), round(right, 5), round(time.perf_counter() - begun, 1), ASKED.precision)
    return dict(zip((*COLUMNS, "accuracy", "seconds", "precision"), (*row, *more), strict=True))


def validated(bench: Bench, model: torch.nn.Module) -> tuple[float, float]:
    """Cross-entropy and accuracy on validation."""
    with autocast(ASKED.precision, "cpu"):
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


def figure(steps: int) -> None:
    """The best rates of each optimizer in a panel, and what one rate for all loses."""
    found = table(steps)
    rates = [rate for row in found.values() for rate in row["rates"].values()]
    with figure_style.drawn(FIGURE, (3 * len(found) + 3, 3.9)) as whole:
        axes = figure_style.panels(whole, len(found) + 1)
        for ax, (optimizer, row) in zip(axes, found.items(), strict=False):
            ax.set(xscale="log", xlim=(min(rates) / 1.5, max(rates) * 1.5), xlabel="best learning rate")
            ax.set_title(f"{OPTIMIZERS[optimizer]}: {float(format(row['spread'], '.2g')):g} apart")
            _rates(ax, row["rates"], names=ax is axes[0] or axes[0].get_subplotspec().get_gridspec().nrows > 1)
        axes[0].legend(title="rank", fontsize="small", title_fontsize="small", loc="best", handletextpad=0)
        _shared(axes[-1], steps, list(found))


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
    """Run what is missing, or print and draw what is there."""
    if ASKED.figure:
        figure(ASKED.steps)
    if ASKED.table or ASKED.figure:
        for optimizer, row in table(ASKED.steps).items():
            print(optimizer, row)
        return
    steps, few = (2, 1) if ASKED.quick else (ASKED.steps, None)
    for seed in SEEDS[:few]:
        bench = Bench(Setting(steps, 2000 if steps <= 60 else 4000, 600, 64, 16), seed)
        for optimizers in (("equal", "adamw"), ("paper",)):
            for cell in part_of(cells(steps, optimizers), ASKED.part)[:few]:
                search(bench, cell, seed)


if __name__ == "__main__":
    main()
