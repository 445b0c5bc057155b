"""Does the layout that the mode spectra of a trained LoRA advise beat its opposite at equal budget?

    python benchmarks/layout_advice.py            # trains, and writes the tables

LoRA r=8 on q, k, v, o of all-MiniLM-L6-v2 is trained for 80 steps (seed 100); `advice` orders its index modes layer and
proj by how few directions carry 90 % of the energy. Advised: tie the more compressible one ("layer : out : in", a
tensor for each projection, or "proj : out : in", a tensor for each layer). The opposite ties the other. CP and
tensor-train at 20,000 parameters, 60 steps, three seeds, differences paired over seeds and test examples. Writes
records/layout_advice.csv and the spectra, docs/examples/plots/spectra.csv.
"""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import torch
from minilm import Bench, Setting

import tensoradapt as ta
from tensoradapt.lab.analysis.plots.spectra import rows
from tensoradapt.lab.analysis.statistics import intervals, spectra
from tensoradapt.lab.sweeps.frontier import rate

HERE = Path(__file__).parent
CSV, SPECTRA = HERE / "records" / "layout_advice.csv", HERE.parent / "docs" / "examples" / "plots" / "spectra.csv"
BUDGETS, SEEDS, FAMILIES = (20_000,), (0, 1, 2), ("cp", "tensor_train")
COLUMNS = ("parameterization", "budget", "layout", "advised", "seed", "n_params", "loss_last", "accuracy")


def main() -> None:
    stack, names = trained_stack()
    found = spectra.spectra(stack, names)
    write_spectra(stack, names)
    order = [one.mode for one in spectra.advice(found, ("layer", "proj"))]
    print("rank for 90 %:", found.rank_for(0.9), "for 99 %:", found.rank_for(0.99), "effective:", found.effective_rank)
    print("advised to tie:", order[0], spectra.advice(found, ("layer", "proj")), flush=True)
    measured, right = [], {}
    for seed in SEEDS:
        bench = Bench(Setting(steps=60, n_test=1000), seed)
        for family in FAMILIES:
            for budget in BUDGETS:
                for mode in order:
                    key = family, budget, mode
                    row, right[(*key, seed)] = one(bench, *key)
                    measured.append((family, budget, f"{mode} : out : in", mode == order[0], seed, *row))
                    print(*measured[-1], flush=True)
    with CSV.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([COLUMNS, *measured])
    for family in FAMILIES:
        for budget in BUDGETS:
            a, b = (np.stack([right[family, budget, mode, seed] for seed in SEEDS]).astype(float) for mode in order)
            print(family, budget, [round(float(x.mean()), 4) for x in (a, b)], intervals.paired_difference(a, b))


def write_spectra(stack: np.ndarray, names: tuple[str, ...]) -> None:
    """Write the singular values of all modes, of which docs/examples/plots/spectra.py draws a figure."""
    rows(stack, names=names).to_csv(SPECTRA, index=False, lineterminator="\n", float_format="%.6g")


def trained_stack() -> tuple[np.ndarray, tuple[str, ...]]:
    """All updates of a trained LoRA, (layer, proj, out, in)."""
    bench = Bench(Setting(steps=80), 100)
    model = bench.fresh()
    plan = ta.plan(model, layout=": out : in", method="lora", rank=8, train=("classifier",))
    adapter = ta.attach(model, plan, seed=100)
    bench.fit(model, rate("lora"))
    layers = sorted({site.coord["layer"] for site in adapter.plan.sites})
    by_place = {(site.coord["layer"], site.coord["proj"]): site for site in adapter.plan.sites}
    with torch.no_grad():
        parts = [[adapter.delta(by_place[n, p]).numpy() for p in "qkvo"] for n in layers]
    return np.asarray(parts, dtype=np.float64), ("layer", "proj", "out", "in")


def one(bench: Bench, family: str, budget: int, mode: str) -> tuple[tuple[Any, ...], np.ndarray]:
    model = bench.fresh()
    layout = f"{mode} : out : in"
    plan = ta.plan(model, layout=layout, method=family, budget=budget, train=("classifier",))
    ta.attach(model, plan, seed=bench.seed)
    fitted = bench.fit(model, rate(family))
    right = bench.correct(model)
    return (plan.n_params, round(float(np.mean(fitted.losses[-10:])), 4), round(float(right.mean()), 4)), right


if __name__ == "__main__":
    main()
