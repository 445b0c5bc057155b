"""Results of other versions: find what differs; keep them, run them again, or refuse to continue."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tensoradapt.errors import TensorAdaptError, did_you_mean
from tensoradapt.files import reason
from tensoradapt.runs.config import RunConfig
from tensoradapt.runs.store import Run, is_finished, read_run

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
    if how not in CHOICES:
        raise TensorAdaptError(f"stale is {how!r}{did_you_mean(how, CHOICES)}")
    runs = [(config, read_run(root / config.id)) for config in configs if is_finished(root, config.id)]
    _say_renamed(runs, say)
    differing = {run.name: differences(run.provenance, now) for _, run in runs}
    old = {name: what for name, what in differing.items() if what}
    if not old:
        return ()
    counted = Counter(what for every in old.values() for what in every)
    listed = "; ".join(what for what, _ in counted.most_common(SHOWN)) + ("; ..." if len(counted) > SHOWN else "")
    text = f"{len(old)} of {len(runs)} finished runs were made by other versions: {listed}"
    if how == "error":
        raise TensorAdaptError(f"{text}. Expected the same: go on with --stale keep, or make them again with rerun")
    say(f"{text}; " + ("they are kept" if how == "keep" else "they are set aside in .stale and run again"))
    again = tuple(old) if how == "rerun" else ()
    for name in () if dry_run else again:
        _set_aside(root, name)
    return again


def _say_renamed(runs: Sequence[tuple[RunConfig, Run]], say: Callable[[str], None]) -> None:
    """Say which methods were renamed: their runs are kept, and tables show the name that is stored."""
    pairs = {(run.config["label"], config.label) for config, run in runs}
    for stored, label in sorted(pair for pair in pairs if pair[0] != pair[1]):
        say(f"runs of {label!r} are stored as {stored!r}: give results, plot and report --spec to have the new name")


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The versions and source commits that differ; machines are not compared, as a sweep may move.

    >>> differences({"python": "3.11", "packages": {"torch": "2.6"}}, {"python": "3.11", "packages": {"torch": "2.7"}})
    ['torch 2.6, now 2.7']
    """
    pairs = {key: (then.get(key), now.get(key)) for key in ("python", "commit")}
    old, new = then.get("packages", {}), now.get("packages", {})
    pairs |= {package: (old.get(package), new.get(package)) for package in sorted({*old, *new})}
    return [f"{key} {_short(a)}, now {_short(b)}" for key, (a, b) in pairs.items() if a != b]


def _short(version: str | None) -> str:
    """A version, or the first digits of a commit."""
    text = str(version or "absent")
    return text[:8] + ("-dirty" if text.endswith("-dirty") else "") if len(text) >= 40 else text


def _set_aside(root: Path, name: str) -> None:
    folder = root / ".stale"
    try:
        folder.mkdir(exist_ok=True)
        k = next(k for k in range(10**6) if not (folder / f"{name}.{k}").exists())
        (root / name).rename(folder / f"{name}.{k}")
    except OSError as error:
        raise TensorAdaptError(
            f"run {name} cannot be set aside in {folder} ({reason(error)}); expected a folder that can be written: "
            "remove what is in the way, or go on with --stale keep"
        ) from error
