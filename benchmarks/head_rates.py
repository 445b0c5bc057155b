"""Which learning rate the head needs, by kind of model and of task: the measurements behind the recipe's table.

    python benchmarks/head_rates.py             # runs what is missing; with --only, kinds of model that begin so
    python benchmarks/head_rates.py --report    # writes records/head_rates.csv and prints the table

Each head rate is tried on the frozen base, and some with LoRA r=8, CP r=16 and full fine-tuning: 60 equal steps of 16,
as `tensoradapt frontier --quick` takes, on validation of seeds that no figure has. Text encoder: all-MiniLM-L6-v2;
causal model: SmolLM2-135M; picture model: a DINOv2-small. Texts are rated sentences, as two classes and as numbers;
pictures are scikit-learn's handwritten digits. The last two models are of the plug-in: pip install -e benchmarks/paper.
"""

from __future__ import annotations

import csv
import itertools
import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measure import options, place

ASKED = options(__name__, __doc__, only=[""], report={"action": "store_true", "help": "write the record from the runs"})

import numpy as np

import tensoradapt as ta
from tensoradapt.lab.data import assets
from tensoradapt.lab.runs.store import Run, load_runs

RUNS, STEPS = Path("runs") / "head_rates", 2 if ASKED.quick else 60
HEAD = "frozen base + head"
RATES = (6e-4, 2e-3, 6e-3, 2e-2, 6e-2)
SEEDS = (1000, 1001)
FULL = (1e-5, 3e-5, 6e-5, 1.2e-4)
LORA, CP = {"method": "lora", "rank": 8}, {"method": "cp", "rank": 16}


@dataclass(frozen=True)
class Kind:
    """A model of a kind, its tasks, and the adapters, rates, head rates and seeds tried beside the frozen base."""

    model: str
    tasks: tuple[str, ...]
    adapters: tuple[dict[str, Any], ...] = (LORA, CP)
    lrs: tuple[float, ...] = (2e-3, 4e-4)
    head_lrs: tuple[float, ...] = RATES
    seeds: tuple[int, ...] = SEEDS[:1]
    full_lrs: tuple[float, ...] = ()  # rates of full fine-tuning, at the first of ``head_lrs``


KINDS = {
    "text encoder": Kind("all-minilm-l6-v2", ("snippets", "ratings"), lrs=(2e-3,), seeds=SEEDS),
    "picture model": Kind("dinov2-small-focus", ("digits",), lrs=(8e-4, 4e-4, 2e-3), head_lrs=(6e-3,), full_lrs=FULL),
    "causal model": Kind("smollm2-135m-instruct", ("snippets", "ratings"), (LORA,), head_lrs=(6e-3,)),
}


def ratings(folder: Path) -> dict[str, Any]:
    """The rated sentences as a table of texts and numbers."""
    path = folder / "ratings.csv"
    if not path.exists():
        lines = (assets.fetch("vader-snippets") / "movieReviewSnippets_GroundTruth.txt").read_text().splitlines()
        with path.open("w", newline="") as file:
            rows = [line.split("\t") for line in lines]
            csv.writer(file).writerows([("text", "label"), *((text, rating) for _, rating, text in rows)])
    return {"name": "ratings", "train": str(path), "kind": "regression", "metric": "spearman"}


def digits(folder: Path) -> dict[str, Any]:
    """scikit-learn's digits as a folder of pictures for each class."""
    from PIL import Image
    from sklearn.datasets import load_digits

    found = load_digits()
    for i, (pixels, label) in enumerate(zip(found.images, found.target, strict=True)):
        path = folder / "digits" / str(label) / f"{i:04}.png"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((pixels * 255 / 16).astype(np.uint8)).save(path)
    return {"name": "digits", "train": str(folder / "digits")}


TASKS = {"ratings": ratings, "digits": digits}


def specifications(kind: str) -> Iterator[dict[str, Any]]:
    """A sweep for each task and head rate of the frozen base, then for each rate of the adapters too."""
    of = KINDS[kind]
    RUNS.mkdir(parents=True, exist_ok=True)
    common = {"model": of.model, "tuning": {"seed": 0}, "steps": STEPS, "batch": 16, "precision": "bf16"}
    common |= {"n_train": 2000, "n_validation": 300, "n_test": 100}
    for task in of.tasks:
        common["task"] = TASKS[task](RUNS) if task in TASKS else task
        for rate in RATES:
            own = {"reference": "head", "lr": rate, "seed": list(SEEDS)}
            yield {**common, "head_lr": rate, **own}
        for rate, lr in itertools.product(of.head_lrs, of.lrs):
            own = {"method": list(of.adapters), "lr": lr, "seed": list(of.seeds)}
            yield {**common, "head_lr": rate, **own}
        for lr in of.full_lrs:
            own = {"reference": "full", "lr": lr, "seed": list(of.seeds)}
            yield {**common, "head_lr": of.head_lrs[0], **own}


def row(run: Run) -> dict[str, Any]:
    """What the record says of a run; the peak is the largest median of three losses after the first."""
    losses = np.load(run.path / "losses.npy")
    kind = next(kind for kind, of in KINDS.items() if of.model == run.row["model"])
    task = "regression" if run.row["task"] == "ratings" else "classification"
    peaks = [statistics.median(losses[i : i + 3]) for i in range(1, len(losses) - 2)]
    shown = {"kind": kind, "task": task, "data": run.row["task"], "method": run.row["method"]}
    shown |= {key: run.row[key] for key in ("rank", "lr", "head_lr", "seed")}
    shown |= {
        "metric": run.row["metric"],
        "validation": math.nan if run.row["validation"] is None else run.row["validation"],
    }
    return shown | {"first_loss": float(losses[0]), "peak_loss": max(peaks), "last_loss": float(losses[-1])}


def report() -> None:
    """Write the record and print the mean validation score by kind, data, method and head rate."""
    rows = sorted((row(run) for run in load_runs(RUNS)), key=lambda r: [str(value) for value in r.values()])
    path = place(ASKED, "head_rates.csv")
    if path:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows([{key: f"{v:.6g}" if isinstance(v, float) else v for key, v in r.items()} for r in rows])
    cases = dict.fromkeys((r["kind"], r["task"], r["method"], r["lr"] if r["method"] != HEAD else "") for r in rows)
    for kind, task, method, lr in cases:
        own = [r for r in rows if (r["kind"], r["task"], r["method"]) == (kind, task, method) and lr in (r["lr"], "")]
        means = {
            rate: statistics.fmean(r["validation"] for r in own if r["head_lr"] == rate)
            for rate in sorted({r["head_lr"] for r in own})
        }
        print(kind, task, method, lr, {rate: round(mean, 3) for rate, mean in means.items()})


def main() -> None:
    """Run what is missing, or report."""
    if ASKED.report:
        report()
        return
    for kind in [kind for kind in KINDS if kind.startswith(tuple(ASKED.only))]:
        for specification in list(specifications(kind))[: 1 if ASKED.quick else None]:
            ta.sweep(specification, RUNS.with_name("head_rates_look") if ASKED.quick else RUNS, executor="inline")


if __name__ == "__main__":
    main()
