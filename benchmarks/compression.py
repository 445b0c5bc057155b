"""A trained LoRA turned into CP, Tucker and tensor-train: its parameters, error and accuracy, before and after
50 more steps.

    python benchmarks/compression.py            # writes records/compression.csv
    python benchmarks/compression.py --figure   # docs/guides/figures/compression.png from it

LoRA r=8 on q, k, v, o of all-MiniLM-L6-v2 is trained for 100 steps, turned into each form at several budgets, scored as
it is, and trained for 50 more steps at a third of the form's own rate. One seed: a trade-off curve, not a comparison of
families. The lines of reference are the LoRA itself, the LoRA after 50 more steps, and the frozen base with its head.
"""

from __future__ import annotations

import copy
import itertools
import time
from typing import Any

from measure import RECORDS, append, options, place, read

ASKED = options(__name__, __doc__, figure=False)

import figure_style
from matplotlib.axes import Axes
from minilm import Bench, Setting
from torch import Tensor, nn

import tensoradapt as ta
from tensoradapt.lab.analysis.names import display, looks, tone
from tensoradapt.lab.analysis.plots import _parts
from tensoradapt.lab.sweeps.frontier import rate

CSV, FIGURE = place(ASKED, "compression.csv"), figure_style.DOCS / "guides" / "figures" / "compression.png"
STEPS, MORE = (4, 2) if ASKED.quick else (100, 50)
FAMILIES, BUDGETS, SEED = ("tucker", "tensor_train", "cp"), (2_000, 6_000, 20_000, 60_000), 0
PANELS = {
    "error": "error of the conversion",
    "accuracy": "accuracy as converted",
    "accuracy_after": "accuracy after 50 more steps",
}
COLUMNS = ("form", "budget", "n_params", "error", "accuracy", "accuracy_after", "growth", "seconds")


def main() -> None:
    """Train the LoRA, turn it into each form that the record lacks, and go on."""
    bench = Bench(Setting(STEPS, n_test=1000), SEED)
    model = bench.fresh()
    plan = ta.plan(model, layout=": out : in", method="lora", rank=8, train=("classifier",))
    lora = ta.attach(model, plan, seed=SEED)
    bench.fit(model, rate("lora"))
    head = {k: v.clone() for k, v in model.get_submodule("classifier").state_dict().items()}
    before = copy.deepcopy(lora)  # the LoRA before its 50 more steps
    done = {(row["form"], row["budget"]) for row in read(CSV)}
    if ("lora", "") not in done:
        with ta.disabled(model):
            save("frozen base", "", 0, 1.0, bench.accuracy(model), "", "", "")
        save("lora", "", plan.n_params, 0.0, bench.accuracy(model), more(bench, model, "lora"), "", "")
    for family, budget in itertools.product(FAMILIES, BUDGETS[: 1 if ASKED.quick else None]):
        if (family, str(budget)) not in done:
            save(family, budget, *one(bench, before, head, family, budget))


def one(bench: Bench, lora: ta.Adapter, head: dict[str, Tensor], family: str, budget: int) -> tuple[Any, ...]:
    """Turn the LoRA into a form; returns the cells of its row."""
    begun = time.perf_counter()
    result = ta.compress(lora, method=family, budget=budget)
    seconds = time.perf_counter() - begun
    model = bench.fresh()
    model.get_submodule("classifier").load_state_dict(head)
    result.attach(model)
    model.classifier.requires_grad_(True)
    accuracy = bench.accuracy(model)
    growth = "" if result.growth is None else round(result.growth, 2)
    return result.n_params, round(result.error, 4), accuracy, more(bench, model, family), growth, round(seconds, 1)


def more(bench: Bench, model: nn.Module, family: str) -> float:
    """Accuracy after 50 more steps at a third of the family's rate, on batches not seen in this order before."""
    bench.fit(model, rate(family) / 3, steps=MORE, order=7, head_lr=rate("head") / 3)
    return bench.accuracy(model)


def save(*row: object) -> None:
    """Append a row."""
    append(CSV, dict(zip(COLUMNS, row, strict=True)))


def figure() -> None:
    """Draw the error and both accuracies against parameters, a panel each."""
    rows = read(RECORDS / "compression.csv")
    with figure_style.drawn(FIGURE, (10, 3.4)) as whole:
        axes = figure_style.panels(whole, len(PANELS))
        axes[2].sharey(axes[1])
        axes[0].set_ylabel("relative Frobenius error")
        axes[1].set_ylabel("test accuracy (1,000 sentences, one seed)")
        for ax, column in zip(axes, PANELS, strict=True):
            panel(ax, rows, column)
        for ax, column in zip(axes, PANELS, strict=True):  # once limits are those of all panels
            _parts.end_names(ax, last(rows, column))


def panel(ax: Axes, rows: list[dict[str, str]], column: str) -> None:
    """Draw a line for each form, and for an accuracy those of the LoRA and of the frozen base."""
    for family, look in looks(FAMILIES).items():
        own = sorted((int(r["n_params"]), float(r[column])) for r in rows if r["form"] == family)
        ax.plot(*zip(*own, strict=True), look.marker, ls=look.line, color=look.colour, lw=1.4, ms=5.5)
    ax.set(xscale="log", xlabel="parameters", title=PANELS[column])
    ax.set_xticks(BUDGETS, [f"{n:,}" for n in BUDGETS])
    ax.minorticks_off()
    ax.grid(axis="y")
    for row in rows:
        if row["form"] in ("frozen base", "lora") and column != "error" and row[column]:
            ax.axhline(float(row[column]), color=tone(_parts.GREY), lw=0.9, ls=(0, (4, 2)), zorder=1)
            place = (0.01, float(row[column])), (0, 2), ("axes fraction", "data")
            text = f"{display(row['form'])} {float(row[column]):.3f}"
            ax.annotate(
                text, *place, textcoords="offset points", va="bottom", fontsize="small", color=tone(_parts.GREY)
            )


def last(rows: list[dict[str, str]], column: str) -> dict[str, tuple[float, str]]:
    """Return by name the last value of each form's line and its colour."""
    ends = {
        family: max((r for r in rows if r["form"] == family), key=lambda r: int(r["n_params"])) for family in FAMILIES
    }
    return {look.name: (float(ends[family][column]), look.colour) for family, look in looks(FAMILIES).items()}


if __name__ == "__main__":
    figure() if ASKED.figure else main()
