"""The commands about one adapter: ``plan``, ``compress`` and ``export``."""

from __future__ import annotations

import argparse
from typing import Any

from tensoradapt.cli.options import DEFAULT_MODEL, add_layout, path, picked
from tensoradapt.cli.output import show
from tensoradapt.planning.spec import AdapterSpec
from tensoradapt.records import add_options, given_options, read


def add_parsers(commands: Any) -> None:
    """Add the commands to those of a parser (``add_subparsers``)."""
    p = commands.add_parser("plan", help="print what an adapter would be, without building it")
    p.set_defaults(command=plan)
    p.add_argument(
        "--model",
        default=DEFAULT_MODEL,
        help="a built-in model, a folder, or a hub name; only its config is read (default: %(default)s)",
    )
    add_options(p, AdapterSpec, leave_out=("split",))

    p = commands.add_parser(
        "compress",
        help="turn a trained LoRA folder into another adapter, and state the error",
        description="Decomposes the updates of a LoRA folder as PEFT saves it. Prints the parameters, the true "
        "relative error and how it was reached; with --out it writes an adapter to load.",
    )
    _compress_options(p)

    p = commands.add_parser(
        "export",
        help="turn a saved adapter into a LoRA folder that PEFT and servers load",
        description="Writes adapter_config.json and adapter_model.safetensors, exactly unless --rank is given. "
        "Prints rank and errors of every module, and the --max-lora-rank that vLLM needs. No weights are read.",
    )
    _export_options(p)


def _compress_options(p: argparse.ArgumentParser) -> None:
    p.set_defaults(command=compress)
    p.add_argument("folder", type=path, metavar="LORA_FOLDER", help="adapter_config.json, adapter_model.safetensors")
    p.add_argument("--model", required=True, metavar="NAME", help="its base model; only the config is read")
    p.add_argument("--method", required=True, metavar="NAME", help="such as cp, tucker or tensor_train")
    add_layout(p)
    size = p.add_mutually_exclusive_group()
    size.add_argument("--rank", type=int, metavar="R", help="not needed for parameterizations without one")
    size.add_argument("--max-error", type=float, metavar="E", help="the smallest rank with at most this relative error")
    size.add_argument("--budget", type=int, metavar="N", help="the largest rank within this number of parameters")
    p.add_argument("--order", default="given", help="given, or search: the best order of modes of a tensor-train")
    p.add_argument("--seed", type=int, default=0, metavar="S", help="of random starts (default: %(default)s)")
    p.add_argument("--out", type=path, metavar="DIR", help="where to save the adapter")


def _export_options(p: argparse.ArgumentParser) -> None:
    p.set_defaults(command=export)
    p.add_argument("folder", type=path, metavar="ADAPTER_FOLDER", help="as adapter.save wrote it")
    p.add_argument("--model", required=True, metavar="NAME", help="its base model; only the config is read")
    p.add_argument("--out", type=path, required=True, metavar="DIR", help="a new folder, or an earlier export")
    p.add_argument(
        "--architecture",
        metavar="CLASS",
        help="the model's class, such as BertForSequenceClassification (default: the config's)",
    )
    p.add_argument("--rank", type=int, metavar="R", help="at most this rank, by truncation")
    p.add_argument("--round-up", action="store_true", help="zero-pad to the next rank that vLLM supports")
    p.add_argument("--dtype", default="float32", help="float32, float16, bfloat16 or float64 (default: %(default)s)")
    p.add_argument("--task", metavar="T", help="which of an adapter's tasks")
    p.add_argument("--task-type", metavar="T", help="as PEFT calls it; CAUSAL_LM is found from the class")
    p.add_argument(
        "--prefix", default="", metavar="PATH", help="where the model is in the served one, as model for a LlamaModel"
    )
    p.add_argument("--target", default="every", help='every reader, or "llama.cpp" with a GPT-2 (default: %(default)s)')
    p.add_argument("--base-model", metavar="NAME", help="the base's name or path in the folder")
    p.add_argument("--leave-heads", action="store_true", help="export without trained heads and shared biases")


def plan(args: argparse.Namespace) -> int:
    """Print a plan."""
    import tensoradapt as ta
    from tensoradapt.data import models

    show(ta.plan(models.config(args.model), read(AdapterSpec, given_options(args, AdapterSpec))))
    return 0


def compress(args: argparse.Namespace) -> int:
    """Compress, print the report, save."""
    from tensoradapt.compression.compress import compress as compressed
    from tensoradapt.data import models

    result = compressed(
        args.folder,
        models.config(args.model),
        args.layout,
        args.method,
        args.rank,
        **picked(args, "max_error", "budget", "seed", "order"),
    )
    show(result)
    if args.out:
        result.save(args.out)
        show(f"saved in {args.out}; tensoradapt.load(model, {str(args.out)!r}, strict=False) attaches it")
    return 0


def export(args: argparse.Namespace) -> int:
    """Export and print the report."""
    from tensoradapt.data import models
    from tensoradapt.lora.export import export_lora
    from tensoradapt.storage.load import unattached

    report = export_lora(
        models.skeleton(args.model, args.architecture),
        args.out,
        adapter=unattached(args.folder),
        heads="leave" if args.leave_heads else "refuse",
        **picked(args, "rank", "round_up", "dtype", "task", "task_type", "prefix", "target", "base_model"),
    )
    show(report)
    return 0
