"""Time a table and a report of a thousand finished runs, each in a process of its own, imports included.

    python benchmarks/report_time.py [--repeats 3] [--out benchmarks/records/report_time.json]

The runs are synthetic: two shapes of a sweep, 2 tasks with 20 seeds and 7 tasks with 3 seeds, 500 test examples each.
Printed and recorded: wall and processor seconds of each repeat, and their medians.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from tensoradapt.lab.runs.config import RunConfig
from tensoradapt.lab.runs.provenance import provenance
from tensoradapt.lab.runs.store import write_run
from tensoradapt.planning.spec import AdapterSpec
from tensoradapt.records import as_json
from tensoradapt.training.options import Training

METRIC = {"name": "accuracy", "low": 0.0, "high": 1.0, "chance": 0.5}
METHODS = ("lora", "lorta", "lotr", "metatt-4d", "fact-tt", "cara", "tucker", "vera")
SHAPES = {"2 tasks, 3 budgets, 20 seeds": (2, 3, 20), "7 tasks, 6 budgets, 3 seeds": (7, 6, 3)}  # and 8 methods
EXAMPLES = 500
COMMANDS = {"table": ("results",), "means": ("results", "--means"), "report": ("report",)}


def write_runs(root: Path, tasks: int, budgets: int, seeds: int) -> int:
    """Write the runs of a synthetic sweep; returns their number."""
    labels = np.random.default_rng(0).integers(0, 2, EXAMPLES)
    for task in range(tasks):
        for seed in range(seeds):
            _write(
                root,
                {"kind": "head", "task": f"task {task}", "seed": seed},
                0,
                0.6,
                labels,
            )
            for i, method in enumerate(METHODS):
                for size in range(budgets):
                    same = {"task": f"task {task}", "seed": seed}
                    budget = 10_000 * 2**size
                    made = {**same, "adapter": AdapterSpec(method, budget=budget)}
                    _write(root, made, budget - 10 * i, 0.7 + 0.01 * i + 0.02 * size, labels)
    return len(list(root.iterdir()))


def _write(root: Path, given: dict[str, Any], n_params: int, level: float, labels: np.ndarray) -> None:
    config = RunConfig("made up", training=Training(1e-3, 60), **given)
    rng = np.random.default_rng([given["seed"], n_params])
    answers = np.where(rng.random(EXAMPLES) < level, labels, 1 - labels)
    accuracy = {"accuracy": float((answers == labels).mean())}
    result = {"status": "finished", "note": "", "metric": METRIC, "n_params": n_params}
    result["adapter"] = as_json(config.adapter)
    write_run(
        root,
        config.id,
        config=config.as_dict(),
        result={**result, "validation": accuracy, "test": accuracy},
        measurements={"seconds": 10.0},
        provenance={"python": "3"},
        arrays={"predictions": np.eye(2, dtype=np.float32)[answers], "labels": labels},
    )


def timed(command: tuple[str, ...], root: Path, scratch: Path) -> tuple[float, float]:
    """Wall and processor seconds of one command."""
    more = ["--out", str(scratch / ("report.html" if command[0] == "report" else "table.csv"))]
    before, begun = os.times(), time.perf_counter()
    arguments = [command[0], str(root), *command[1:], *more]
    subprocess.run(
        [sys.executable, "-m", "tensoradapt.lab.cli.main", *arguments], check=True, stdout=subprocess.DEVNULL
    )
    after = os.times()
    processor = after.children_user + after.children_system - before.children_user - before.children_system
    return time.perf_counter() - begun, processor


def main() -> None:
    """Measure each command on each shape, interleaved."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        for shape, sizes in SHAPES.items():
            root = Path(scratch) / shape.replace(" ", "").replace(",", "-")
            root.mkdir()
            runs = write_runs(root, *sizes)
            seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in COMMANDS}
            for _ in range(args.repeats):
                for name, command in COMMANDS.items():
                    seconds[name].append(timed(command, root, Path(scratch)))
            for name, each in seconds.items():
                wall, processor = (statistics.median(side) for side in zip(*each, strict=True))
                print(f"{shape} ({runs} runs): {name} {wall:.2f} s, {processor:.2f} s of processor time", flush=True)
                found.append({"shape": shape, "runs": runs, "what": name, "seconds": each})
    if args.out:
        args.out.write_text(json.dumps({"rows": found, "provenance": provenance()}, indent=2) + "\n")


if __name__ == "__main__":
    main()
