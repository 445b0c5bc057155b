"""The command ``tensoradapt compress``: a LoRA folder in another factored form, with its true error."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_parser(commands: Any) -> None:
    """Adds the command to those of a parser (``add_subparsers``)."""
    p = commands.add_parser(
        "compress",
        help="turn a trained LoRA folder into another adapter, and state the error",
        description="Decomposes the updates of a LoRA folder as PEFT saves it. Prints the parameters, the true "
        "relative error and how it was reached; with --out it leaves an adapter to load.",
    )
    p.set_defaults(command=run)
    p.add_argument("folder", type=Path, metavar="LORA_FOLDER", help="adapter_config.json, adapter_model.safetensors")
    p.add_argument("--model", required=True, metavar="NAME", help="its base model; only the config is read")
    p.add_argument("--parameterization", required=True, metavar="NAME")
    p.add_argument("--layout", nargs="+", metavar="LAYOUT", help='such as "layer proj : head dim : model"')
    how = p.add_mutually_exclusive_group()
    how.add_argument("--rank", type=int, metavar="R", help="not needed for families without one")
    how.add_argument("--max-error", type=float, metavar="E", help="the smallest rank with at most this relative error")
    how.add_argument("--budget", type=int, metavar="N", help="parameters")
    p.add_argument("--order", default="given", help="given, or search: the best order of modes of a tensor-train")
    p.add_argument("--seed", type=int, default=0, metavar="S", help="of random starts (default: %(default)s)")
    p.add_argument("--out", type=Path, metavar="DIR", help="where to save the adapter")


def run(args: argparse.Namespace) -> int:
    """Compresses, prints the report, saves; returns the exit code."""
    from tensoradapt.compression.compress import compress
    from tensoradapt.data import models

    result = compress(
        args.folder,
        models.config(args.model),
        args.layout,
        args.parameterization,
        args.rank,
        max_error=args.max_error,
        budget=args.budget,
        seed=args.seed,
        order=args.order,
    )
    print(result)
    if args.out:
        result.save(args.out)
        print(f"saved in {args.out}; tensoradapt.load(model, {str(args.out)!r}, strict=False) attaches it")
    return 0
