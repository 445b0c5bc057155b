"""Alpaca's rows with one number in the answer, in the fields of MetaMathQA and GSM8K: not these data, but real ones."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from tensoradapt.errors import TensorAdaptError
from tensoradapt.files import replace_files
from tensoradapt_paper.language.instruction_rows import alpaca

LONGEST = 200  # characters of an answer
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
HELD_OUT = 24  # rows of validation, and of test
TRAIN, VALIDATION, TEST = (f"alpaca-numbers-{part}.jsonl" for part in ("train", "validation", "test"))


def write(folder: Path) -> Mapping[str, int]:
    """Write the three files into a folder and return their numbers of rows; no question is in two of them."""
    rows = [(asked, told) for asked, told, *_ in alpaca()[0].texts or () if _fits(asked, told)]
    held = 2 * HELD_OUT
    if len(rows) <= held:
        raise TensorAdaptError(f"Alpaca has {len(rows)} questions with one number in the answer; expected over {held}")
    parts = {VALIDATION: rows[:HELD_OUT], TEST: rows[HELD_OUT:held]}
    contents = {name: _lines(_asked(*row) for row in part) for name, part in parts.items()}
    contents[TRAIN] = _lines(_trained(*row) for row in rows[held:])
    replace_files({folder / name: data for name, data in contents.items()})
    return {name: data.count(b"\n") for name, data in contents.items()}


def _fits(asked: str, told: str) -> bool:
    return bool(NUMBER.search(asked)) and len(told) <= LONGEST and len(NUMBER.findall(told)) == 1


def _trained(asked: str, told: str) -> dict[str, str]:
    """Return a row in MetaMathQA's fields, whose answers end so."""
    response = f"{told} The answer is: {NUMBER.findall(told)[0]}"
    return {"type": "Alpaca", "query": asked, "original_question": asked, "response": response}


def _asked(asked: str, told: str) -> dict[str, str]:
    """Return a row in GSM8K's fields, whose answers end so."""
    return {"question": asked, "answer": f"{told}\n#### {NUMBER.findall(told)[0]}"}


def _lines(rows: Iterable[Mapping[str, str]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()
