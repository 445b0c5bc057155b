"""Fuzz all surfaces, print what came of the inputs, and keep those that escape: ``python tests/harness/fuzz.py``.

An input ends well if it is accepted, or refused by one TensorAdaptError. All else is an escape: another exception, a
warning, more than five seconds, a file left behind. Exit code 1 if there was one; tests/harness/corpus.jsonl has it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path[:0] = [str(Path(__file__).parents[1])]

import numpy as np  # noqa: E402
from harness.fuzz_calls import ACCEPTED, REFUSED, SLOWEST, verdict  # noqa: E402
from harness.fuzz_surfaces import SURFACES, clear, grounds  # noqa: E402

from tensoradapt.text import align  # noqa: E402

PACKAGES = ("tensoradapt", "torch", "numpy", "transformers", "safetensors")


def options() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--surface", nargs="+", choices=list(SURFACES), default=list(SURFACES))
    p.add_argument("--examples", type=int, default=210_000, metavar="N", help="inputs of all surfaces together")
    p.add_argument("--minutes", type=float, default=float("inf"), metavar="M", help="at most, in all")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--record", type=Path, metavar="FILE", help="add the counts to this JSON file")
    return p.parse_args()


def main() -> int:
    args = options()
    total = sum(SURFACES[name].share for name in args.surface)
    counts: dict[str, Count] = {}
    for name in args.surface:
        share = SURFACES[name].share / total
        counts[name] = run(name, round(args.examples * share), args.seed, args.minutes * share, print)
        print(f"{name}: {counts[name].ended.total():,} inputs in {counts[name].seconds:.0f} s", flush=True)
    clear()
    rows = [row(name, count) for name, count in counts.items()]
    rows.append(("together", *(f"{sum(int(r[i].replace(',', '')) for r in rows):,}" for i in range(1, 5))))
    print("\n".join(align([("surface", "inputs", "accepted", "refused", "escapes"), *rows])))
    if args.record:
        write(args.record, counts, args.seed)
    return int(any(count.n_escapes for count in counts.values()))


def row(name: str, count: Count) -> tuple[str, ...]:
    numbers = count.ended.total(), count.ended[ACCEPTED], count.ended[REFUSED], count.n_escapes
    return name, *(f"{n:,}" for n in numbers)


def write(path: Path, counts: dict[str, Count], seed: int) -> None:
    """Write the counts of these surfaces, and the versions; other surfaces in the file stay."""
    record: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"surfaces": {}}
    for name, count in counts.items():
        ended = {"accepted": count.ended[ACCEPTED], "refused": count.ended[REFUSED], "escapes": count.n_escapes}
        record["surfaces"][name] = {"inputs": count.ended.total(), **ended, "seed": seed}
    record["versions"] = {"python": platform.python_version(), **{p: metadata.version(p) for p in PACKAGES}}
    path.write_text(json.dumps(record, indent=2) + "\n")


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


if __name__ == "__main__":
    sys.exit(main())
