"""Rows of Alpaca and of LLM-Adapters' questions: read, checked field by field, and without repeated ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from tensoradapt.errors import TensorAdaptError
from tensoradapt.files import parse_json, read_bounded
from tensoradapt.tasks import places
from tensoradapt.tasks.splits import Split

ALPACA, HUB = "instruct/alpaca_5000.json", "tatsu-lab/alpaca"
QUESTIONS = {  # LLM-Adapters' test rows, by the metric that they give
    "boolq": "reasoning/boolq/test.json",
    "arc_easy": "reasoning/ARC-Easy/test.json",
    "openbookqa": "reasoning/openbookqa/test.json",
}
ANSWER, FORMAT = "the correct answer is {}", "Answer format: "  # as the rows write them
MOST_OPTIONS = 5
Row = tuple[str, ...]  # a prompt and its options; one of Alpaca has one, its answer


@lru_cache(maxsize=4)
def _read(path: Path) -> Any:
    return parse_json(read_bounded(path, "and no data of this task has as many"), path, "copy the file again")


def alpaca() -> tuple[Split, tuple[str, ...]]:
    """Prompts with their answers, and notes on the rows that were left out."""
    path = places.local(ALPACA)
    here = path if path and path.is_file() else None
    where, rows = str(here or HUB), _read(here) if here else _online(path)
    named = {f"alpaca-{number}": _instruction(row, f"{where}, row {number}") for number, row in _numbered(rows, where)}
    kept = {name: texts for name, texts in named.items() if all(texts)}
    empty = len(named) - len(kept)
    notes = (f"from {where}", f"{empty} alpaca rows removed: their instruction or answer is empty" if empty else "")
    return _distinct("alpaca", kept, dict.fromkeys(kept, 0), notes)


def questions(kind: str) -> tuple[Split, tuple[str, ...]]:
    """Questions with their options, and notes on those that were left out; none where their file is missing."""
    path = places.local(QUESTIONS[kind])
    if not path or not path.is_file():
        return _split({}, {}), (f"{kind} is left out: TENSORADAPT_DATA has no {QUESTIONS[kind]}",)
    named, right = {}, {}
    for number, row in _numbered(_read(path), str(path)):
        named[f"{kind}-{number}"], right[f"{kind}-{number}"] = _options(row, f"{path}, row {number}")
    return _distinct(kind, named, right, ())


def _online(path: Path | None) -> Any:
    holding = f"{ALPACA}, rows of instruction, input and output"
    load = partial(places.from_hub, "alpaca", HUB)
    return list(places.online(load, "alpaca", places.missing(path), holding)["train"])


def _numbered(rows: Any, where: str) -> Iterator[tuple[int, Any]]:
    if not isinstance(rows, list):
        raise TensorAdaptError(f"{where} holds a {type(rows).__name__}; expected a list of rows")
    return enumerate(rows)


def _fields(row: Any, names: Sequence[str], where: str) -> list[str]:
    """The texts of a row's fields, without space around them."""
    for name in names:
        if not isinstance(row, Mapping) or not isinstance(row.get(name), str):
            found = f"{name!r} is {row[name]!r:.40}" if isinstance(row, Mapping) and name in row else f"no {name!r}"
            raise TensorAdaptError(f"{where}: {found}; expected texts {', '.join(names)}: mend the row, or remove it")
    return [row[name].strip() for name in names]


def _instruction(row: Any, where: str) -> Row:
    instruction, given, output = _fields(row, ("instruction", "input", "output"), where)
    return (f"{instruction}\n\n{given}" if instruction and given else instruction), output


def _options(row: Any, where: str) -> tuple[Row, int]:
    """A question with its options, and the place of the right one."""
    asked, answer = _fields(row, ("instruction", "answer"), where)
    names = asked.rpartition(FORMAT)[2].split("/") if FORMAT in asked else []
    if not 2 <= len(names) <= MOST_OPTIONS or answer not in names:
        raise TensorAdaptError(
            f"{where}: the answer is {answer!r} and its options {', '.join(names) or 'are not said'}; expected one of "
            f'2 to {MOST_OPTIONS}, as in "{FORMAT}true/false" at the end of the instruction'
        )
    return (asked, *map(ANSWER.format, names)), names.index(answer)


def _distinct(
    kind: str, named: Mapping[str, Row], right: Mapping[str, int], notes: tuple[str, ...]
) -> tuple[Split, tuple[str, ...]]:
    """The rows without repeated ones, which may differ in case and white space, and notes that are not empty."""
    seen: Counter[Row] = Counter()
    kept = {}
    for name, texts in named.items():
        key = tuple(" ".join(text.casefold().split()) for text in texts)
        seen[key] += 1
        if seen[key] == 1:
            kept[name] = texts
    again = len(named) - len(kept)
    said = (*notes, f"{again} {kind} rows removed: repeated" if again else "")
    return _split(kept, right), tuple(note for note in said if note)


def _split(named: Mapping[str, Row], right: Mapping[str, int]) -> Split:
    return Split(tuple(named.values()), np.array([right[name] for name in named], dtype=np.int64), tuple(named))
