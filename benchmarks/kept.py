"""Records of benchmarks: written again after each row, so that a call that is cut keeps what it measured."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch

from tensoradapt.lab.runs.provenance import provenance

RECORDS = Path(__file__).parent / "records"
_provenance = cache(provenance)  # it asks git


def keep(record: Mapping[str, Any], folder: Path | None, file: str, device: str) -> dict[str, Any]:
    """Write a record as JSON into a folder, if one is given; returns it with the device's name and the provenance."""
    card = torch.cuda.get_device_name(device) if device != "cpu" else device
    whole = {**record, "device": card, "provenance": _provenance()}
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
        partly = folder / f"{file}.part"
        partly.write_text(json.dumps(whole, indent=2) + "\n")
        partly.replace(folder / file)  # a call that is cut leaves the one before
    return whole


def folder_of(args: Any, part: bool = False) -> Path | None:
    """Return where records go: ``--records``, or else benchmarks/records, but of a look or a part nowhere."""
    return args.records or (None if args.quick or part else RECORDS)


def named(name: str, device: str) -> str:
    """Return the name of a device's record: NAME of the CPU, and NAME-cuda."""
    return name if device == "cpu" else f"{name}-{device.replace(':', '')}"


def read(path: Path) -> list[dict[str, str]]:
    """The rows of a record; none if there is no file."""
    if not path.exists():
        return []
    with path.open() as file:
        return list(csv.DictReader(file))


def append(path: Path, row: Mapping[str, object]) -> None:
    """Append a row to a record, with a header before the first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(row), lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(row)
