"""Command line: thin. Exit code 0: done; 1: stopped or incomplete; 2: bad input."""

from __future__ import annotations

import argparse
import os
import sys
import textwrap
from collections.abc import Sequence

from tensoradapt.cli import compress, export, figures, sweep
from tensoradapt.cli.frontier import _frontier_options
from tensoradapt.cli.methods import _methods
from tensoradapt.cli.options import DEFAULT_OUT
from tensoradapt.cli.plan import _plan_options
from tensoradapt.errors import TensorAdaptError


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


if __name__ == "__main__":
    sys.exit(main())
