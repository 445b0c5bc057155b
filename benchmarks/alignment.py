"""How much of the gradient adapters can follow, and how much of it their steps do, from step to step.

    python benchmarks/alignment.py

Trains all-MiniLM-L6-v2 on the rated sentences by 150 equal steps of one rate, and measures at every tenth step, before
it is taken, with ``ta.alignment``. Writes records/alignment.csv; methods that are there already are not run again.
``python benchmarks/alignment_figure.py`` draws it.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from kept import append, read
from minilm import Bench, Setting

import tensoradapt as ta
from tensoradapt.lab.tasks.classification import head_of

CSV = Path(__file__).parent / "records" / "alignment.csv"
TIED, FREE = "layer proj : head dim : model", ": out : in"
METHODS: Mapping[str, Mapping[str, Any]] = {
    "LoRA r=8": {"method": "lora", "rank": 8},
    "CP r=64": {"layout": TIED, "method": "cp", "rank": 64},
    "Tensor-train r=32": {"layout": TIED, "method": "tensor_train", "rank": 32},
    "Tucker r=8, : out : in": {"layout": FREE, "method": "tucker", "rank": 8},
    "Tucker r=8, : out : in, core at zero": {
        "layout": FREE, "method": "tucker", "rank": 8, "options": {"zero": "core"}
    },
}  # fmt: skip
STEPS, EVERY, LR, HEAD, SEED = 150, 10, 2e-3, 0.06, 0
SETTING = Setting(steps=STEPS, n_train=4000, n_validation=100, n_test=100, batch=16)


def main() -> None:
    done = {row["method"] for row in read(CSV)}
    for name in (name for name in METHODS if name not in done):
        for row in measured(METHODS[name]):
            append(CSV, {"method": name, **row})


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


if __name__ == "__main__":
    main()
