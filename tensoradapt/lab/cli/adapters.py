"""The commands about one adapter: ``plan``, ``compress`` and ``export``."""

from __future__ import annotations

import argparse
import os
from typing import Any

from tensoradapt.errors import TensorAdaptError
from tensoradapt.lab.cli.options import DEFAULT_MODEL, add_layout, n_params, path, picked
from tensoradapt.lab.cli.output import show, show_json, show_text, width
from tensoradapt.lab.cli.parser import add_command
from tensoradapt.planning.size import Size
from tensoradapt.planning.spec import TITLES, AdapterSpec
from tensoradapt.published import registry
from tensoradapt.records import add_options, given_options, names, of_words, read
from tensoradapt.text import align

OPTIONS = names(AdapterSpec)
PAIRS: dict[str, str | tuple[str, str]] = {  # the fields that are tables, as help shows them
    **{"rank": ("RANK", "MODE=RANK"), "split": "MODE=PARTS", "rank_pattern": "SITES=RANK", "rates": "FACTOR=RATE"},
    **{"options": "OPTION=VALUE", "shared": "FACTOR=MODES", "frozen": "FACTOR", "map": ("MAP", "MAP=NUMBER")},
}


def add_parsers(commands: Any) -> None:
    """Add the commands to those of a parser (``add_subparsers``)."""
    brief = "print what an adapter would be, without building it"
    p = add_command(commands, "plan", plan, brief, "--method NAME --rank R [options]")
    p.add_argument_group("model").add_argument(
        "--model",
        default=DEFAULT_MODEL,
        help="a built-in model, a folder, or a hub name; only its config is read (default: %(default)s)",
    )
    for title, given in TITLES.items():
        add_options(p.add_argument_group(title), AdapterSpec, [n for n in OPTIONS if n not in given], PAIRS)

    p = add_command(
        commands,
        "compress",
        compress,
        "turn a trained LoRA folder into another adapter, and state the error",
        "FOLDER ... --model NAME --method NAME [options]",
        "Decomposes the updates of a LoRA folder as PEFT saves it, or those of several of one model as one "
        "adapter with a task for each. Prints the parameters, the true relative error and how it was reached; "
        "with --out it writes an adapter to load.",
    )
    _compress_options(p)

    p = add_command(
        commands,
        "export",
        export,
        "turn a saved adapter into a LoRA folder that PEFT and servers load",
        "FOLDER --out DIR [--model NAME] [options]",
        "FOLDER is an adapter as adapter.save wrote it, with --model, or a run of a sweep that kept its adapter. "
        "Writes adapter_config.json and adapter_model.safetensors, exactly unless --rank is given. "
        "Prints rank and errors of every module, and the --max-lora-rank that vLLM needs.",
    )
    _export_options(p)


def _compress_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folder",
        type=path,
        nargs="+",
        metavar="FOLDER",
        help="adapter_config.json, adapter_model.safetensors; of several the layout has the mode task",
    )
    p = parser.add_argument_group("what it becomes")
    p.add_argument("--model", required=True, metavar="NAME", help="its base model; only the config is read")
    p.add_argument("--method", required=True, metavar="NAME", help="such as cp, tucker or tensor_train")
    add_layout(p)
    add_options(p, AdapterSpec, [n for n in OPTIONS if n != "split"], PAIRS)
    size = p.add_mutually_exclusive_group()
    size.add_argument("--rank", type=int, metavar="R", help="not needed for parameterizations without one")
    size.add_argument("--max-error", type=float, metavar="E", help="the smallest rank with at most this relative error")
    size.add_argument("--budget", type=n_params, metavar="N", help="the largest rank within this number of parameters")
    p.add_argument("--order", default="given", help="given, or search: the best order of modes of a tensor-train")
    p.add_argument("--seed", type=int, default=0, metavar="S", help="of random starts (default: %(default)s)")
    p.add_argument("--damaged", default="error", help="error, or skip: leave out folders that cannot be read")
    p.add_argument("--out", type=path, metavar="DIR", help="where to save the adapter")


def _export_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=path, metavar="FOLDER", help="of an adapter, or of a run: runs/x/ID")
    p = parser.add_argument_group("model and folder")
    p.add_argument("--model", metavar="NAME", help="an adapter's base model; only the config is read")
    p.add_argument("--out", type=path, required=True, metavar="DIR", help="a new folder, or an earlier export")
    p.add_argument(
        "--architecture",
        metavar="CLASS",
        help="the model's class, such as BertForSequenceClassification (default: the config's)",
    )
    p = parser.add_argument_group("what is exported")
    p.add_argument("--rank", type=int, metavar="R", help="at most this rank, by truncation")
    p.add_argument("--round-up", action="store_true", help="zero-pad to the next rank that vLLM supports")
    p.add_argument("--dtype", default="float32", help="float32, float16, bfloat16 or float64 (default: %(default)s)")
    p.add_argument("--task", metavar="T", help="which of an adapter's tasks")
    p.add_argument("--task-type", metavar="T", help="as PEFT calls it; CAUSAL_LM is found from the class")
    p.add_argument(
        "--prefix", default="", metavar="PATH", help="where the model is in the served one, as model for a LlamaModel"
    )
    p.add_argument("--target", default="every", help="every, peft or llama.cpp (default: %(default)s)")
    p.add_argument("--base-model", metavar="NAME", help="the base's name or path in the folder")
    p.add_argument("--leave-heads", action="store_true", help="export without trained heads and shared biases")


def plan(args: argparse.Namespace) -> int:
    """Print a plan."""
    from tensoradapt.lab.cli.documents import plan_document
    from tensoradapt.lab.data import models
    from tensoradapt.planning.build_plan import build_plan
    from tensoradapt.planning.plan import plan_text

    spec = read(AdapterSpec, given_options(args, AdapterSpec))
    _check_size(spec)
    planned = build_plan(models.config(args.model), spec)
    if args.json:
        show_json({"model": args.model, **plan_document(planned)})
    else:
        show(plan_text(planned, room=width()))
    return 0


def _check_size(spec: AdapterSpec) -> None:
    """Raise TensorAdaptError for a method that is missing, or takes a size and has none, in the words of options."""
    if spec.method is None:
        raise TensorAdaptError("a method is missing; give --method, as in --method cp; tensoradapt methods lists all")
    if not Size.of(spec) and registry.find(spec.method, spec.paper).ranked:
        raise TensorAdaptError(f"{spec.name} needs a size; give --rank or --budget, as in --rank 8")


def compress(args: argparse.Namespace) -> int:
    """Compress, print the report, save."""
    from tensoradapt.compression.compress import compress as compressed
    from tensoradapt.lab.cli.documents import compressed_document
    from tensoradapt.lab.data import models

    if args.rank is args.max_error is args.budget is None and registry.find(args.method).ranked:
        raise TensorAdaptError(f"{args.method} needs a size; give --rank, --max-error or --budget, as in --rank 8")
    result = compressed(
        args.folder if len(args.folder) > 1 else args.folder[0],
        models.config(args.model),
        args.layout,
        args.method,
        args.rank,
        split=of_words(args.split) if hasattr(args, "split") else None,
        **picked(args, "max_error", "budget", "seed", "order", "damaged"),
    )
    if args.out:
        result.save(args.out)
    if args.json:
        show_json({**compressed_document(result), "saved": args.out})
        return 0
    show_text(*str(result).splitlines())
    if args.out:
        show(f"saved in {args.out}; tensoradapt.load(model, {str(args.out)!r}, strict=False) attaches it")
    return 0


def export(args: argparse.Namespace) -> int:
    """Export and print the report."""
    from tensoradapt.lab.cli.documents import export_document
    from tensoradapt.lora.export import export_lora

    model, adapter = _exported(args)
    report = export_lora(
        model,
        args.out,
        adapter=adapter,
        heads="leave" if args.leave_heads else "refuse",
        **picked(args, "rank", "round_up", "dtype", "task", "task_type", "prefix", "target", "base_model"),
    )
    if args.json:
        show_json(export_document(report))
    else:
        show_text(*report.lines(), "")
        show(*align(report.rows(), width()))
    return 0


def _exported(args: argparse.Namespace) -> tuple[Any, Any]:
    """Return the model and the adapter of a folder: a run's, or a saved adapter's with a model without weights."""
    from tensoradapt.lab.data import models
    from tensoradapt.lab.runs.trained import load_run
    from tensoradapt.storage.load import unattached

    if os.path.isfile(args.folder / "result.json"):  # noqa: PTH113  # Path's raises for a name that is too long
        trained = load_run(args.folder.parent, args.folder.name)
        return trained.model, trained.adapter
    if args.model is None:
        raise TensorAdaptError(
            f"{args.folder} is no folder of a run, and --model is missing; give --model NAME, the base model of the "
            "adapter in it"
        )
    return models.skeleton(args.model, args.architecture), unattached(args.folder)
