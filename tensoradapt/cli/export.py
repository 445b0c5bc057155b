"""The command ``tensoradapt export``: a saved adapter as a LoRA folder, with its errors."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_parser(commands: Any) -> None:
    """Adds the command to those of a parser (``add_subparsers``)."""
    p = commands.add_parser(
        "export",
        help="turn a saved adapter into a LoRA folder that PEFT and servers load",
        description="Writes adapter_config.json and adapter_model.safetensors, exactly unless --rank is given. Prints "
        "rank and errors of every module, and the --max-lora-rank that vLLM needs. No weights are read.",
    )
    p.set_defaults(command=run)
    p.add_argument("folder", type=Path, metavar="ADAPTER_FOLDER", help="as adapter.save wrote it")
    p.add_argument("--model", required=True, metavar="NAME", help="its base model; only the config is read")
    p.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new folder, or an earlier export")
    p.add_argument(
        "--architecture",
        metavar="CLASS",
        help="the model's class, such as BertForSequenceClassification (default: the config's)",
    )
    p.add_argument("--rank", type=int, metavar="R", help="at most this rank, by truncation")
    p.add_argument("--round-up", action="store_true", help="zeros up to the next rank that vLLM can be set to")
    p.add_argument("--dtype", default="float32", help="float32, float16, bfloat16 or float64 (default: %(default)s)")
    p.add_argument("--task", metavar="T", help="which of an adapter's tasks")
    p.add_argument("--task-type", metavar="T", help="as PEFT calls it; CAUSAL_LM is found from the class")
    p.add_argument(
        "--prefix", default="", metavar="PATH", help="where the model is in the served one, as model for a LlamaModel"
    )
    p.add_argument("--leave-heads", action="store_true", help="export without trained heads and shared biases")


def run(args: argparse.Namespace) -> int:
    """Exports and prints the report; returns the exit code."""
    from tensoradapt.data import models
    from tensoradapt.lora.export import export_lora
    from tensoradapt.storage.saved import unattached

    report = export_lora(
        models.skeleton(args.model, args.architecture),
        args.out,
        adapter=unattached(args.folder),
        rank=args.rank,
        round_up=args.round_up,
        dtype=args.dtype,
        task=args.task,
        task_type=args.task_type,
        heads="leave" if args.leave_heads else "refuse",
        prefix=args.prefix,
    )
    print(report)
    return 0
