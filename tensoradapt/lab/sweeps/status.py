"""How far the sweeps of a folder are: runs by task and method that are finished, failed, running and waiting.

The folder is only read and no lock is taken. What is left to do is planned from the specifications in ``sweeps/``, as
a sweep plans it.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tensoradapt.checks import as_path, is_number
from tensoradapt.errors import TensorAdaptError
from tensoradapt.files import LARGEST, parse_json, read_bounded
from tensoradapt.lab.runs.config import RunConfig
from tensoradapt.lab.runs.store import is_failed, is_finished
from tensoradapt.lab.runs.work_folder import ATTEMPTS, WORK
from tensoradapt.lab.sweeps import record
from tensoradapt.lab.sweeps.due import Due, due

if TYPE_CHECKING:
    from pandas import DataFrame

COLUMNS = ("task", "method", "finished", "failed", "running", "waiting", "seconds_left")
ENDED = ("cancelled", "refused")  # last lines of a ticket whose job will do nothing any more
Key = tuple[str, str]  # task and method


def status(folder: Path | str, spec: Path | str | None = None) -> DataFrame:
    """Return a row for each task and method with the numbers of its runs, of every sweep in a folder.

    Args:
        folder: of runs, into which a sweep was begun.
        spec: only the runs of this sweep.

    Returns:
        A DataFrame with task, method, ``finished``, ``failed``, ``running``, ``waiting`` (not begun, or begun and
        left) and ``seconds_left``, whose sum is the time left: by the mean time of finished runs and the number that
        run at once, NaN where none has finished or none is running. ``attrs["notes"]`` has lines about what cannot be
        run or read, ``attrs["more"]`` how many runs grids of rates can be extended by at most, which no row counts.

        A run is running while its process on this machine lives, or while its SLURM job was not cancelled.

    Raises:
        TensorAdaptError: for a folder without a sweep, and a specification that was not run into it.
    """
    import pandas

    root = as_path(folder, "folder")

    @cache  # a run that ends meanwhile makes others due, which the plans do not know of
    def end(name: str) -> str:
        return "finished" if is_finished(root, name) else "failed" * is_failed(root, name)

    plans, notes = _plans(root, None if spec is None else as_path(spec, "spec"), lambda name: bool(end(name)))
    configs = {config.id: config for plan in plans for config in plan.configs}
    left = {name: part for name, part in _running(root) if name in configs and not end(name)}
    states = {name: end(name) or ("running" if name in left else "waiting") for name in configs}
    pace = _seconds(root, [name for name, state in states.items() if state == "finished"]) / (len(left) or math.nan)
    unnamed, own = _unnamed(plans), _by_key(configs)
    rows = [_row(key, own.get(key, []), unnamed[key], states, left, pace) for key in _keys(plans)]
    table = pandas.DataFrame(rows, columns=list(COLUMNS))
    table.attrs |= {"notes": notes, "more": sum(plan.more for plan in plans)}
    return table


def _plans(root: Path, spec: Path | None, ended: Callable[[str], bool]) -> tuple[list[Due], list[str]]:
    """Return the plans of the sweeps, and lines about what is not run or cannot be read now."""
    if spec is not None:
        plans = [due(one, ended) for one in record.read_all(root, spec)]
        return plans, [f"not run: {reason}" for plan in plans for reason in plan.blocked]
    if not (paths := record.paths(root)):
        raise TensorAdaptError(
            f"{root} holds no sweep; expected the folder that tensoradapt sweep --out names, once it has begun"
        )
    plans, notes = [], []
    for path in paths:
        try:
            plans.append(due(record.read(path), ended))
            notes += [f"not run: {reason}" for reason in plans[-1].blocked]
        except TensorAdaptError as error:  # damaged, or what it is about changed while it was read
            notes.append(f"{path.name} cannot be shown now: {error}")
    return plans, notes


def _keys(plans: Sequence[Due]) -> list[Key]:
    return list(dict.fromkeys(key for plan in plans for key in plan.totals))


def _row(
    key: Key,
    names: Sequence[str],
    unnamed: int,
    states: Mapping[str, str],
    left: Mapping[str, float],
    pace: float,
) -> dict[str, Any]:
    """Return the counts of a method on a task, whose runs have these names.

    ``unnamed``: how many wait for a rate; ``left``: the shares of running runs that are still to do.
    """
    counts = Counter(states[name] for name in names)
    # where all that can be named has ended, what has no name never will: it is blocked
    if counts["running"] or counts["waiting"]:
        counts["waiting"] += max(0, unnamed)
    seconds = pace * (counts["waiting"] + sum(left[name] for name in names if name in left))
    return {**dict(zip(COLUMNS, key, strict=False)), **{what: counts[what] for what in COLUMNS[2:6]}} | {
        "seconds_left": seconds
    }


def _by_key(configs: Mapping[str, RunConfig]) -> dict[Key, list[str]]:
    """Return the names of runs by their task and method."""
    found: dict[Key, list[str]] = {}
    for name, config in configs.items():
        found.setdefault(_key(config), []).append(name)
    return found


def _unnamed(plans: Sequence[Due]) -> Counter[Key]:
    """Return how many runs of each method on each task cannot be named yet, as they wait for a rate."""
    found: Counter[Key] = Counter()
    for plan in plans:
        found.update(plan.totals)
        found.subtract(_key(config) for config in plan.configs)
    return found


def _key(config: RunConfig) -> Key:
    return config.task, str(config.method)


def _running(root: Path) -> Iterator[tuple[str, float]]:
    """Yield the names of runs in hand, and which share of their steps is still to do by their last saved state."""
    for path in sorted(root.glob(f"{WORK}/[!.]*")):
        # it may have ended and be gone, or a line or file may be half written
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, IndexError):
            config = RunConfig.from_dict(json.loads((path / "config.json").read_text())["config"])
            attempt = json.loads((path / ATTEMPTS).read_text().splitlines()[-1])
            if _alive(attempt["pid"]) or _queued(path):
                yield config.id, 1 - (_saved_step(path / "state.safetensors") or 0) / config.training.steps


def _saved_step(path: Path) -> int | None:
    """Return the number of steps in a saved training state, read from its header as the length of the losses."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, IndexError), path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        return int(json.loads(file.read(min(length, LARGEST)))["losses"]["shape"][0])
    return None


def _alive(pid: int) -> bool:
    if os.name != "posix":  # elsewhere the call would end the process
        return True
    try:
        os.kill(pid, 0)
    except OSError as error:
        return isinstance(error, PermissionError)
    return True


def _queued(path: Path) -> bool:
    """Return whether the last job that was submitted for a run was not cancelled; it computes on another machine."""
    tickets = sorted(path.glob("ticket.*"), key=lambda ticket: int(ticket.suffix[1:]))
    return bool(tickets) and tickets[-1].read_text().split()[-1:] not in ([word] for word in ENDED)


def _seconds(root: Path, names: Iterable[str]) -> float:
    """Return the mean time of finished runs; NaN where none is known."""
    found = []
    for name in names:
        path = root / name / "measurements.json"
        with contextlib.suppress(OSError, TensorAdaptError, KeyError, TypeError):
            found.append(parse_json(read_bounded(path, "delete it"), path, "delete it")["seconds"])
    known = [seconds for seconds in found if is_number(seconds)]
    return statistics.fmean(known) if known else math.nan
