"""The command line. Exit code 0: done; 1: stopped or incomplete; 2: bad input."""

from __future__ import annotations

import os
import shlex
import sys
import tomllib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from cyclopts import App, Group, Parameter
from cyclopts.exceptions import (
    CoercionError,
    CycloptsError,
    MissingArgumentError,
    RepeatArgumentError,
    UnknownCommandError,
    UnknownOptionError,
    UnusedCliTokensError,
)
from cyclopts.help import DefaultFormatter

from tensoradapt import __version__
from tensoradapt.checks import shown
from tensoradapt.errors import TensorAdaptError, closest, did_you_mean
from tensoradapt.files import reason
from tensoradapt.habits import COMMANDS, WORDS, called
from tensoradapt.lab.cli.output import block, complain, drop_output, write_out_what_lacks

TABLE: Mapping[str, dict[str, str]] = tomllib.loads((files("tensoradapt.lab.cli") / "commands.toml").read_text())
START = """
tensoradapt frontier --quick                            first runs, 3 minutes
tensoradapt results                                     what they say
tensoradapt methods                                     which methods there are
tensoradapt plan --method cp --rank 8                   what an adapter would be
"""
LAST = (
    "Every command: --json, --help, --help-all (more options), --verbose (warnings of libraries), --debug (tracebacks)."
)
KINDS: Mapping[Any, str] = {int: "a whole number", float: "a number"}
ADVANCED = "Advanced"  # groups whose names begin so are in the help of --help-all alone


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; an error is printed as one block, with ``--debug`` as a traceback."""
    # set before torch is loaded: spinning threads slow every step on a shared machine; tokenizers warn when forked
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ["MPLBACKEND"] = "agg"  # figures are drawn into files, whatever the terminal's own is
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        write_out_what_lacks()
        return run(words)
    except BrokenPipeError:  # the reader of a pipe, such as head, has closed it
        drop_output()
        return 1
    except KeyboardInterrupt:
        complain("stopped")
        return 1
    except CycloptsError as error:
        complain(block(refusal(error, words)))
        return 2
    except (TensorAdaptError, OSError, MemoryError) as error:  # OSError for paths that no system call takes
        if "--debug" in words:
            raise
        complain(block(error_text(error)))
        return 2


def run(words: Sequence[str]) -> int:
    """Run one command and return its exit code."""
    if not {"-v", "--verbose"}.isdisjoint(words):
        os.environ["TENSORADAPT_VERBOSE"] = "1"
    every = "--help-all" in words
    asked = ["--help" if word == "--help-all" else word for word in words if word not in ("-v", "--verbose", "--debug")]
    if asked[:1] == ["help"]:
        asked = [*asked[1:2], "--help"]
    try:
        code = app(every)(asked, exit_on_error=False, print_error=False)
    except ImportError as error:
        raise TensorAdaptError(
            f"the command cannot be loaded ({error.__cause__ or error}): run tensoradapt doctor"
        ) from None
    finally:  # a failure to write is met here, and not as the interpreter ends
        if sys.stdout is not None:
            sys.stdout.flush()
    return code or 0


class Help(DefaultFormatter):
    """Help whose advanced options are shown where all are asked for."""

    every = False

    def __call__(self, console: Any, options: Any, panel: Any) -> None:
        """Print one group of options."""
        if self.every or not str(panel.title).startswith(ADVANCED):
            super().__call__(console, options, panel)


def app(every: bool = False) -> App:
    """Return the application, whose commands are loaded when they are called. ``every``: help has advanced options."""
    formatter = Help()
    formatter.every = every
    top = App(
        name="tensoradapt",
        version=f"tensoradapt {__version__}",
        help="Tensor-decomposition adapters for transformers.",
        help_prologue=START.strip(),
        help_epilogue=LAST,
        help_format="plaintext",
        help_formatter=formatter,
        result_action="return_value",
        suppress_keyboard_interrupt=False,  # main says in a line that it stopped
        default_parameter=Parameter(
            negative="", json_list=False, json_dict=False, show_default=lambda value: str(value or "") or None
        ),
    )
    for flag in ("--help", "--version"):
        top[flag].show = False
    groups = {
        title: Group(title, sort_key=i) for i, title in enumerate(dict.fromkeys(c["group"] for c in TABLE.values()))
    }
    for i, (name, command) in enumerate(TABLE.items()):
        top.command(
            f"tensoradapt.lab.cli.{command['at']}",
            name=name,
            group=groups[command["group"]],
            sort_key=i,
            help="\n\n".join(filter(None, (command["help"], command.get("more")))),
            help_prologue=command["examples"].strip(),
        )
    return top


def refusal(error: CycloptsError, words: Sequence[str]) -> str:
    """Return a line that says which word was refused, what was expected, and what to type."""
    name = next((word for word in words if word != "help"), words[0])
    command = f"tensoradapt {name}" if name in TABLE else "tensoradapt"
    error.verbose = False
    match error:
        case UnknownCommandError() if name.startswith("-"):
            return f"unknown option {name} before a command; expected tensoradapt COMMAND {name}, --version or --help"
        case UnknownCommandError():
            known = f"; type {COMMANDS[name]}" if name in COMMANDS else did_you_mean(name, TABLE)
            return f"unknown command {name!r}{known}"
        case UnknownOptionError():
            names = [option for argument in error.argument_collection for option in argument.names]
            return _unknown_option((error.token.keyword or error.token.value).partition("=")[0], names, command)
        case UnusedCliTokensError():
            word = (error.unused_tokens or [""])[0]
            method = name in ("plan", "frontier") and "--method" not in words
            hint = f"write --method {shlex.quote(word)}" if method else f"{command} --help has what it takes"
            return f"unexpected argument {word!r}; {hint}"
        case CoercionError() if error.token is not None and (kind := KINDS.get(error.target_type)):
            if isinstance(error.__cause__, TensorAdaptError):
                return str(error.__cause__)
            return f"{error.token.keyword} is {shown(error.token.value)}; expected {kind}"
        case RepeatArgumentError():
            return f"{error.token.keyword} takes one value in {name}; found several"
        case MissingArgumentError() if error.argument is not None:
            option = error.keyword or error.argument.name
            return f"{option} {'has no value' if error.keyword else 'is missing'}; expected one: {_help(name, option)}"
    return str(error)


def _help(command: str, option: str) -> str:
    """Return what help says of an option of a command."""
    arguments = app()[command].assemble_argument_collection(parse_docstring=True)
    texts = {name: argument.parameter.help for argument in arguments for name in argument.names}
    return texts.get(option) or ""


def _unknown_option(word: str, names: Sequence[str], command: str) -> str:
    """Say which option was meant: what it is called here, or else the closest."""
    from tensoradapt.lab.cli.options import FORMER

    bare = word.lstrip("-").replace("-", "_")
    if bare in WORDS:
        return f"unknown option {word}{called(bare, [name.lstrip('-').replace('-', '_') for name in names])}"
    former = {f"--{old.replace('_', '-')}": f"--{new.replace('_', '-')}" for old, new in FORMER.items()}
    near = closest(word, [*names, *(old for old, new in former.items() if new in names)])
    hint = f"; did you mean {former.get(near, near)}?" if near else f": {command} --help-all lists all"
    return f"unknown option {word}{hint}"


def error_text(error: Exception) -> str:
    """Return a line that says what went wrong."""
    if isinstance(error, MemoryError):
        return "the memory does not suffice; expected a smaller model, rank or folder"
    if isinstance(error, OSError) and error.errno is not None:  # others, of libraries, say all themselves
        if error.filename is None:  # the output has no name: its disk is full
            drop_output()
        return f"{shown(error.filename or 'standard output')}: {reason(error)}"
    return str(error)


if __name__ == "__main__":
    sys.exit(main())
