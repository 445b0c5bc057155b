"""The best learning rate of each method and rank, under the matched scale and under the papers' own.

    python benchmarks/best_rate.py            # runs what is missing, writes records/best_rate.csv
    python benchmarks/best_rate.py --figure   # the figure of what is there

All adapt q, k, v, o of all-MiniLM-L6-v2 for 30 steps. Rates are judged by the training loss of the last ten steps,
which is far less noisy than the accuracy of a few hundred examples. Up to five rates, from the smallest up; none above
a rate that is worse than the rate below it. The grid under the matched scale is finer, because there the
question is whether the best rates lie within a factor of 4; under the papers' scales they spread over decades.
"""

import argparse
import itertools
import math
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from minilm import Bench, Setting, append, read

import tensoradapt as ta

HERE = Path(__file__).parent
CSV, FIGURE = HERE / "records" / "best_rate.csv", HERE.parent / "docs" / "figures" / "best_rate.png"
RANKS, SEED = (1, 8, 64), 2000
RATES = {"matched": (1e-3, 3e-3, 1e-2, 3e-2, 1e-1), "paper": (1e-4, 1e-3, 1e-2, 1e-1, 1.0)}
METHODS = {
    "lora": {"published": "lora"},
    "lorta": {"published": "lorta"},
    "tucker": {"parameterization": "tucker"},
    "tensor_train": {"parameterization": "tensor_train"},
    "lotr": {"published": "lotr"},
    "vera": {"published": "vera"},
}
COLUMNS = ("scale", "method", "rank", "lr", "n_params", "status", "loss", "seconds")


def main() -> None:
    bench = Bench(Setting(), SEED)
    for i in range(5):
        for rank, method, scale in itertools.product((8, 1, 64), METHODS, RATES):
            losses = [loss(read(CSV), scale, method, rank, lr) for lr in RATES[scale][: i + 1]]
            if losses[i] is None and not (i > 1 and (None in losses[:i] or losses[i - 1] > losses[i - 2])):
                append(CSV, measured(bench, scale, method, rank, RATES[scale][i]))


def loss(rows: list[dict[str, str]], scale: str, method: str, rank: int, lr: float) -> float | None:
    """The loss of a run, or None if it has not been run."""
    values = [float(r["loss"]) for r in rows if of(r, scale, method, rank) and float(r["lr"]) == lr]
    return values[0] if values else None


def measured(bench: Bench, scale: str, method: str, rank: int, lr: float) -> dict[str, object]:
    begun, model = time.perf_counter(), bench.fresh()
    sites = ta.find_sites(model)
    plan = ta.plan(sites, rank=rank, scale=scale, train=(), **METHODS[method])
    ta.attach(model, plan, seed=SEED)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(parameter.requires_grad or name.startswith("classifier."))
    fitted = bench.fit(model, lr)
    loss = float(np.mean(fitted.losses[-10:])) if fitted.status == "finished" else math.inf
    seconds = round(time.perf_counter() - begun, 1)
    row = (scale, method, rank, lr, plan.n_params, fitted.status, round(loss, 4), seconds)
    print(*row, flush=True)
    return dict(zip(COLUMNS, row, strict=True))


def best(rows: list[dict[str, str]], scale: str, method: str, rank: int) -> float | None:
    """The rate of the least loss: of the parabola through the best point and its neighbours, in log rate. None where no
    rate gained 0.01 on chance, log 2.
    """
    losses = sorted((math.log(float(r["lr"])), float(r["loss"])) for r in rows if of(r, scale, method, rank))
    x, y = np.array(losses).T
    i = int(np.nanargmin(np.where(np.isfinite(y), y, np.nan)))
    if y[i] > math.log(2) - 0.01:
        return None
    if i in (0, len(x) - 1) or not np.isfinite(y[i - 1 : i + 2]).all():
        return math.exp(x[i])
    a, b, _ = np.polyfit(x[i - 1 : i + 2], y[i - 1 : i + 2], 2)
    return math.exp(-b / (2 * a))


def of(row: dict[str, str], scale: str, method: str, rank: int) -> bool:
    return (row["scale"], row["method"], int(row["rank"])) == (scale, method, rank)


def figure() -> None:
    """Loss against rate for each method and rank, and the best rates of each scale in one strip."""
    rows = read(CSV)
    styles = dict(
        zip(METHODS, (("o", "-"), ("s", "--"), ("^", ":"), ("D", "-."), ("v", "-"), ("P", "--")), strict=True)
    )
    grid, axes = plt.subplots(2, 4, figsize=(15, 7), constrained_layout=True)
    for line, scale in zip(axes, RATES, strict=True):
        for ax, rank in zip(line, RANKS, strict=False):
            for method, (marker, dash) in styles.items():
                losses = sorted((float(r["lr"]), float(r["loss"])) for r in rows if of(r, scale, method, rank))
                ax.plot(*zip(*losses, strict=True), marker=marker, linestyle=dash, label=method)
            ax.set(xscale="log", title=f"{scale} scale, r = {rank}", xlabel="learning rate", ylim=(0.45, 0.8))
        line[0].set_ylabel("training loss, steps 21 to 30")
        strip(line[3], rows, scale, styles)
    axes[0][0].legend(frameon=False, fontsize=8)
    grid.savefig(FIGURE, dpi=150)


def strip(ax: plt.Axes, rows: list[dict[str, str]], scale: str, styles: dict[str, tuple[str, str]]) -> None:
    rates = {(m, r): best(rows, scale, m, r) for m in METHODS for r in RANKS}
    for i, (method, (marker, _)) in enumerate(styles.items()):
        for j, rank in enumerate(RANKS):
            if rates[method, rank] is not None:
                ax.plot(rates[method, rank], i + 0.25 * (j - 1), marker=marker, color=f"C{i}", markersize=4 + 2 * j)
    learnt = [lr for lr in rates.values() if lr is not None]
    spread = max(learnt) / min(learnt)
    ax.set(xscale="log", xlim=(3e-4, 2e-1), title=f"best rates: largest / smallest = {spread:.3g}")
    ax.set_xlabel("learning rate (markers: r = 1, 8, 64)")
    ax.set_yticks(range(len(METHODS)), METHODS)
    shown = {f"{m} r={r}": lr and float(f"{lr:.2g}") for (m, r), lr in rates.items()}
    print(scale, f"spread {spread:.3g} of {len(learnt)} that learnt", shown)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--figure", action="store_true")
    figure() if parser.parse_args().figure else main()
