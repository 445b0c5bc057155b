"""What all benchmarks share: one command line, records with the machine that made them, and tables.

    python benchmarks/NAME.py [--quick] [--out PATH] [--repeat N]    # and what NAME adds: --help

``--quick`` is a look at a small case. ``--out`` is the file of the record, or the folder that gets it; without it
records are in benchmarks/records, and a look or a part writes none. A record is written again after each row, so that
a call that is cut keeps what it measured. Nothing here imports torch before it is needed.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

RECORDS = Path(__file__).parent / "records"
HELP = {
    "repeat": "how often each call is measured",
    "threads": "of torch",
    "device": "such as cpu, cuda or cuda:1",
    "only": "names that begin so, without a record",
    "part": "K/N: every N-th of what is missing from the K-th; parts run side by side",
    "figure": "draw the figure of the record that is there",
}
Row = Mapping[str, Any]


def options(script: str, doc: str | None, /, **more: Any) -> argparse.Namespace:
    """Return the options of a script, which asks for them before it imports torch, so that --help is quick.

    Args:
        script: its ``__name__``; the default values are those of a module that is imported.
        doc: its docstring.
        more: options beside --quick and --out by name: a default, or what ``add_argument`` takes.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a look at a small case, without a record")
    parser.add_argument("--out", type=Path, help="file of the record, or the folder that gets it")
    for name, value in more.items():
        own = value if isinstance(value, dict) else _of(value)
        parser.add_argument(f"--{name}", **{"help": HELP.get(name), **own})
    return parser.parse_args(None if script == "__main__" else [])


def _of(default: Any) -> dict[str, Any]:
    """Return what makes an option of a default value."""
    if default is False:
        return {"action": "store_true"}
    several = isinstance(default, tuple | list)
    kind = type(default[0] if several else default)
    return {"type": kind, "default": default, **({"nargs": "+"} if several else {})}


def place(asked: Any, name: str, part: bool = False) -> Path | None:
    """Return the path of a record; None for a look or a part without ``--out``."""
    if asked.out:
        return Path(asked.out) if asked.out.suffix else asked.out / name
    return None if asked.quick or part else RECORDS / name


def named(name: str, device: str) -> str:
    """Return the name of a device's record: NAME of the CPU, and NAME-cuda."""
    return name if device == "cpu" else f"{name}-{device.replace(':', '')}"


@cache
def provenance() -> dict[str, Any]:
    """Return versions, processor and commit."""
    from tensoradapt.lab.runs.provenance import provenance as found

    return found()


def machine() -> dict[str, Any]:
    """Return the columns that each row of a CSV record ends with."""
    import torch

    made, versions = provenance(), provenance()["packages"]
    names = {name: versions.get(name) for name in ("tensoradapt", "torch")}
    return {"cpu": made["cpu"], "threads": torch.get_num_threads(), "commit": made["commit"], **names}


def keep(path: Path | None, record: Row, device: str = "cpu") -> dict[str, Any]:
    """Write a record as JSON, if there is a path, with the threads, the device's name and the provenance."""
    import torch

    card = torch.cuda.get_device_name(device) if device != "cpu" else device
    whole = {"threads": torch.get_num_threads(), **record, "device": card, "provenance": provenance()}
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        partly = path.with_name(f"{path.name}.part")
        partly.write_text(json.dumps(whole, indent=2) + "\n")
        partly.replace(path)  # a call that is cut leaves the one before
    return whole


def read(path: Path | None) -> list[dict[str, str]]:
    """Return the rows of a CSV record; none if there is no file."""
    if not path or not path.exists():
        return []
    with path.open() as file:
        return list(csv.DictReader(file))


def append(path: Path | None, row: Row) -> None:
    """Print a row and append it to a CSV record, if there is one, with the columns of the machine.

    A record that was begun without these columns goes on without them.
    """
    print(*row.values(), sep=", ", flush=True)
    if not path:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.exists()
    columns = [*row, *(name for name in machine() if name not in row)] if new else _columns(path)
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow({**machine(), **row})


def _columns(path: Path) -> list[str]:
    with path.open() as file:
        return next(csv.reader(file))


def begin(path: Path | None) -> Path | None:
    """Remove a record that is measured anew as a whole; returns its path."""
    if path:
        path.unlink(missing_ok=True)
    return path


def part_of(items: Iterable[Any], part: str) -> list[Any]:
    """Return every N-th item from the K-th, as ``--part K/N`` asks.

    >>> part_of("abcde", "1/2")
    ['b', 'd']
    """
    at, of = map(int, part.split("/"))
    return list(items)[at::of]


def spread(values: list[float]) -> dict[str, float]:
    """Return the median and quartiles."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    return {"median": middle, "low": low, "high": high}


def show(rows: Iterable[tuple[str, ...]]) -> None:
    """Print rows of texts in columns."""
    from tensoradapt.text import align

    print(*align(list(rows)), sep="\n", flush=True)


def tests_on_path() -> None:
    """Let a benchmark import tests/support."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
