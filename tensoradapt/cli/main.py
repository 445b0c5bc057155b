"""Command line: thin. Exit code 0: done; 1: stopped or incomplete; 2: bad input."""

from __future__ import annotations

import argparse
import os
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tensoradapt.cli import compress, export, figures, sweep
from tensoradapt.errors import TensorAdaptError
from tensoradapt.report import align

DEFAULT_OUT = Path("runs") / "frontier"
PROJECTIONS = "attention, mlp, all, or names such as q v"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; errors print as one block, with the traceback under ``--debug``."""
    # before torch: spinning threads slow every step on a shared machine; tokenizers warn when forked
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    args = parser().parse_args(argv)
    try:
        return args.command(args)
    except BrokenPipeError:  # the reader of a pipe, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except TensorAdaptError as error:
        if args.debug:
            raise
        width = min(100, os.get_terminal_size().columns if sys.stderr.isatty() else 100)
        print(textwrap.fill(f"error: {error}", width, subsequent_indent="  ", break_on_hyphens=False), file=sys.stderr)
        return 2


def parser() -> argparse.ArgumentParser:
    """All commands and options."""
    top = argparse.ArgumentParser(prog="tensoradapt", description="Tensor-decomposition adapters for transformers.")
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    _frontier_options(
        commands.add_parser("frontier", help="fine-tune a model with several parameterizations and plot the trade-off")
    )
    _plan_options(commands.add_parser("plan", help="print what an adapter would be, without building it"))
    methods = commands.add_parser("methods", help="list the published adapters: layout, formula, start, scale, source")
    methods.add_argument("--model", help="count each at this model's sizes: a built-in model, a folder, or a hub name")
    methods.add_argument("--rank", type=int, default=8, help="the rank to count at (default: %(default)s)")
    methods.add_argument("--markdown", action="store_true", help="as docs/methods.md, with the parameterizations")
    methods.set_defaults(command=_methods)
    compress.add_parser(commands)
    export.add_parser(commands)
    sweep.add_parsers(commands)
    figures.add_parsers(commands, DEFAULT_OUT)
    for command in commands.choices.values():
        command.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return top


def _frontier_options(p: argparse.ArgumentParser) -> None:
    p.description = (
        "Fine-tunes a pretrained model with each parameterization at several ranks and seeds; leaves one folder per "
        "run, "
        "frontier.csv, frontier.png and frontier.pdf. Stop it at any time: the same command goes on where it was."
    )
    size = p.add_mutually_exclusive_group()
    size.add_argument(
        "--quick", dest="size", action="store_const", const="quick", help="every parameterization once, about 2 minutes"
    )
    size.add_argument(
        "--full",
        dest="size",
        action="store_const",
        const="full",
        help="ranks 1 to 64 and longer training, 1 to 2 hours",
    )
    p.set_defaults(size="default", command=_frontier)
    p.add_argument("--out", type=Path, default=DEFAULT_OUT, help="folder for runs and figure (default: %(default)s)")
    p.add_argument(
        "--model",
        default="all-minilm-l6-v2",
        help="a built-in model, a folder, or a name on the hub (default: %(default)s)",
    )
    p.add_argument(
        "--task", default="snippets", help="snippets, sst2, cola, rte, mrpc, stsb or planted (default: %(default)s)"
    )
    p.add_argument("--parameterization", nargs="+", metavar="NAME", help="default: lora cp tucker tensor_train vera")
    p.add_argument(
        "--layout", nargs="+", metavar="LAYOUT", help='for all of them, such as "layer proj : head dim : model"'
    )
    p.add_argument("--projections", nargs="+", metavar="P", default=["attention"], help=PROJECTIONS)
    how = p.add_mutually_exclusive_group()
    how.add_argument("--rank", nargs="+", type=int, metavar="R", help="ranks instead of the size's own")
    how.add_argument("--budget", nargs="+", type=int, metavar="N", help="numbers of parameters instead of ranks")
    p.add_argument("--seeds", nargs="+", type=int, metavar="S", help="default: 0 1 2 (--quick: 0)")
    p.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 ... (default: %(default)s)")
    p.add_argument("--lr", type=float, help="one learning rate for all adapters instead of the tuned ones")
    p.add_argument("--steps", type=int, help="training steps of each run")


def _plan_options(p: argparse.ArgumentParser) -> None:
    p.set_defaults(command=_plan)
    p.add_argument(
        "--model", default="all-minilm-l6-v2", help="as for frontier; only its config is read (default: %(default)s)"
    )
    which = p.add_mutually_exclusive_group(required=True)
    which.add_argument("--parameterization", metavar="NAME")
    which.add_argument("--published", metavar="NAME", help="a paper's adapter with its own layout, targets and scale")
    how = p.add_mutually_exclusive_group()
    how.add_argument("--rank", type=int, metavar="R", help="not needed for families without one")
    how.add_argument("--budget", type=int, metavar="N")
    p.add_argument("--layout", nargs="+", metavar="LAYOUT")
    p.add_argument("--projections", nargs="+", metavar="P", help=PROJECTIONS)
    p.add_argument("--tasks", nargs="+", metavar="T", default=(), help="values of a layout's task mode")
    p.add_argument("--on-mismatch", help="split, crop or error (default: split; with --published: error)")


def _frontier(args: argparse.Namespace) -> int:
    from tensoradapt.runs import config as spec
    from tensoradapt.sweeps import run_frontier

    configs = spec.frontier_configs(
        spec.SIZES[args.size],
        model=args.model,
        task=args.task,
        families=args.parameterization or spec.FRONTIER,
        ranks=args.rank,
        budgets=args.budget,
        layout=args.layout,
        projections=args.projections,
        seeds=args.seeds,
        lr=args.lr,
        steps=args.steps,
    )
    rates = "as given" if args.lr is not None else run_frontier.TUNED
    try:
        outcome = run_frontier.run_frontier(configs, args.out, args.device, print, rates)
    except KeyboardInterrupt:
        done = len(run_frontier.draw(configs, args.out, rates))
        print(
            f"\nstopped: {done} of {len(configs)} runs are finished in {args.out}; the same command goes on from there",
            file=sys.stderr,
        )
        return 1
    _print_table(run_frontier.rows(outcome.runs))
    print(f"{len(outcome.runs)} of {outcome.total} runs; figure, table and runs are in {args.out}")
    if outcome.elsewhere:
        print(f"{outcome.elsewhere} runs are being computed by another process in the same folder")
    return 0 if len(outcome.runs) == outcome.total else 1


def _print_table(rows: Sequence[tuple[str, ...]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    for i, name in enumerate(rows[0]):
        table.add_column(name, justify="left" if i == 0 else "right", no_wrap=True)
    for row in rows[1:]:
        table.add_row(*row)
    console = Console()
    # a file or pipe has no width to keep to
    (console if console.is_terminal else Console(width=140)).print(table)


def _plan(args: argparse.Namespace) -> int:
    import tensoradapt as ta
    from tensoradapt.data import models

    config = models.config(args.model)
    sites = (
        ta.find_sites(config, args.projections[0] if len(args.projections) == 1 else args.projections)
        if args.projections
        else config
    )
    print(
        ta.plan(
            sites,
            args.layout,
            args.parameterization,
            args.rank,
            published=args.published,
            budget=args.budget,
            on_mismatch=args.on_mismatch,
            tasks=args.tasks,
        )
    )
    return 0


def _methods(args: argparse.Namespace) -> int:
    from tensoradapt import methods_page, published
    from tensoradapt.data import models

    if args.markdown:
        print(methods_page.text(), end="")
        return 0
    if args.model is not None:
        config = models.config(args.model)
        print(
            "\n".join(
                align([("name", f"parameters at rank {args.rank}"), *map(_counted(config, args.rank), published.ROWS)])
            )
        )
        return 0
    print(published.LETTERS)
    for row in published.ROWS:
        layouts = "; ".join(f"{text}  ({' '.join(projections)})" for text, projections in row.tensors)
        print(f"\n{row.name}: {row.parameterization} over {layouts}")
        print(f"  parameters {row.formula}; start {row.start}; scale {row.scale}, alpha {row.alpha:g}")
        print(f"  {row.source}" + (f"\n  {row.note}" if row.note else ""))
    return 0


def _counted(config: Any, rank: int) -> Callable[[Any], tuple[str, str]]:
    """A row's count at a model's sizes, or why it has none."""
    import tensoradapt as ta

    def of(row: Any) -> tuple[str, str]:
        tasks = ("a", "b") if any("task" in text for text in row.layout) else ()
        try:
            plan = ta.plan(config, published=row.name, rank=rank, tasks=tasks)
        except TensorAdaptError as error:
            return row.name, f"- ({error})"
        return row.name, f"{plan.n_params:,}" + (" (2 tasks)" if tasks else "")

    return of


if __name__ == "__main__":
    sys.exit(main())
