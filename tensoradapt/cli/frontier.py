"""`tensoradapt frontier`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tensoradapt.cli.options import DEFAULT_OUT, PROJECTIONS
from tensoradapt.sweeps import presets


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


def _frontier(args: argparse.Namespace) -> int:
    from tensoradapt.sweeps import run_frontier

    configs = presets.frontier_configs(
        presets.SIZES[args.size],
        model=args.model,
        task=args.task,
        families=args.parameterization or presets.FRONTIER,
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
