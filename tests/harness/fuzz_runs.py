"""Inputs of the surfaces one after another: how each ended, counts, and the corpus of those that escaped."""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from harness.fuzz_calls import ACCEPTED, REFUSED, SLOWEST, verdict
from harness.fuzz_surfaces import SURFACES, grounds

CORPUS = Path(__file__).parent / "corpus.jsonl"
PATIENCE = 60  # seconds by the clock, as the machine may be shared; of the processor's time SLOWEST are allowed


def drawn(surface: str, seed: int, number: int) -> Any:
    """Input ``number`` of a surface, as its JSON value."""
    return SURFACES[surface].draw(np.random.default_rng([seed, number]), grounds(surface))


def tried(surface: str, value: Any) -> str:
    """How an input ended: accepted, refused, or what is wrong."""
    folder = grounds(surface)
    before, began = listed(folder), time.process_time()
    ended = verdict(lambda: SURFACES[surface].call(value, folder), PATIENCE, strict=True)
    if time.process_time() - began > SLOWEST:
        return f"over {SLOWEST} s"
    if (after := listed(folder)) != before:
        return f"left {sorted(after ^ before)[0]}"
    return ended


def listed(folder: Path) -> set[str]:
    """Every file and folder below a folder."""
    return {os.path.join(where, name) for where, inner, files in os.walk(folder) for name in (*inner, *files)}  # noqa: PTH118


@dataclass
class Count:
    """What came of the inputs of one surface; ``escapes``: an input of each kind."""

    ended: Counter[str] = field(default_factory=Counter)
    escapes: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def n_escapes(self) -> int:
        return self.ended.total() - self.ended[ACCEPTED] - self.ended[REFUSED]


def run(surface: str, n: int, seed: int, minutes: float, say: Callable[[str], None]) -> Count:
    """Try ``n`` inputs of a surface, or as many as the minutes allow."""
    count, began = Count(), time.monotonic()
    for number in range(n):
        if time.monotonic() - began > minutes * 60:
            break
        value = drawn(surface, seed, number)
        ended = tried(surface, value)
        count.ended[ended] += 1
        if ended not in (ACCEPTED, REFUSED) and kind(ended) not in count.escapes:
            count.escapes[kind(ended)] = value
            say(f"{surface}, input {number} of seed {seed}: {ended}; kept in {keep(surface, value, ended)}")
    count.seconds = time.monotonic() - began
    return count


def kind(ended: str) -> str:
    """What tells escapes apart: the first words, without numbers of the input."""
    return re.sub(r"\d+", "", ended)[:60]


def keep(surface: str, value: Any, ended: str) -> str:
    """Add an input to the corpus, which a fast test replays; return its name."""
    text = json.dumps({"surface": surface, "escaped": ended, "input": value})
    with CORPUS.open("a") as file:
        file.write(text + "\n")
    return named(surface, text)


def named(surface: str, text: str) -> str:
    """The name of a line of the corpus."""
    return f"{surface.replace(' ', '-')}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def corpus() -> Iterator[tuple[str, Callable[[], str]]]:
    """The name of each line of the corpus, and a call that tries its input again."""
    for line in CORPUS.read_text().splitlines():
        record = json.loads(line)
        yield named(record["surface"], line), partial(tried, record["surface"], record["input"])
