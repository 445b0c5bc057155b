"""The record that a sweep leaves beside its runs: its specification, its plan, and which runs belong to it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tensoradapt.errors import TensorAdaptError
from tensoradapt.files import reason, replace_file
from tensoradapt.runs.store import with_present_labels
from tensoradapt.sweeps.cells import Cell, Due, due
from tensoradapt.sweeps.spec import SweepSpec

FOLDER = "sweeps"


@dataclass(frozen=True)
class Recorded:
    """A sweep as it was last begun: its specification, its cells, and the versions it was begun with."""

    spec: SweepSpec
    cells: tuple[Cell, ...]
    provenance: Mapping[str, Any]

    def due(self, root: Path) -> Due:
        """Its runs that can be named now."""
        return due(self.spec, self.cells, root)


def write(root: Path, spec: SweepSpec, cells: Sequence[Cell], provenance: Mapping[str, Any]) -> Path:
    """Write the record of a sweep, for the report and so that a rerun need not plan; return its path."""
    record = {"spec": asdict(spec), "cells": [asdict(cell) for cell in cells], "provenance": provenance}
    return replace_file(place(root, spec), (json.dumps(record, indent=2, sort_keys=True) + "\n").encode())


def read(path: Path) -> Recorded:
    """Read the record of a sweep; raise TensorAdaptError where it is missing or damaged."""
    try:
        record = json.loads(with_present_labels(path.read_text(encoding="utf-8")))
        cells = tuple(Cell(**cell) for cell in record["cells"])
        return Recorded(SweepSpec.from_dict(record["spec"]), cells, record["provenance"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TensorAdaptError(
            f"{path} cannot be read ({reason(error)}); expected what a sweep leaves: run the sweep again, or delete it"
        ) from error


def place(root: Path, spec: SweepSpec) -> Path:
    """The path of a sweep's record."""
    return Path(root) / FOLDER / f"{spec.id}.json"


def paths(root: Path) -> list[Path]:
    """The records of all sweeps in a folder of runs."""
    return sorted(Path(root).glob(f"{FOLDER}/*.json"))


def total(plans: Sequence[Due]) -> int | None:
    """How many runs sweeps will have in all, a shared run counted once; None without sweeps."""
    return sum(totals(plans).values()) if plans else None


def totals(plans: Sequence[Due]) -> dict[str, int]:
    """How many runs sweeps will have of each task, a shared run counted once."""
    named = {config.id: config for plan in plans for config in plan.configs}
    counts = Counter(config.task for config in named.values())
    for plan in plans:
        unnamed: Counter[str] = Counter()
        for (task, _), n in plan.totals.items():
            unnamed[task] += n
        unnamed.subtract(config.task for config in plan.configs)
        counts.update(+unnamed)
    return dict(counts)
