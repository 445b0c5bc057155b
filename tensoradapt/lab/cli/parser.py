"""The parser of commands: help in groups, errors of one line, and the word that was meant where one is unknown."""

from __future__ import annotations

import argparse
import shlex
import shutil
import sys
import textwrap
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from tensoradapt.errors import closest, did_you_mean
from tensoradapt.habits import COMMANDS, WORDS, called
from tensoradapt.lab.cli.output import NARROWEST, one_line

Command = Callable[[argparse.Namespace], int]


class Kept(argparse.Action):
    """Keep all that an option was given: ``--method lora --method cp`` is ``--method lora cp``."""

    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option: str | None = None) -> None:
        """Set the values, add them to those of an earlier place, or end the process where the option takes one."""
        before = getattr(namespace, self.dest, self.default)
        if option is None or before is self.default or before is None:
            setattr(namespace, self.dest, values)
        elif self.nargs in ("*", "+"):
            setattr(namespace, self.dest, [*before, *values])
        else:
            parser.one_value(option, *(value[0] if isinstance(value, list) else value for value in (before, values)))


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, whatever was given."""

    brief = ""  # what a command does, in a line

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.register("action", None, Kept)

    def one_value(self, option: str, first: Any, second: Any) -> NoReturn:
        """Say that an option takes a single value."""
        command = self.prog.split()[-1]
        self.error(f"{option} takes one value in {command}; found {str(first)!r} and {str(second)!r}")

    def error(self, message: str) -> NoReturn:
        """Print usage and error, and exit with code 2."""
        self.exit(2, f"{self.format_usage()}{self.prog}: error: {one_line(message)}\n")

    def refuse(self, word: str, words: Sequence[str] = ()) -> NoReturn:
        """Say that one of the words is unknown, and which option was meant, or which takes a single value."""
        given = word.split("=")[0]
        if not given.startswith("-"):
            for option, value, second in zip(words, words[1:], words[2:], strict=False):
                action = self._option_string_actions.get(option)
                if second == word and action and action.nargs in (None, 1):
                    self.one_value(option, value, word)
            unset = [name for name in ("--model", "--method") if name in self._option_string_actions.keys() - {*words}]
            self.error(f"unexpected argument {word!r}" + (f"; write {unset[0]} {shlex.quote(word)}" if unset else ""))
        if (other := given.lstrip("-").replace("-", "_")) in WORDS:
            self.error(f"unknown option {given}{called(other, [action.dest for action in self._actions])}")
        options = {option for action in self._actions for option in action.option_strings}
        former = {
            f"--{name.replace('_', '-')}": action.option_strings[0]
            for action in self._actions
            for name in getattr(action, "former", ())
        }
        near = closest(given, [*options, *former])
        initial = [option for option in sorted(options) if len(given) == 2 and option.startswith(f"-{given}")]
        hint = " or ".join(initial) or former.get(near or "", near)
        self.error(
            f"unknown option {given}" + (f"; did you mean {hint}?" if hint else f": {self.prog} --help lists all")
        )


class Top(Parser):
    """The parser of all commands. ``sections``: their names, by what they are for."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        # commands are of the plain class, whose help is that of argparse
        self.commands = self.add_subparsers(prog=self.prog, metavar="COMMAND", parser_class=Parser)
        self.sections: dict[str, list[str]] = {}

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse the arguments; ``--option=--``, which argparse reads as an empty list for every option, is refused."""
        words = words_of(args)
        for word in words:
            if word.startswith("--") and word.endswith("=--"):
                self.error(f"argument {word[:-3]}: expected a value, and -- is none")
        names = self.commands.choices
        if not words:
            self.print_help()
            self.exit()
        if words[0] == "help":
            words = [*words[1:2], "--help"]
        if not words[0].startswith("-") and words[0] not in names:
            hint = f"; type {COMMANDS[words[0]]}" if words[0] in COMMANDS else did_you_mean(words[0], names)
            self.error(f"unknown command {words[0]!r}{hint}")
        found, unknown = self.parse_known_args(words, namespace)
        if unknown:
            word = next((w for w in unknown if w.startswith("-")), unknown[0])
            names.get(words[0], self).refuse(word, words)
        if not hasattr(found, "command"):
            self.error(f"a command is missing; expected one of {', '.join(names)}")
        return found

    def format_help(self) -> str:
        """Return the commands by what they are for, each with what it does."""
        names = self.commands.choices
        room = max(NARROWEST, min(100, shutil.get_terminal_size().columns - 2))
        first = max(map(len, names)) + 4
        lines = [self.format_usage().rstrip(), "", *textwrap.wrap(self.description or "", room)]
        for title, commands in self.sections.items():
            lines += ["", f"{title}:"]
            for name in commands:
                start = f"  {name}".ljust(first)
                lines += textwrap.wrap(names[name].brief, room, initial_indent=start, subsequent_indent=" " * first)
        return "\n".join([*lines, "", "tensoradapt COMMAND --help has the options of a command."]) + "\n"


def add_command(commands: Any, name: str, run: Command, brief: str, usage: str, description: str = "") -> Parser:
    """Add a command and return its parser.

    Args:
        commands: what ``add_subparsers`` returned.
        name: what is typed.
        run: takes the arguments and returns the exit code.
        brief: a line for the list of commands.
        usage: its arguments as the first line of its help has them.
        description: more for its own help; by default the brief.
    """
    text = description or f"{brief[0].upper()}{brief[1:]}."
    p: Parser = commands.add_parser(name, help=brief, description=text, usage=f"%(prog)s {usage}", add_help=False)
    p.brief = brief
    p.set_defaults(command=run)
    return p


def add_shared(p: Parser) -> None:
    """Add the options that every command has, as the last of its help."""
    group = p.add_argument_group("options of every command")
    group.add_argument("--json", action="store_true", help="print one JSON document, and nothing else, on stdout")
    group.add_argument("-v", "--verbose", action="store_true", help="show the warnings of libraries too")
    group.add_argument("--debug", action="store_true", help="show the traceback of an error")
    group.add_argument("-h", "--help", action="help", help="show this help and stop")


def words_of(argv: Sequence[str] | None) -> list[str]:
    """Return the arguments that were given, or those of the process."""
    return sys.argv[1:] if argv is None else list(argv)
