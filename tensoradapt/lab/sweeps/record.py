"""The record that a sweep leaves beside its runs, and what to do about results that other versions have left there."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tensoradapt.checks import one_of, optional, rank
from tensoradapt.errors import TensorAdaptError
from tensoradapt.files import explained, parse_json, read_bounded, replace_file
from tensoradapt.lab.runs.config import RunConfig
from tensoradapt.lab.runs.row import count
from tensoradapt.lab.runs.store import SWEEPS, is_finished, read_documents
from tensoradapt.lab.sweeps.due import Due
from tensoradapt.lab.sweeps.plan_sweep import Cell, Sweep
from tensoradapt.lab.sweeps.spec import SweepSpec, read_spec, table_of
from tensoradapt.planning.size import Size


def write(sweep: Sweep, versions: Mapping[str, Any]) -> Path:
    """Write the record of a sweep, for the report and so that a rerun need not plan; return its path."""
    cells = [{**asdict(cell), "size": cell.size.asked} for cell in sweep.cells]
    record = {"spec": table_of(sweep.spec), "own": sweep.spec.own, "head_rates": sweep.head_rates, "cells": cells}
    text = json.dumps({**record, "provenance": versions}, indent=2, sort_keys=True) + "\n"
    return replace_file(path_of(sweep.folder, sweep.spec), text.encode())


def read(path: Path) -> Sweep:
    """Read a sweep as it was last begun; raise TensorAdaptError where its record is missing or damaged."""
    again, odd = "run the sweep again, or delete it", (ValueError, KeyError, TypeError, AttributeError)
    with explained("read", path, f"expected what a sweep leaves: {again}", *odd):
        record = parse_json(read_bounded(path, again), path, again)
        cells = tuple(map(_cell, record["cells"]))
        spec, versions = read_spec(dict(record["spec"]), own=record["own"]), dict(record["provenance"])
        if spec.id != path.stem:
            raise TensorAdaptError(f"{path} was changed: its name is not the hash of its specification; {again}")
        return Sweep(spec, path.parent.parent, dict(record["head_rates"]), cells, versions)


def _cell(row: Mapping[str, Any]) -> Cell:
    """Return a cell of a record; raises TypeError, ValueError or TensorAdaptError where it is none."""
    cell = Cell(**{**row, "size": Size(**row["size"])})
    if not isinstance(cell.method, str) or not isinstance(cell.empty, str):
        raise ValueError("a cell has no method or reason")
    for value in cell.size.asked.values():
        optional(rank)(value, "a size")
    optional(count)(cell.n_params, "n_params")
    return cell


def path_of(root: Path, spec: SweepSpec) -> Path:
    """Return the path of a sweep's record."""
    return Path(root) / SWEEPS / f"{spec.id}.json"


def paths(root: Path) -> list[Path]:
    """Return the paths of the records of all sweeps in a folder of runs."""
    return sorted(Path(root).glob(f"{SWEEPS}/*.json"))


def read_all(root: Path, spec: Path | Mapping[str, Any] | None = None) -> list[Sweep]:
    """Return the sweeps recorded in a folder of runs, or that of a specification; raise TensorAdaptError without it."""
    if spec is None:
        return [read(path) for path in paths(root)]
    path = path_of(root, read_spec(spec))
    if not path.is_file():
        raise TensorAdaptError(
            f"{root} has no sweep of {spec} on record; expected the specification as it was run: run it into this "
            "folder, or leave it out to take the runs of every sweep"
        )
    return [read(path)]


def total(plans: Sequence[Due]) -> int | None:
    """Return how many runs sweeps will have in all, a shared run counted once; None without sweeps."""
    return sum(totals(plans).values()) if plans else None


def totals(plans: Sequence[Due]) -> dict[str, int]:
    """Return how many runs sweeps will have of each task, a shared run counted once."""
    named = {config.id: config for plan in plans for config in plan.configs}
    counts = Counter(config.task for config in named.values())
    for plan in plans:
        unnamed: Counter[str] = Counter()
        for (task, _), n in plan.totals.items():
            unnamed[task] += n
        unnamed.subtract(config.task for config in plan.configs)
        counts.update(+unnamed)
    return dict(counts)


CHOICES = ("keep", "rerun", "error")
SHOWN = 4  # differences in one message


def settle(
    root: Path,
    configs: Sequence[RunConfig],
    now: Mapping[str, Any],
    how: str,
    say: Callable[[str], None],
    dry_run: bool = False,
) -> tuple[str, ...]:
    """Report the finished runs of other versions or commits than ``now``; return those that are to be run again.

    Args:
        root: folder of runs.
        configs: the runs of the sweep.
        now: the present provenance.
        how: "keep" them, "rerun" (they are moved to ``.stale``) or "error".
        say: called with each line of output.
        dry_run: whether to leave the folder as it is.

    Raises:
        TensorAdaptError: with "error", where a run differs; for another word; and where a run cannot be moved.
    """
    one_of(CHOICES, how, "stale")
    stored: set[tuple[str, str]] = set()
    differing: dict[str, list[str]] = {}
    for config in configs:
        if is_finished(root, config.id):
            found = read_documents(root / config.id, ("config", "provenance"))
            stored.add((str(found["config"].get("method")), str(config.method)))
            differing[config.id] = differences(found["provenance"], now)
    _say_renamed(stored, say)
    old = {name: what for name, what in differing.items() if what}
    if not old:
        return ()
    counted = Counter(what for every in old.values() for what in every)
    listed = "; ".join(what for what, _ in counted.most_common(SHOWN)) + ("; ..." if len(counted) > SHOWN else "")
    text = f"{len(old)} of {len(differing)} finished runs were made by other versions: {listed}"
    if how == "error":
        raise TensorAdaptError(f"{text}. Expected the same: go on with --stale keep, or make them again with rerun")
    say(f"{text}; " + ("they are kept" if how == "keep" else "they are set aside in .stale and run again"))
    again = tuple(old) if how == "rerun" else ()
    for name in () if dry_run else again:
        _set_aside(root, name)
    return again


def _say_renamed(pairs: Iterable[tuple[str, str]], say: Callable[[str], None]) -> None:
    """Say which methods were renamed: their runs are kept, and tables show the name that is stored."""
    for stored, label in sorted(pair for pair in pairs if pair[0] != pair[1]):
        say(f"runs of {label!r} are stored as {stored!r}: give results, plot and report --spec to have the new name")


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return the versions and source commits that differ; machines are not compared, as a sweep may move.

    >>> differences({"python": "3.11", "packages": {"torch": "2.6"}}, {"python": "3.11", "packages": {"torch": "2.7"}})
    ['torch 2.6, now 2.7']
    """
    pairs = {key: (then.get(key), now.get(key)) for key in ("python", "commit")}
    old, new = then.get("packages", {}), now.get("packages", {})
    pairs |= {package: (old.get(package), new.get(package)) for package in sorted({*old, *new})}
    return [f"{key} {_short(a)}, now {_short(b)}" for key, (a, b) in pairs.items() if a != b]


def _short(version: str | None) -> str:
    """Return a version, or the first digits of a commit."""
    text = str(version or "absent")
    return text[:8] + ("-dirty" if text.endswith("-dirty") else "") if len(text) >= 40 else text


def _set_aside(root: Path, name: str) -> None:
    folder = root / ".stale"
    hint = "expected a folder that can be written: remove what is in the way, or go on with --stale keep"
    with explained(f"set aside in {folder}", f"run {name}", hint):
        folder.mkdir(exist_ok=True)
        k = next(k for k in range(10**6) if not (folder / f"{name}.{k}").exists())
        (root / name).rename(folder / f"{name}.{k}")
