"""What the runs of a sweep take: time, disk and memory of a GPU, by finished runs or by a short run of each task."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tensoradapt.lab.runs.config import RunConfig
from tensoradapt.lab.runs.store import is_finished, read_documents
from tensoradapt.lab.sweeps.executors.executor import Slots
from tensoradapt.text import bytes_text, duration_text

START_SECONDS = 5.0  # that a process takes to load torch and transformers
STEPS, EXAMPLES = 3, 64  # how long the probe trains, and on how many examples
EVALUATED = 512  # examples that the probe evaluates on a GPU: its largest batch of predictions
JSON_BYTES = 16_000  # the size of a run's documents, attempts and file headers
# by how much another run may need more memory than the largest that finished, and than a short one
OTHERS, PROBED = 1.2, 1.5


@dataclass(frozen=True)
class Cost:
    """What a run takes on average, in seconds and bytes on disk, and how that was found.

    ``memory``: bytes of a GPU that any run may need, without its process; None where none was measured.
    ``fault``: why nothing is known.
    """

    seconds: float = 0.0
    n_bytes: float = 0.0
    how: str = ""
    memory: int | None = None
    fault: str = ""


def measure(
    root: Path,
    configs: Sequence[RunConfig],
    left: Sequence[RunConfig],
    slots: Slots,
    probe: bool = True,
    say: Callable[[str], None] = lambda line: None,
) -> Cost:
    """Return what a run of a sweep takes.

    Args:
        root: folder of runs.
        configs: the runs that can be named.
        left: those of them that can be begun.
        slots: where they run.
        probe: whether a short run may be computed for it.
        say: called with a line before the short runs, which may take minutes.
    """
    done = [config.id for config in configs if is_finished(root, config.id)]
    if not left or (not done and (slots.options or not probe)):  # on a cluster a probe would measure another machine
        return Cost()
    if not done:
        say("timing a short run of each task, to tell how long all take")
    try:
        return _measured(root, done) if done else _probed(left, (*slots.here, slots.device)[0], slots.threads)
    except Exception as error:  # a run that fails must not stop the others
        return Cost(fault=f"the probe of {left[0].title} failed ({type(error).__name__}: {error})")


def cost_text(cost: Cost, todo: int, slots: Slots) -> str:
    """Return a line on time and disk of the runs still to do.

    Those that have no rate yet are taken to cost what the others do on average. Runs that share a GPU are taken to
    compute one after another, as it is not known how much of them overlaps.
    """
    if not todo:
        return "nothing is left to do"
    if cost.fault:
        return f"time and disk are not known: {cost.fault}"
    if not cost.how:
        return "time and disk are known when the first run is done"
    n = slots.workers or 1
    shared = 0 < len(slots.gpus) < n
    whole = START_SECONDS + cost.seconds * todo / min(len(slots.gpus) if shared else n, todo)
    workers = f"with {n} worker{'s' * (n > 1)}" if slots.workers else "one after another"
    threads = f"{slots.threads} thread{'s' * (slots.threads > 1)} each"
    about, disk = "at most about" if shared else "about", bytes_text(cost.n_bytes * todo)
    return f"{about} {duration_text(whole)} {workers} on {slots.device} ({threads}), {disk} on disk ({cost.how})"


def _measured(root: Path, done: Sequence[str]) -> Cost:
    """Return the mean seconds and bytes of the finished runs, and the most memory of a GPU that one had."""
    seconds, n_bytes, peak = 0.0, 0, 0
    for name in done:
        found = read_documents(root / name, ("measurements",))
        seconds += found["measurements"].get("seconds") or 0.0
        n_bytes += sum(file.stat().st_size for file in os.scandir(root / name))
        peak = max(peak, found["measurements"].get("peak_device_bytes") or 0)
    n, memory = len(done), int(OTHERS * peak) or None
    return Cost(seconds / n, n_bytes / n, f"as the {n} finished runs took", memory)


def _probed(configs: Sequence[RunConfig], device: str, threads: int) -> Cost:
    """Return the mean seconds and bytes of a run from one short run of each task, on a GPU of full fine-tuning too."""
    import torch  # slow, and a sweep with nothing to do leaves it alone

    from tensoradapt.lab.runs.execute import load_data

    kinds: dict[tuple[str, bool], list[RunConfig]] = {}
    for config in configs:
        kinds.setdefault((config.task, device != "cpu" and config.kind == "full"), []).append(config)
    seconds, n_bytes, memory = 0.0, 0, 0
    for alike in kinds.values():
        first = alike[0] if device == "cpu" else max(alike, key=lambda config: config.data.batch)
        data = load_data(first)  # once in a process: not timed
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            short = _timed(first, device)
        finally:
            torch.set_num_threads(before)
        n = len(data.test) + len(data.validation)
        seconds += sum(config.training.steps * short.step + n * short.example + short.rest for config in alike)
        n_bytes += sum(JSON_BYTES + 8 * config.training.steps + len(data.test) * short.stored for config in alike)
        memory = max(memory, short.memory)
    if device != "cpu":  # this process computes nothing more there
        gc.collect()
        torch.cuda.empty_cache()
    needed = int(PROBED * memory) or None
    return Cost(seconds / len(configs), n_bytes / len(configs), "by a short probe", needed)


@dataclass(frozen=True)
class _Short:
    """Seconds of a step, of evaluating an example and of the rest; bytes for a test example, and of a GPU at most."""

    step: float
    example: float
    rest: float
    stored: int
    memory: int


def _timed(config: RunConfig, device: str) -> _Short:
    """Compute a short run."""
    from tensoradapt.lab.runs.execute import execute

    n = EXAMPLES if device == "cpu" else EVALUATED
    few = replace(config.data, n_train=EXAMPLES, n_validation=n, n_test=n)
    parts = execute(replace(config, training=replace(config.training, steps=STEPS), data=few), device)
    measured, arrays = parts["measurements"], parts["arrays"]
    step, evaluation = measured["step_seconds_median"] or 0.0, measured["evaluation_seconds"]
    stored = sum(array.nbytes for name, array in arrays.items() if name != "losses") // len(arrays["labels"])
    rest = max(0.0, measured["seconds"] - evaluation - STEPS * step)
    return _Short(step, evaluation / (2 * n), rest, stored, measured.get("peak_device_bytes", 0))
