"""The command ``choose``: three methods to begin with, for a model, a budget and a purpose."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from typing import Any

from tensoradapt.lab.choose import PURPOSES, candidates
from tensoradapt.lab.cli.options import DEFAULT_MODEL, n_params
from tensoradapt.lab.cli.output import show, show_json, show_text, width
from tensoradapt.lab.cli.parser import add_command
from tensoradapt.text import align


def add_parsers(commands: Any) -> None:
    """Add the command to those of a parser (``add_subparsers``)."""
    brief = "propose three methods for a model, a budget and a purpose"
    p = add_command(commands, "choose", choose, brief, "--budget N [--purpose PURPOSE] [--model NAME]")
    group = p.add_argument_group("what for")
    group.add_argument("--budget", type=n_params, required=True, metavar="N", help="the most trainable parameters")
    told = ", ".join(f"{name} ({meaning})" for name, meaning in PURPOSES.items()) + " (default: %(default)s)"
    group.add_argument("--purpose", default="smallest", help=told)
    group.add_argument(
        "--model", default=DEFAULT_MODEL, help="a built-in model, a folder, or a hub name (default: %(default)s)"
    )


def choose(args: argparse.Namespace) -> int:
    """Print the candidates, the first one first."""
    rows = candidates(args.model, args.budget, args.purpose)
    if args.json:
        show_json({"model": args.model, "budget": args.budget, "purpose": args.purpose, "candidates": rows})
        return 0
    show_text(f"{PURPOSES[args.purpose]}, at most {args.budget:,} parameters, on {args.model}", "")
    texts = [(r["method"], r["layout"], r["rank"], f"{r['n_params']:,}", f"{r['lora_rank']:,}", r["why"]) for r in rows]
    show(*align([("method", "layout", "rank", "parameters", "LoRA rank", "why"), *texts], width()), "")
    show_text(f"Why these: {rows[0]['page']}. {_next(args, rows[0])}")
    return 0


def _next(args: argparse.Namespace, first: Mapping[str, Any]) -> str:
    """Return the command that shows the first candidate."""
    if re.search("[0-9]", first["layout"]):  # the parts of a width are no option of ``plan``
        return f"More of the first: tensoradapt methods {first['method']} --model {args.model}"
    words = f'--method {first["method"]} --layout "{first["layout"]}" --budget {args.budget}'
    return f"To see the first: tensoradapt plan --model {args.model} {words}"
