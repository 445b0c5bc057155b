"""A trained LoRA turned into CP, Tucker and tensor-train: its parameters, error and accuracy, before and after
50 more steps.

    python benchmarks/compression.py            # writes records/compression.csv
    python benchmarks/compression.py --figure   # docs/figures/compression.png from it

LoRA r=8 on q, k, v, o of all-MiniLM-L6-v2 is trained for 100 steps, turned into each form at several budgets, scored as
it is, and trained for 50 more steps at a third of the form's own rate. One seed: a trade-off curve, not a comparison of
families. The lines of reference are the LoRA itself, the LoRA after 50 more steps, and the frozen base with its head.
"""

import argparse
import copy
import itertools
import time
from pathlib import Path

import matplotlib.pyplot as plt
from minilm import Bench, Setting, append, read
from torch import nn

import tensoradapt as ta
from tensoradapt.analysis.figures.canvas import RC, frame
from tensoradapt.analysis.figures.styles import line_look, styles_of
from tensoradapt.analysis.names import display
from tensoradapt.sweeps.frontier import rate

HERE = Path(__file__).parent
CSV, FIGURE = HERE / "records" / "compression.csv", HERE.parent / "docs" / "figures" / "compression.png"
FAMILIES, BUDGETS, SEED = ("tucker", "tensor_train", "cp"), (2_000, 6_000, 20_000, 60_000), 0
COLUMNS = ("form", "budget", "n_params", "error", "accuracy", "accuracy_after", "growth", "seconds")


def main() -> None:
    bench = Bench(Setting(steps=100, n_test=1000), SEED)
    model = bench.fresh()
    plan = ta.plan(model, layout=": out : in", method="lora", rank=8, train=("classifier",))
    lora = ta.attach(model, plan, seed=SEED)
    bench.fit(model, rate("lora"))
    head = {k: v.clone() for k, v in model.classifier.state_dict().items()}
    before = copy.deepcopy(lora)  # the LoRA before its 50 more steps
    done = {(row["form"], row["budget"]) for row in read(CSV)}
    if ("lora", "") not in done:
        with ta.disabled(model):
            save("frozen base", "", 0, 1.0, bench.accuracy(model), "", "", "")
        save("lora", "", plan.n_params, 0.0, bench.accuracy(model), more(bench, model, "lora"), "", "")
    for family, budget in itertools.product(FAMILIES, BUDGETS):
        if (family, str(budget)) not in done:
            save(family, budget, *one(bench, before, head, family, budget))


def one(bench: Bench, lora: ta.Adapter, head: dict, family: str, budget: int) -> tuple:
    begun = time.perf_counter()
    result = ta.compress(lora, method=family, budget=budget)
    seconds = time.perf_counter() - begun
    model = bench.fresh()
    model.classifier.load_state_dict(head)
    result.attach(model)
    model.classifier.requires_grad_(True)
    accuracy = bench.accuracy(model)
    growth = "" if result.growth is None else round(result.growth, 2)
    return result.n_params, round(result.error, 4), accuracy, more(bench, model, family), growth, round(seconds, 1)


def more(bench: Bench, model: nn.Module, family: str) -> float:
    """Accuracy after 50 more steps at a third of the family's rate, on batches not seen in this order before."""
    bench.fit(model, rate(family) / 3, steps=50, order=7, head_lr=rate("head") / 3)
    return bench.accuracy(model)


def save(*row: object) -> None:
    append(CSV, dict(zip(COLUMNS, row, strict=True)))
    print(*row, flush=True)


def figure() -> None:
    rows = read(CSV)
    fixed = {row["form"]: row for row in rows if row["form"] in ("frozen base", "lora")}
    plt.rcParams.update({**RC, "figure.constrained_layout.use": True})
    _, axes = plt.subplots(1, 3, figsize=(12, 3.8))
    titles = ("error of the conversion", "accuracy as converted", "accuracy after 50 more steps")
    for ax, column, title in zip(axes, ("error", "accuracy", "accuracy_after"), titles, strict=True):
        for family, style in styles_of(FAMILIES).items():
            own = sorted((int(r["n_params"]), float(r[column])) for r in rows if r["form"] == family)
            ax.plot(*zip(*own, strict=True), label=display(family), **line_look(style))
        frame(ax, "y")
        ax.set(xscale="log", xlabel="parameters", title=title)
        ax.set_xticks(BUDGETS, [f"{n:,}" for n in BUDGETS])
        ax.minorticks_off()
        for name, shade in (("lora", "0.2"), ("frozen base", "0.6")):
            if column != "error" and fixed[name][column]:
                ax.axhline(float(fixed[name][column]), color=shade, linewidth=1)
                ax.annotate(
                    display(name),
                    (0.01, float(fixed[name][column])),
                    xycoords=("axes fraction", "data"),
                    va="bottom",
                    fontsize=8,
                )
    axes[0].set_ylabel("relative Frobenius error")
    axes[1].set_ylabel("test accuracy (1,000 sentences, one seed)")
    axes[1].sharey(axes[2])
    axes[0].legend(frameon=False)
    plt.savefig(FIGURE, dpi=150)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--figure", action="store_true")
    figure() if parser.parse_args().figure else main()
