"""What is left of a sweep, in time and disk: measured by the runs that are done, or else by a short probe."""

from __future__ import annotations

import importlib
import statistics
from collections.abc import Sequence
from pathlib import Path

from tensoradapt.runs.config import RunConfig
from tensoradapt.runs.store import is_finished, read_run
from tensoradapt.sweeps.executors.slots import Slots
from tensoradapt.sweeps.messages import duration, size_of

START_SECONDS = 5.0  # of a process: torch and transformers are loaded


def cost_text(root: Path, configs: Sequence[RunConfig], left: Sequence[RunConfig], todo: int, slots: Slots) -> str:
    """One line. ``left``: the runs among ``configs`` that can be begun; ``todo``: how many there will be.

    Runs that cannot be named yet, for want of a rate, are taken to cost what the others do on average.
    """
    if not left:
        return "nothing is left to do"
    done = [config.id for config in configs if is_finished(root, config.id)]
    if slots.options and not done:  # a probe would measure this machine
        return "time and disk are known when the first run is done"
    try:
        seconds, n_bytes, how = _measured(root, done) if done else _probed(left, slots)
    except Exception as error:  # the first run may be the one that fails, and must not stop the others
        return f"time and disk are not known: the probe of {left[0].title} failed ({type(error).__name__}: {error})"
    n = slots.workers or 1
    time = START_SECONDS + seconds * todo / min(n, todo)
    workers = f"with {n} worker{'s' * (n > 1)}" if slots.workers else "one after another"
    threads = f"{slots.threads} thread{'s' * (slots.threads > 1)} each"
    disk = size_of(n_bytes * todo)
    return f"about {duration(time)} {workers} on {slots.device} ({threads}), {disk} on disk ({how})"


def _measured(root: Path, done: Sequence[str]) -> tuple[float, float, str]:
    """Seconds and bytes of a run, as those that are done took."""
    seconds = statistics.fmean(read_run(root / name).measurements.get("seconds") or 0.0 for name in done)
    n_bytes = statistics.fmean(sum(path.stat().st_size for path in (root / name).iterdir()) for name in done)
    return seconds, n_bytes, f"as the {len(done)} finished runs took"


def _probed(left: Sequence[RunConfig], slots: Slots) -> tuple[float, float, str]:
    # torch is loaded by whoever needs it, which a sweep that is done does not
    found = importlib.import_module("tensoradapt.sweeps.probe").forecast(left, slots.device, slots.threads)
    return found.seconds / len(left), found.bytes / len(left), "by a short probe"
