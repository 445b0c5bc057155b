"""The command line. Exit code 0: done; 1: stopped or incomplete; 2: bad input."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

from tensoradapt import __version__
from tensoradapt.checks import shown
from tensoradapt.errors import TensorAdaptError
from tensoradapt.files import reason
from tensoradapt.lab.cli import doctor
from tensoradapt.lab.cli.output import block, complain, drop_output, flush, write_out_what_lacks
from tensoradapt.lab.cli.parser import Top, add_shared, words_of


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; an error is printed as one block, with ``--debug`` as a traceback."""
    # set before torch is loaded: spinning threads slow every step on a shared machine; tokenizers warn when forked
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ["MPLBACKEND"] = "agg"  # figures are drawn into files, whatever the terminal's own is
    debug = False
    try:
        write_out_what_lacks()
        try:
            args = parser(argv).parse_args(argv)
            debug = args.debug
            if args.verbose:
                os.environ["TENSORADAPT_VERBOSE"] = "1"
            return args.command(args)
        finally:  # help is printed, and a broken pipe met, as well where the parser exits
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
    if isinstance(error, OSError) and error.errno is not None:  # others, of libraries, say all themselves
        if error.filename is None:  # the output has no name: its disk is full
            drop_output()
        return f"{shown(error.filename or 'standard output')}: {reason(error)}"
    return str(error)


def parser(argv: Sequence[str] | None = None) -> Top:
    """Return the parser of all commands, or of ``doctor`` alone if ``argv`` calls it: it must run without packages."""
    top = Top(
        prog="tensoradapt",
        usage="%(prog)s COMMAND [options]",
        description="Tensor-decomposition adapters for transformers.",
    )
    top.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    for title, module in _groups(words_of(argv)[:1]):
        before = set(top.commands.choices)
        module.add_parsers(top.commands)
        top.sections.setdefault(title, []).extend(name for name in top.commands.choices if name not in before)
    for command in top.commands.choices.values():
        add_shared(command)
    return top


def _groups(first: Sequence[str]) -> Sequence[tuple[str, Any]]:
    """Return the modules of commands, each with what its commands are for."""
    others: list[tuple[str, Any]] = [("installation", doctor)]
    if first == ["doctor"]:
        return others
    try:
        from tensoradapt.lab.cli import adapters, catalogue, choose, completion, methods, results, sweep
    except ImportError as error:
        raise TensorAdaptError(f"the commands cannot be loaded ({error}): run tensoradapt doctor") from None
    runs = [("make runs", sweep), ("make runs", catalogue), ("read runs", results)]
    one = [("plan and convert adapters", module) for module in (methods, choose, adapters)]
    return [*runs, *one, *others, (others[0][0], completion)]


if __name__ == "__main__":
    sys.exit(main())
