"""What sweeps of 100, 1,000 and 10,000 runs take: the plan, a resume, tables, status and report.

    python benchmarks/sweep_scale.py                 # all three sizes; --n 100 for one
    python benchmarks/sweep_scale.py --only results  # of what is measured, those that are named

A sweep has five methods with two ranks each and as many weight decays as its size asks for; each of these cells has
six runs that tune (three rates, two seeds) and four that are reported. All runs but those of the last cell are written
beforehand: copies of one tiny run that is computed, with the configs and scores of their own. So ten runs are left for
the resume. Each command runs in a process of its own, imports included.

Writes records/sweep_scale.csv: wall and processor seconds and the peak of resident memory. Printed besides: by which
power of the number of runs each grows.
"""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

from measure import append, options, place, read

ASKED = options(__name__, __doc__, n=[100, 1_000, 10_000], only=[""])

import numpy as np

from tensoradapt.lab.runs.config import RunConfig
from tensoradapt.lab.runs.store import Run, load_runs, write_run
from tensoradapt.lab.runs.work_folder import versions
from tensoradapt.lab.sweeps import record as recorded
from tensoradapt.lab.sweeps.due import due
from tensoradapt.lab.sweeps.plan_sweep import plan_sweep
from tensoradapt.lab.sweeps.run_sweep import sweep
from tensoradapt.lab.sweeps.spec import SweepSpec, read_spec
from tensoradapt.records import toml_of

METHODS, RANKS, RATES, SEEDS = ("lora", "lorta", "lotr", "tucker", "vera"), (1, 2), (1e-3, 3e-3, 1e-2), (0, 1, 2, 3)
OF_CELLS = len(METHODS) * len(RANKS) * (2 * len(RATES) + len(SEEDS))  # runs with one weight decay
SWEEP = ("sweep", "{spec}", "--out", "{out}", "--executor", "inline", "--device", "cpu")
COMMANDS: Mapping[str, tuple[str, ...]] = {  # in the order in which they can run
    "dry run": ("sweep", "{spec}", "--out", "{empty}", "--device", "cpu", "--dry-run"),
    "status": ("results", "{out}", "--status"),
    "resume": SWEEP,
    "again": SWEEP,  # nothing is left
    "results": ("results", "{out}"),
    "means": ("results", "{out}", "--means"),
    "compare": ("results", "{out}", "--compare"),
    "report": ("report", "{out}"),
}


def table(n: int) -> dict[str, Any]:
    """The specification of a sweep of ``n`` runs, a multiple of 100."""
    decays = [round(0.001 * i, 3) for i in range(n // OF_CELLS)]
    return {
        **{"model": "tiny-random-bert", "task": "planted", "method": list(METHODS), "rank": list(RANKS)},
        **{"lr": list(RATES), "seed": list(SEEDS), "weight_decay": decays, "steps": 4},
        **{"n_train": 64, "n_validation": 32, "n_test": 32, "tuning": {"seed": [1000, 1001], "extend": 0}},
    }


def write_runs(spec: SweepSpec, root: Path) -> int:
    """Write the runs of a sweep but those of its last cell, and its record; returns how many were written.

    The middle rate is the best on validation, and so the one that is reported.
    """
    planned = plan_sweep(spec, root)
    n_params = {(cell.method, cell.size.rank): cell.n_params for cell in planned.cells}
    pattern, rng = _computed(), np.random.default_rng(0)
    tuning = due(planned).configs
    kept = tuning[: len(tuning) - 2 * len(RATES)]
    for config in kept:
        _write(root, pattern, config, n_params, rng)
    reported = [config for config in due(planned).configs if not config.tuning]
    for config in reported:
        _write(root, pattern, config, n_params, rng)
    recorded.write(planned, versions())
    return len(kept) + len(reported)


def _computed() -> Run:
    """Compute the run that the others are copies of."""
    with tempfile.TemporaryDirectory() as folder:
        spec = {**table(OF_CELLS), "method": "lora", "rank": 1, "lr": RATES[1], "seed": 0, "weight_decay": 0.0}
        sweep(spec | {"tuning": {}}, folder, executor="inline", device="cpu", probe=False, say=lambda line: None)
        (run,) = load_runs(Path(folder))
        run.result["arrays"] = {name: run.array(name) for name in ("predictions", "labels", "losses", "scores")}
        return run


def _write(root: Path, run: Run, config: RunConfig, n_params: Mapping[Any, Any], rng: np.random.Generator) -> None:
    """Write a copy of a run with a config, and scores, of its own."""
    assert config.adapter is not None
    size = n_params[config.method, config.adapter.rank]
    level = 0.6 + 0.05 * RANKS.index(config.adapter.rank) - 0.05 * abs(RATES.index(config.training.lr) - 1)
    arrays = dict(run.result["arrays"])
    arrays["scores"] = (rng.random(len(arrays["scores"])) < level).astype(arrays["scores"].dtype)
    name = run.result["metric"]["name"]
    scores = {"validation": {name: level + 0.01 * rng.random()}, "test": {name: float(arrays["scores"].mean())}}
    result = {key: item for key, item in run.result.items() if key != "arrays"}
    adapter = {**result["adapter"], "method": config.adapter.method, "rank": config.adapter.rank, "layout": None}
    result |= {**scores, "n_params": size, "adapter": adapter, "status": "finished", "note": ""}
    parts = {"config": config.as_dict(), "measurements": run.measurements, "provenance": run.provenance}
    extra = {"attempts.jsonl": (b'{"event": "started"}\n{"event": "finished"}\n')}
    write_run(root, config.id, result=result, arrays=arrays, extra=extra, **parts)


def measured(arguments: list[str]) -> dict[str, Any]:
    """Run a command in a process of its own; returns its seconds and the most memory that it had."""
    before, begun, peak = os.times(), time.perf_counter(), 0
    command = [sys.executable, "-m", "tensoradapt.lab.cli.main", *arguments]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            peak = max(peak, _peak(process.pid))  # asked for often, as a run resets it when it begins
            time.sleep(0.02)
    if process.returncode:
        raise SystemExit(f"{' '.join(arguments)} ended with {process.returncode}")
    after = os.times()
    processor = after.children_user + after.children_system - before.children_user - before.children_system
    return {"seconds": time.perf_counter() - begun, "processor_seconds": processor, "MiB_peak": peak // 1024}


def _peak(pid: int) -> int:
    """The peak of resident memory of a process in KiB, since it was last reset."""
    with suppress(OSError):
        if match := re.search(r"^VmHWM:\s*(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE):
            return int(match[1])
    return 0


def measure(n: int, folder: Path, only: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """Yield a row for each command on a sweep of ``n`` runs."""
    spec, out = folder / "spec.toml", folder / "runs"
    given = table(n)
    spec.write_text(toml_of(given))
    paths = {"spec": spec, "out": out, "empty": folder / "empty"}
    written = 0
    for name, words in COMMANDS.items():
        if name != "dry run" and not written:
            begun = time.perf_counter()
            with patch("os.fsync"):  # copies need not outlive a power cut
                written = write_runs(read_spec(spec), out)
            print(f"{written} of {n} runs written in {time.perf_counter() - begun:.0f} s", flush=True)
        if name.startswith(only) or name == "resume":
            row = {"runs": n, "what": name, **measured([word.format(**paths) for word in words])}
            yield row | {key: f"{row[key]:.2f}" for key in ("seconds", "processor_seconds")}


def exponents(rows: list[dict[str, str]]) -> Iterator[str]:
    """Yield by which power of the number of runs each command's processor seconds grow."""
    for what in dict.fromkeys(row["what"] for row in rows):
        own = sorted({int(row["runs"]): row for row in rows if row["what"] == what}.items())
        for (few, less), (many, more) in pairwise(own):
            power = math.log(float(more["processor_seconds"]) / float(less["processor_seconds"])) / math.log(many / few)
            yield f"{what}, {few:,} to {many:,} runs: seconds by the power {power:.2f}"


def main() -> None:
    """Measure each size in turn, and keep each row at once."""
    path, only = place(ASKED, "sweep_scale.csv", part=ASKED.only != [""]), tuple(ASKED.only)
    for n in [100] if ASKED.quick else ASKED.n:
        with tempfile.TemporaryDirectory() as folder:
            for row in measure(n, Path(folder), ("status", "results") if ASKED.quick else only):
                append(path, row)
    print(*exponents(read(path)), sep="\n")


if __name__ == "__main__":
    main()
