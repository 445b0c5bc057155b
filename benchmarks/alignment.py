"""How much of the gradient adapters can follow, and how much of it their steps do, from step to step.

    python benchmarks/alignment.py             # trains the methods that records/alignment.csv lacks
    python benchmarks/alignment.py --figure    # docs/concepts/figures/alignment.png from it

Trains all-MiniLM-L6-v2 on the rated sentences by 150 equal steps of one rate, and measures at every tenth step, before
it is taken, with ``ta.alignment``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

from measure import RECORDS, append, options, place, read

ASKED = options(__name__, __doc__, figure=False)

import figure_style
import pandas as pd
import torch
from matplotlib.axes import Axes
from minilm import Bench, Setting

import tensoradapt as ta
from tensoradapt.lab.analysis.names import COLOURS
from tensoradapt.lab.tasks.classification import head_of

RECORD, PNG = RECORDS / "alignment.csv", figure_style.DOCS / "concepts" / "figures" / "alignment.png"
SPLIT, FREE = "layer proj : head dim : model", ": out : in"
METHODS: Mapping[str, Mapping[str, Any]] = {
    "LoRA r=8": {"method": "lora", "rank": 8},
    "CP r=64": {"layout": SPLIT, "method": "cp", "rank": 64},
    "Tensor-train r=32": {"layout": SPLIT, "method": "tensor_train", "rank": 32},
    "Tucker r=8, : out : in": {"layout": FREE, "method": "tucker", "rank": 8},
    "Tucker r=8, : out : in, core at zero": {
        "layout": FREE, "method": "tucker", "rank": 8, "options": {"zero": "core"}
    },
}  # fmt: skip
STEPS, EVERY, LR, HEAD, SEED = 4 if ASKED.quick else 150, 10, 2e-3, 0.06, 0
TIED = "CP r=64"  # whose factors' parts of a step are shown
SETTING = Setting(steps=STEPS, n_train=4000, n_validation=100, n_test=100, batch=16)


def main() -> None:
    """Train what is missing, or draw."""
    if ASKED.figure:
        figure()
        return
    path = place(ASKED, "alignment.csv")
    done = {row["method"] for row in read(path)}
    for name in [name for name in METHODS if name not in done][: 1 if ASKED.quick else None]:
        for row in measured(METHODS[name]):
            append(path, {"method": name, **row})


def measured(settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Train, and return the rows of the tables of alignment that are of the whole adapter or of its first tensor."""
    bench, found = Bench(SETTING, SEED), []
    model = bench.fresh()
    ta.attach(model, ta.plan(model, **settings), seed=SEED)
    groups = ta.parameter_groups(model, lr=LR, head_lr=HEAD, heads=head_of(model))
    optimizer = ta.equal_steps(torch.optim.AdamW(groups, weight_decay=0.0), model)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate_at)
    model.train()
    for step, batch in enumerate(itertools.islice(bench.batches(model), STEPS), 1):
        if step == 1 or step % EVERY == 0:
            table = ta.alignment(model, batch, optimizer)
            kept = table[(table["tensor"] == "all") | (table["tensor"] == 0)]
            found += [{"step": step, **row} for row in kept.round(5).to_dict("records")]
        optimizer.zero_grad(set_to_none=True)
        model(**batch).loss.backward()
        torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], 1.0)
        optimizer.step()
        schedule.step()
    return found


def rate_at(step: int) -> float:
    """The schedule of ``ta.fit``: a tenth of the steps up, then linearly down."""
    return min((step + 1) / (0.1 * STEPS), (STEPS - step) / (0.9 * STEPS))


def figure() -> None:
    """Draw the record."""
    table = pd.DataFrame(read(RECORD)).astype({"step": int, "share": float, "moved": float, "cosine": float})
    with figure_style.drawn(PNG, (10.4, 3.4)) as whole:
        share, cosine, moved = figure_style.panels(whole, 3, sharex=True)
        every = table[table["tensor"] == "all"]
        methods(share, every, "share", "share of the gradient in the tangent space")
        methods(cosine, every, "cosine", "cosine of the step with minus the gradient")
        factors(moved, table[(table["method"] == TIED) & (table["tensor"] == "0") & (table["factor"] != "all")])
        cosine.axhline(0, color="#b0b0b0", linewidth=0.7)
        whole.legend(*share.get_legend_handles_labels(), loc="outside lower center", ncols=figure_style.beside(5))


def methods(ax: Axes, table: pd.DataFrame, column: str, title: str) -> None:
    """One line for each method."""
    for colour, (name, rows) in zip(COLOURS, table.groupby("method", sort=False), strict=False):
        ax.plot(rows["step"], rows[column], color=colour, label=name, linewidth=1.5)
    ax.set_title(title)
    ax.set_xlabel("step")
    ax.grid(axis="y")


def factors(ax: Axes, table: pd.DataFrame) -> None:
    """One line for each factor; lines that end together have one name."""
    ends: dict[int, list[str]] = {}
    for colour, (name, rows) in zip(COLOURS, table[table["moved"] > 0].groupby("factor", sort=False), strict=False):
        ax.plot(rows["step"], rows["moved"], color=colour, linewidth=1.5)
        ends.setdefault(round(4 * math.log10(rows["moved"].iloc[-1])), []).append(str(name))
    for level, names in ends.items():
        ax.annotate("\n".join(names), (STEPS, 10 ** (level / 4)), xytext=(3, 0), textcoords="offset points",
                    va="center")  # fmt: skip
    ax.set_yscale("log")
    ax.set_title(f"{TIED}: each factor's part of a step")
    ax.set_xlabel("step")
    ax.grid(axis="y")


if __name__ == "__main__":
    main()
