"""Choose the learning rates that `tensoradapt frontier` uses, on validation, and write them with the sweep behind
them.

    python benchmarks/tune_rates.py

Each parameterization's is chosen at rank 8, and full fine-tuning's, with the head's rate of head_rates.py. A grid is
extended while its best is at an end. The seed and the steps are none of those that a frontier reports. About 15 minutes
on 2 cores; a rerun goes on where it was.
"""

from __future__ import annotations

import csv
import math
from pathlib import Path

from measure import options, place

ASKED = options(__name__, __doc__)

import torch

from tensoradapt.lab.runs.config import DataSpec, RunConfig
from tensoradapt.lab.runs.execute import execute
from tensoradapt.lab.runs.provenance import provenance
from tensoradapt.lab.runs.store import is_finished, load_runs, read_run, write_run
from tensoradapt.lab.sweeps.frontier import FRONTIER, rate
from tensoradapt.planning.spec import AdapterSpec
from tensoradapt.training.options import Training

HERE = Path(__file__).parent
RUNS, CSV = HERE / "runs" / "rates", place(ASKED, "rates.csv")
CHOSEN = HERE.parent / "tensoradapt" / "lab" / "sweeps" / "frontier" / "rates.toml"
SEED, STEPS, RANK, N_VALIDATION = 1000, 2 if ASKED.quick else 40, 8, 500
GRID = {"lora": (1e-3,)} if ASKED.quick else {**dict.fromkeys(FRONTIER, (1e-3, 3e-3)), "full": (3e-5, 1e-4)}


def main() -> None:
    """Choose the rates, and write them unless this is a look."""
    chosen = {kind: choose(kind, grid) for kind, grid in GRID.items()}
    if ASKED.quick or not CSV:
        return
    lines = (
        "# AdamW's learning rates by method, and of full fine-tuning; benchmarks/tune_rates.py writes this file.",
        f"# The smallest rate within one standard error of the best validation accuracy (seed {SEED}; rank {RANK};",
        f"# {STEPS} steps; {N_VALIDATION} examples); the sweep is benchmarks/records/rates.csv.",
        "[lr]",
        *(f"{kind} = {lr}" for kind, lr in chosen.items()),
    )
    CHOSEN.write_text("\n".join(lines) + "\n")
    table(CSV)


def choose(kind: str, grid: tuple[float, ...]) -> float:
    """The smallest rate within one standard error of the best: as good, and farther from divergence."""
    scores = {lr: validation(config(kind, lr)) for lr in grid}
    for _ in range(0 if ASKED.quick else 3):
        best = max(scores, key=lambda lr: scores[lr])
        if best not in (min(scores), max(scores)):
            break
        lr = float(f"{best * 3.16 if best == max(scores) else best / 3.16:.0e}")
        scores[lr] = validation(config(kind, lr))
    top = max(scores.values())
    lr = min(lr for lr, score in scores.items() if score >= top - math.sqrt(top * (1 - top) / N_VALIDATION))
    print(kind, {lr: round(scores[lr], 4) for lr in sorted(scores)}, "->", lr, flush=True)
    return lr


def config(kind: str, lr: float) -> RunConfig:
    """A run of a parameterization, or of full fine-tuning, at a rate."""
    adapter = kind in FRONTIER
    return RunConfig(
        "all-minilm-l6-v2",
        "snippets",
        Training(lr, STEPS, rate("head")),
        kind="adapter" if adapter else kind,
        adapter=AdapterSpec(kind, rank=RANK) if adapter else None,
        data=DataSpec(2000, N_VALIDATION, 64),
        seed=SEED,
    )


def validation(run: RunConfig) -> float:
    """The accuracy on validation of a run, which is computed once."""
    if not is_finished(RUNS, run.name):
        parts = execute(run, "cuda" if torch.cuda.is_available() else "cpu")
        arrays = parts.pop("arrays")
        write_run(RUNS, run.name, **parts, provenance=provenance(), arrays=arrays)
    return read_run(RUNS / run.name).row["validation"] or 0.0


def table(path: Path) -> None:
    """The sweep as a table, without a mark for runs at chance: 64 test examples cannot show it."""
    columns = ("rank", "lr", "head_lr", "steps", "seed", "n_train", "n_validation")
    rows = []
    for run in load_runs(RUNS):
        method = run.row["parameterization"] or run.row["kind"]
        rows.append((method, *(run.row[name] for name in (*columns, "validation"))))
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([("method", *columns, "validation_accuracy"), *sorted(rows, key=lambda row: (row[0], row[2]))])


if __name__ == "__main__":
    main()
