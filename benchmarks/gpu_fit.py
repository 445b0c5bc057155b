"""What a step of ``ta.fit`` costs on a device, batches from the CPU, in fp32 and in bf16: seconds, memory and losses.

    python benchmarks/gpu_fit.py --device cuda            # writes records/fit-minilm-cuda.csv
    python benchmarks/gpu_fit.py --device cuda --shape roberta-base --samples 64

A random classifier of a shape is trained on random texts by each adapter, with AdamW and, where it is ours, with equal
steps. A step begins when its batch is on the device and ends when its loss is known, so that it holds all the work of
the device. Seconds are the median and quartiles over steps after the first five (one in a look), memory is the peak of
the allocator above what the model takes, or on a CPU that of the process. A row is written as soon as it is measured.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from measure import append, begin, named, options, place, spread

ASKED = options(__name__, __doc__, repeat=60, threads=1, device="cpu", only=[""], shape="minilm", samples=16, tokens=64)

import peft
import torch
from random_models import classifier_of, sites_of, texts
from speed_costs import peak_of
from torch import nn

import tensoradapt as ta

ROWS: Mapping[str, Mapping[str, Any]] = {
    "PEFT LoRA r=8": {},
    "LoRA r=8": {"method": "lora", "rank": 8},
    "CP r=8": {"method": "cp", "rank": 8},
    "CP r=64": {"method": "cp", "rank": 64},
    "tensor-train r=8": {"method": "tensor_train", "rank": 8},
    "Tucker r=8": {"method": "tucker", "rank": 8},
    "VeRA r=256": {"method": "vera", "rank": 256},
    "LoHa r=8": {"method": "loha", "rank": 8},
}
WARM = 5  # steps that are not counted


def adapted(args: argparse.Namespace, row: Mapping[str, Any]) -> nn.Module:
    """A model on the device with an adapter of ours, or of PEFT for a row without arguments."""
    model = classifier_of(args.shape).to(args.device).requires_grad_(False)
    if row:
        ta.attach(model, ta.plan(sites_of(model), **row, train=("classifier",)), seed=0)
        return model
    targets = sorted({site.module for site in sites_of(model)})
    config = peft.LoraConfig(r=8, lora_alpha=16, target_modules=targets, modules_to_save=["classifier"])
    return peft.get_peft_model(model, config)


def measured(args: argparse.Namespace, row: Mapping[str, Any], optimizer: str, precision: str) -> dict[str, Any]:
    """One training."""
    model, found = adapted(args, row), []
    train: Callable[[], Any] = partial(
        ta.fit,
        model,
        texts(args.shape, args.samples, args.tokens),
        lr=1e-3,
        steps=args.repeat,
        optimizer=optimizer,
        precision=precision,
    )
    peak = peak_of(lambda: found.append(train()), args.device)
    [result] = found
    seconds = spread(list(result.seconds[args.warm :]))
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    losses = {"first_loss": result.losses[0], "last_loss": statistics.fmean(result.losses[-5:])}
    times = {f"step_ms_{name}": round(1e3 * value, 4) for name, value in seconds.items()}
    return {"status": result.status, "n_params": trained, **times, "peak_bytes": peak, **losses}


def rows(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """A row for each adapter, optimizer and precision."""
    for (name, row), precision in itertools.product(ROWS.items(), ("fp32", "bf16")):
        for optimizer in ("adamw", "equal_steps") if row else ("adamw",):
            if name.startswith(tuple(args.only)):
                what = {"adapter": name, "optimizer": optimizer, "precision": precision}
                yield {**what, **measured(args, row, optimizer, precision)}


def main(args: argparse.Namespace) -> None:
    """Measure each row; ``--repeat`` says how many steps."""
    args.warm = 1 if args.quick else WARM
    if args.quick:
        args.shape, args.samples, args.tokens, args.repeat = "small", 2, 8, 4
    torch.set_num_threads(args.threads)
    name = named(f"fit-{args.shape}", args.device)
    path = begin(place(args, f"{name}.csv", part=args.only != [""]))
    for row in rows(args):
        append(path, row)


if __name__ == "__main__":
    main(ASKED)
