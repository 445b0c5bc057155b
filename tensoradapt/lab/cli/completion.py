"""The command ``completion``: a script that completes commands, options, names and paths in a shell."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from typing import Any

from tensoradapt.checks import shown
from tensoradapt.errors import TensorAdaptError, did_you_mean
from tensoradapt.lab.cli.options import path
from tensoradapt.lab.cli.output import show_json
from tensoradapt.lab.cli.parser import add_command

SHELLS = {
    "bash": 'add the line eval "$(tensoradapt completion bash)" to ~/.bashrc',
    "zsh": "tensoradapt completion zsh > ~/.zfunc/_tensoradapt, a folder of fpath",
    "fish": "tensoradapt completion fish > ~/.config/fish/completions/tensoradapt.fish",
}


def add_parsers(commands: Any) -> None:
    """Add the command to those of a parser (``add_subparsers``)."""
    p = add_command(
        commands,
        "completion",
        completion,
        f"print a script that completes commands in {', '.join(SHELLS)}",
        "SHELL",
        " ".join(f"{shell}: {how}." for shell, how in SHELLS.items()),
    )
    p.add_argument("shell", metavar="SHELL", help=" or ".join(SHELLS))


def completion(args: argparse.Namespace) -> int:
    """Print the script of a shell."""
    import shtab

    from tensoradapt.lab.cli.main import parser

    if args.shell not in SHELLS:
        raise TensorAdaptError(f"the shell is {shown(args.shell)}{did_you_mean(args.shell, SHELLS)}")
    top = parser([])
    for command in top.commands.choices.values():
        for action in command._actions:
            _complete(action, shtab.DIRECTORY if action.metavar == "DIR" else shtab.FILE)
    script = shtab.complete(top, shell=args.shell)
    if args.json:
        show_json({"shell": args.shell, "script": script})
    else:
        print(script)
    return 0


def _complete(action: Any, files: Any) -> None:
    """Let an argument be completed with the names that it takes, or with files."""
    if names := _names(action.dest):
        action.choices = names
    elif action.type is path:
        action.complete = files


def _names(argument: str) -> list[str]:
    """Return the names that an argument of that name takes; an empty list for one that takes others."""
    from tensoradapt.lab.analysis import plots
    from tensoradapt.lab.choose import PURPOSES
    from tensoradapt.lab.data import models
    from tensoradapt.lab.tasks import registry
    from tensoradapt.published.registry import names

    known: dict[str, Callable[[], Iterable[str]]] = {
        "method": names,
        "name": names,
        "reference": names,
        "model": models.names,
        "task": registry.names,
        "figures": lambda: (*plots.NAMES, "all"),
        "shell": lambda: SHELLS,
        "purpose": lambda: PURPOSES,
    }
    return list(known[argument]()) if argument in known else []
