"""Does the layout that the mode spectra of a trained LoRA advise beat its opposite at equal budget?

    python benchmarks/layout_advice.py

LoRA r=8 on q, k, v, o of all-MiniLM-L6-v2 is trained for 80 steps (seed 100); `advice` orders its index modes layer and
proj by how few directions carry 90 % of the energy. Advised: tie the more compressible one ("layer : out : in", a
tensor for each projection, or "proj : out : in", a tensor for each layer). The opposite ties the other. CP and
tensor-train at 20,000 parameters, 60 steps, three seeds, differences paired over seeds and test examples. Writes
records/layout_advice.csv and the spectra, docs/results/figures/spectra.csv.
"""

from __future__ import annotations

import itertools
from typing import Any

from measure import append, begin, options, place

ASKED = options(__name__, __doc__)

import figure_style
import numpy as np
import torch
from minilm import Bench, Setting

import tensoradapt as ta
from tensoradapt.lab.analysis.plots.spectra import rows
from tensoradapt.lab.analysis.statistics import intervals, spectra
from tensoradapt.lab.sweeps.frontier import rate

SPECTRA = figure_style.DOCS / "results" / "figures" / "spectra.csv"
BUDGET, FAMILIES = 20_000, ("cp", "tensor_train")
SEEDS = (0,) if ASKED.quick else (0, 1, 2)


def main() -> None:
    """Train the LoRA, ask for advice, and train both layouts."""
    stack, names = trained_stack()
    found = spectra.spectra(stack, names)
    path = begin(place(ASKED, "layout_advice.csv"))
    if path:  # spectra in docs/examples/plots.py draws a figure of the singular values
        rows(stack, names=names).to_csv(SPECTRA, index=False, lineterminator="\n", float_format="%.6g")
    advised, opposite = (one.mode for one in spectra.advice(found, ("layer", "proj")))
    print("rank for 90 %:", found.rank_for(0.9), "advised to tie:", advised, flush=True)
    right: dict[tuple[str, str], list[np.ndarray]] = {}
    for seed, family, mode in itertools.product(SEEDS, FAMILIES, (advised, opposite)):
        bench = Bench(Setting(2 if ASKED.quick else 60, n_test=50 if ASKED.quick else 1000), seed)
        row, hits = one(bench, family, f"{mode} : out : in")
        right.setdefault((family, mode), []).append(hits)
        append(path, {"advised": mode == advised, "seed": seed, **row})
    for family in FAMILIES:
        a, b = (np.stack(right[family, mode]).astype(float) for mode in (advised, opposite))
        print(family, [round(float(x.mean()), 4) for x in (a, b)], intervals.paired_difference(a, b))


def trained_stack() -> tuple[np.ndarray, tuple[str, ...]]:
    """All updates of a trained LoRA, (layer, proj, out, in)."""
    bench = Bench(Setting(2 if ASKED.quick else 80), 100)
    model = bench.fresh()
    plan = ta.plan(model, layout=": out : in", method="lora", rank=8, train=("classifier",))
    adapter = ta.attach(model, plan, seed=100)
    bench.fit(model, rate("lora"))
    layers = sorted({site.coord["layer"] for site in adapter.plan.sites})
    by_place = {(site.coord["layer"], site.coord["proj"]): site for site in adapter.plan.sites}
    with torch.no_grad():
        parts = [[adapter.delta(by_place[n, p]).numpy() for p in "qkvo"] for n in layers]
    return np.asarray(parts, dtype=np.float64), ("layer", "proj", "out", "in")


def one(bench: Bench, family: str, layout: str) -> tuple[dict[str, Any], np.ndarray]:
    """Train over a layout; returns the row, and which test examples are right."""
    model = bench.fresh()
    plan = ta.plan(model, layout=layout, method=family, budget=BUDGET, train=("classifier",))
    ta.attach(model, plan, seed=bench.seed)
    losses, right = bench.fit(model, rate(family)).losses, bench.correct(model)
    row = {"parameterization": family, "budget": BUDGET, "layout": layout, "n_params": plan.n_params}
    return {**row, "loss_last": f"{np.mean(losses[-10:]):.4f}", "accuracy": f"{right.mean():.4f}"}, right


if __name__ == "__main__":
    main()
