"""Count what a step asks a GPU to do, on a stand-in without one: launches, waits and copies; no time is measured.

    python benchmarks/launches.py    # writes records/launches.csv

A step is ``ta.fit``'s third, with AdamW and with equal steps, of PEFT's LoRA and ours on MiniLM's shape and one of
twelve layers (two texts of eight tokens, no dropout). An operator of torch counts as one launch, as it does on a GPU
unless it is split or fused there; views do not count. The model's own operations are in every row. Waits are those
beside the model's own. The stand-in is tests/support/device_standin.py.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from measure import append, begin, options, place, tests_on_path

ASKED = options(__name__, __doc__, only="")

import peft
import torch
from random_models import bert, sites_of
from torch import Tensor, nn

import tensoradapt as ta

tests_on_path()
from support.device_standin import Counts, standin

ROWS: Mapping[str, Mapping[str, Any]] = {
    "PEFT LoRA r=8": {},
    "LoRA r=8": {"method": "lora", "rank": 8},
    "CP r=8": {"method": "cp", "rank": 8},
    "CP r=64": {"method": "cp", "rank": 64},
    "tensor-train r=8": {"method": "tensor_train", "rank": 8},
    "Tucker r=8": {"method": "tucker", "rank": 8},
    "VeRA r=64": {"method": "vera", "rank": 64},
    "LoRA r=8, subtract": {"method": "lora", "rank": 8, "start": "subtract"},
    "DoRA r=8": {"method": "lora", "rank": 8, "rule": "dora"},
}
STEP = 3  # of a training: by then all that is made once is there


class WithLoss(nn.Module):
    """A model with a loss to train on."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, **batch: Tensor) -> Any:
        return type("Output", (), {"loss": self.inner(**batch).last_hidden_state[..., 0].square().mean()})


def adapted(layers: int, hidden: int, row: Mapping[str, Any]) -> nn.Module:
    """A model with an adapter, on the stand-in."""
    torch.manual_seed(0)
    model = bert(hidden, layers, hidden // 32, 100)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    if row:
        ta.attach(model, ta.plan(sites_of(model), **row), seed=0)
    else:
        targets = sorted({site.module for site in sites_of(model)})
        model = peft.get_peft_model(model, peft.LoraConfig(r=8, target_modules=targets))
    return WithLoss(model).to("cuda")


def counted(layers: int, hidden: int, row: Mapping[str, Any], optimizer: str) -> dict[str, int]:
    """The counts of one step, and of a pass without gradients after the training."""
    with standin() as device:
        model, found = adapted(layers, hidden, row), []
        batch = {"inputs_embeds": torch.randn(2, 8, hidden).to("cuda")}

        def note(step: int, loss: float) -> None:
            found.append(device.counts)
            device.counts = Counts()

        ta.fit(model, [batch] * STEP, lr=1e-3, steps=STEP, optimizer=optimizer, on_step=note)
        with torch.no_grad(), device.counting() as passed:
            model(**batch)
    step = found[STEP - 1]
    return {
        "launches": step.launches.total(),
        "waits": step.waits.total(),
        "copies": step.copies.total(),
        "launches of a pass": passed.launches.total(),
        "waits of a pass": passed.waits.total(),
    }


def main(args: argparse.Namespace) -> None:
    """Count each row."""
    path = begin(place(args, "launches.csv", part=bool(args.only)))
    for layers, hidden in [(2, 64)] if args.quick else [(6, 384), (12, 384)]:
        for name, row in ROWS.items():
            for optimizer in ("adamw", "equal_steps") if row and len(row) == 2 else ("adamw",):
                if name.startswith(args.only):
                    counts = counted(layers, hidden, row, optimizer)
                    append(path, {"layers": layers, "adapter": name, "optimizer": optimizer, **counts})


if __name__ == "__main__":
    main(ASKED)
