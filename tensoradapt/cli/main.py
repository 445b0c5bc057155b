"""The command line. Exit code 0: done; 1: stopped or incomplete; 2: bad input."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from tensoradapt import __version__
from tensoradapt.checks import shown
from tensoradapt.cli import doctor
from tensoradapt.cli.output import block, complain, drop_output, flush, one_line, write_out_what_lacks
from tensoradapt.errors import TensorAdaptError
from tensoradapt.files import reason


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; an error is printed as one block, with ``--debug`` as a traceback."""
    # set before torch is loaded: spinning threads slow every step on a shared machine; tokenizers warn when forked
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    debug = False
    try:
        write_out_what_lacks()
        args = parser(argv).parse_args(argv)
        debug = args.debug
        if args.verbose:
            os.environ["TENSORADAPT_VERBOSE"] = "1"
        try:
            return args.command(args)
        finally:
            flush()
    except BrokenPipeError:  # the reader of a pipe, such as head, has closed it
        drop_output()
        return 1
    except KeyboardInterrupt:
        complain("stopped")
        return 1
    except (TensorAdaptError, OSError, MemoryError) as error:  # OSError for paths that no system call takes
        if debug:
            raise
        complain(block(error_text(error)))
        return 2


def error_text(error: Exception) -> str:
    """Return a line that says what went wrong."""
    if isinstance(error, MemoryError):
        return "the memory does not suffice; expected a smaller model, rank or folder"
    if isinstance(error, OSError):
        if error.filename is None:  # the output has no name: its disk is full
            drop_output()
        return f"{shown(error.filename or 'standard output')}: {reason(error)}"
    return str(error)


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, whatever was given."""

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse the arguments; ``--option=--``, which argparse reads as an empty list for every option, is refused."""
        for word in sys.argv[1:] if args is None else args:
            if word.startswith("--") and word.endswith("=--"):
                self.error(f"argument {word[:-3]}: expected a value, and -- is none")
        return super().parse_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Print usage and error, and exit with code 2."""
        self.exit(2, f"{self.format_usage()}{self.prog}: error: {one_line(message)}\n")


def parser(argv: Sequence[str] | None = None) -> argparse.ArgumentParser:
    """Return the parser of all commands, or of ``doctor`` alone if ``argv`` calls it: it must run without packages."""
    first = (sys.argv[1:] if argv is None else argv)[:1]
    top = Parser(prog="tensoradapt", description="Tensor-decomposition adapters for transformers.")
    top.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    for group in [] if first == ["doctor"] else _groups():
        group.add_parsers(commands)
    doctor.add_parsers(commands)
    for command in commands.choices.values():
        command.add_argument("--debug", action="store_true", help="show the traceback of an error")
        command.add_argument("-v", "--verbose", action="store_true", help="show the warnings of libraries too")
    return top


def _groups() -> Sequence[Any]:
    try:
        from tensoradapt.cli import adapters, methods, results, sweep
    except ImportError as error:
        raise TensorAdaptError(f"the commands cannot be loaded ({error}): run tensoradapt doctor") from None
    return sweep, results, adapters, methods


if __name__ == "__main__":
    sys.exit(main())
