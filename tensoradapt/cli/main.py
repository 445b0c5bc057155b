"""The command line. Exit code 0: done; 1: stopped or incomplete; 2: bad input."""

from __future__ import annotations

import argparse
import os
import sys
import textwrap
from collections.abc import Sequence

from tensoradapt import __version__
from tensoradapt.checks import shown
from tensoradapt.cli import adapters, results, sweep
from tensoradapt.errors import TensorAdaptError
from tensoradapt.files import reason


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; an error is printed as one block, with ``--debug`` as a traceback."""
    # set before torch is loaded: spinning threads slow every step on a shared machine; tokenizers warn when forked
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    args = parser().parse_args(argv)
    try:
        return args.command(args)
    except BrokenPipeError:  # the reader of a pipe, such as head, has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 1
    except (TensorAdaptError, OSError) as error:  # the latter for paths that no system call takes
        if args.debug:
            raise
        width = min(100, os.get_terminal_size().columns if sys.stderr.isatty() else 100)
        text = str(error) if isinstance(error, TensorAdaptError) else f"{shown(error.filename)}: {reason(error)}"
        print(textwrap.fill(f"error: {text}", width, subsequent_indent="  ", break_on_hyphens=False), file=sys.stderr)
        return 2


def parser() -> argparse.ArgumentParser:
    """All commands and options."""
    top = argparse.ArgumentParser(prog="tensoradapt", description="Tensor-decomposition adapters for transformers.")
    top.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    for group in (sweep, results, adapters):
        group.add_parsers(commands)
    for command in commands.choices.values():
        command.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return top


if __name__ == "__main__":
    sys.exit(main())
