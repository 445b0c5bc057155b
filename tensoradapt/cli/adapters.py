"""The commands about one adapter: ``plan``, ``methods`` (and the page docs/methods.md), ``compress`` and ``export``."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Callable
from typing import Any

from tensoradapt import parameterizations, published
from tensoradapt.cli.options import DEFAULT_MODEL, add_layout, add_projections, path, picked
from tensoradapt.cli.output import show
from tensoradapt.errors import TensorAdaptError
from tensoradapt.text import align

HEAD = """# Methods

Made by `tensoradapt methods --markdown`; do not edit. A parameterization is one file in
`tensoradapt/parameterizations/`, a published adapter one row of `tensoradapt/published/rows.py`.

"""


def add_parsers(commands: Any) -> None:
    """Add the commands to those of a parser (``add_subparsers``)."""
    p = commands.add_parser("plan", help="print what an adapter would be, without building it")
    p.set_defaults(command=plan)
    p.add_argument(
        "--model",
        default=DEFAULT_MODEL,
        help="a built-in model, a folder, or a hub name; only its config is read (default: %(default)s)",
    )
    which = p.add_mutually_exclusive_group(required=True)
    which.add_argument("--parameterization", metavar="NAME")
    which.add_argument("--published", metavar="NAME", help="a paper's adapter with its own layout, targets and scale")
    size = p.add_mutually_exclusive_group()
    size.add_argument("--rank", type=int, metavar="R", help="not needed for parameterizations without one")
    size.add_argument("--budget", type=int, metavar="N", help="the largest rank within this number of parameters")
    add_layout(p)
    add_projections(p, None)
    p.add_argument("--tasks", nargs="+", metavar="T", default=(), help="values of a layout's task mode")
    p.add_argument("--on-mismatch", help="split, crop or error (default: split; with --published: error)")

    p = commands.add_parser("methods", help="list the published adapters: layout, formula, start, scale, source")
    p.set_defaults(command=methods)
    p.add_argument("--model", help="count each at this model's sizes: a built-in model, a folder, or a hub name")
    p.add_argument("--rank", type=int, default=8, help="the rank to count at (default: %(default)s)")
    p.add_argument("--markdown", action="store_true", help="as docs/methods.md, with the parameterizations")

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
    p.add_argument("--parameterization", required=True, metavar="NAME")
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
    p.add_argument("--leave-heads", action="store_true", help="export without trained heads and shared biases")


def plan(args: argparse.Namespace) -> int:
    """Print a plan."""
    import tensoradapt as ta
    from tensoradapt.data import models

    config = models.config(args.model)
    projections = args.projections and (args.projections[0] if len(args.projections) == 1 else args.projections)
    options = picked(args, "layout", "parameterization", "rank", "published", "budget", "on_mismatch", "tasks")
    show(ta.plan(config, projections=projections, **options))
    return 0


def methods(args: argparse.Namespace) -> int:
    """Print the published adapters, their counts at a model's sizes, or the page docs/methods.md."""
    from tensoradapt.data import models

    if args.markdown:
        print(methods_page(), end="")
    elif args.model is not None:
        counted = map(_counted(models.config(args.model), args.rank), published.ROWS)
        show(*align([("name", f"parameters at rank {args.rank}"), *counted]))
    else:
        show(published.LETTERS, *map(_described, published.ROWS))
    return 0


def _described(row: Any) -> str:
    layouts = "; ".join(f"{text}  ({' '.join(projections)})" for text, projections in row.tensors)
    lines = [
        f"\n{row.name}: {row.parameterization} over {layouts}",
        f"  parameters {row.formula}; start {row.start}; scale {row.scale}, alpha {row.alpha:g}",
        f"  {row.source}",
    ]
    return "\n".join(lines + [f"  {row.note}"] * bool(row.note))


def _counted(config: Any, rank: int) -> Callable[[Any], tuple[str, str]]:
    """A row's count at a model's sizes, or why it has none."""
    import tensoradapt as ta

    def count(row: Any) -> tuple[str, str]:
        tasks = ("a", "b") if any("task" in text for text in row.layout) else ()
        try:
            n_params = ta.plan(config, published=row.name, rank=rank, tasks=tasks).n_params
        except TensorAdaptError as error:
            return row.name, f"- ({error})"
        return row.name, f"{n_params:,}" + (" (2 tasks)" if tasks else "")

    return count


def methods_page() -> str:
    """Markdown: every parameterization with its options, every published adapter with its formula and source."""
    return HEAD + "\n".join([*_parameterizations(), "", *_published()]) + "\n"


def _parameterizations() -> list[str]:
    lines = ["## Parameterizations", "", "| name | what it is | options | parameters |", "|---|---|---|---|"]
    for name in parameterizations.names():
        factoring = parameterizations.get(name)
        options = list(inspect.signature(factoring.build).parameters)[2:]
        shown = ", ".join(f"`{option}`" for option in options)
        lines.append(f"| `{name}` | {_first(factoring)} | {shown} | {_first(factoring.count)} |")
    return lines


def _published() -> list[str]:
    lines = ["## Published adapters", "", f"Letters: {published.LETTERS}.", ""]
    lines += ["| name | parameterization, layout (targets) | parameters | start | scale | source | note |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for row in published.ROWS:
        layouts = "; ".join(f"`{layout}` ({' '.join(projections)})" for layout, projections in row.tensors)
        formula, scale = f"`{row.formula}`", f"{row.scale}, alpha {row.alpha:g}"
        cells = (row.name, f"{row.parameterization}, {layouts}", formula, row.start, scale, row.source, row.note)
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _first(of: object) -> str:
    """The first sentence of a docstring, on one line."""
    return " ".join((inspect.getdoc(of) or "").split("\n\n")[0].split()).replace("|", "\\|")


def compress(args: argparse.Namespace) -> int:
    """Compress, print the report, save."""
    from tensoradapt.compression.compress import compress as compressed
    from tensoradapt.data import models

    result = compressed(
        args.folder,
        models.config(args.model),
        args.layout,
        args.parameterization,
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
        **picked(args, "rank", "round_up", "dtype", "task", "task_type", "prefix"),
    )
    show(report)
    return 0
