"""Write a record as a person would, in a TOML file or on a command line, for tests that read it back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from cyclopts import App

from tensoradapt.lab.cli.options import MORE, table_of, takes
from tensoradapt.records import as_json, changed, names, of_words, toml_of


def to_toml(record: Any) -> str:
    """A record as lines of TOML: the fields that differ from their defaults."""
    return toml_of(as_json(changed(record)))


def to_words(record: Any) -> list[str]:
    """A record as words of a command line: ``--rank 8`` for each field that differs from its default.

    A text that would be read as something else is in quotation marks.
    """
    words: list[str] = []
    for name, item in as_json(changed(record)).items():
        words.append("--" + name.replace("_", "-"))
        pairs = [f"{key}={_word(each)}" for key, each in item.items()] if isinstance(item, Mapping) else []
        if pairs and of_words(pairs) == item:
            words += pairs
        elif item is not True:
            words += map(_word, item if isinstance(item, list) else [item])
    return words


def _word(item: Any) -> str:
    if isinstance(item, str) and not item.startswith("-") and of_words([item]) == item:
        return item
    return json.dumps(item, ensure_ascii=False)


def from_words(kind: Any, words: Sequence[str]) -> dict[str, Any]:
    """The fields of a record that words of a command line give, as the table that ``read`` takes."""
    return _app(kind)(words, exit_on_error=False, print_error=False)


@cache
def _app(kind: Any) -> App:
    @takes((kind, names(kind), MORE))
    def command(**typed: Any) -> dict[str, Any]:
        return table_of(kind, typed)

    return App(default_command=command, result_action="return_value")
