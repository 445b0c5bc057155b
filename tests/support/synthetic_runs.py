"""Runs that were never trained, alone or in the folder of a sweep: known scores, written through the store."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from support.configs import config_of

from tensoradapt.lab.metrics.library import range_of
from tensoradapt.lab.metrics.table import TABLE
from tensoradapt.lab.runs.store import SUMS, Run, load_runs, write_run
from tensoradapt.records import as_json

LABELS = {"cp": "CP (LoRTA)", "tt": "TT (MetaTT)", "tucker": "Tucker", "lora": "LoRA", "vera": "VeRA"}
LEVELS = {"lora": 0.70, "lorta": 0.74, "metatt-4d": 0.72, "vera": 0.6}
RATES = (1e-3, 3e-3, 1e-2)


def metric_document(name: str = "accuracy") -> dict[str, Any]:
    """What a run's result says of its metric; chance is 0.5 of an accuracy and 0 of others."""
    low, high = range_of(name)
    return {"name": name, "low": low, "high": high, "chance": 0.5 if name == "accuracy" else 0.0}


def logits(rng: np.random.Generator, labels: np.ndarray, accuracy: float) -> np.ndarray:
    """(n, 2) logits of which exactly ``round(accuracy * n)`` are right."""
    right = np.zeros(len(labels), bool)
    right[rng.permutation(len(labels))[: round(accuracy * len(labels))]] = True
    guess = np.where(right, labels, 1 - labels)
    return np.stack([1.0 - guess, guess], axis=1) + 0.1


def write_scored(root: Path, config: Any, score: float | None, status: str = "finished") -> None:
    """Write a run of a config that was never trained, with one score on validation and test."""
    scores = {part: {"accuracy": score} for part in ("validation", "test")}
    result = {"status": status, "note": "", "n_params": 9, "metric": metric_document(), **scores}
    empty: Any = {"measurements": {}, "provenance": {}, "arrays": {}}
    with patch("os.fsync"):
        write_run(root, config.id, config=config.as_dict(), result=result, **empty)


def write_synthetic(
    root: Path,
    *,
    kind: str = "adapter",
    parameterization: str | None = "cp",
    rank: int | Mapping[str, int] | None = 4,
    n_params: int = 1000,
    seed: int = 0,
    accuracy: float = 0.8,
    status: str = "finished",
    metric: str = "accuracy",
    n_test: int = 200,
    predictions: bool = True,
    seconds: float = 1.5,
    **changes: Any,
) -> Path:
    """Write one run and return its folder; ``changes`` are fields of its config, ``named`` its method's name."""
    labels = np.random.default_rng(99).integers(0, 2, n_test)
    fields = {"lr": 1e-3, "head_lr": 1e-3, "steps": 100, "batch": 16, "n_train": max(1, n_params), "named": None}
    fields |= changes  # runs of other numbers of parameters have other ids, as what they adapt differs
    model, task = fields.pop("model", "tiny-model"), fields.pop("task", "rte")
    adapter = {"layout": fields.pop("layout", ["layer proj : head dim : model"]), "budget": fields.pop("budget", None)}
    if kind == "adapter":
        fields |= {**adapter, "rank": None if adapter["budget"] else rank}
        fields["named"] = fields["named"] or LABELS.get(str(parameterization))
    of = parameterization if kind == "adapter" else None
    config = config_of(model, task, of, kind=kind, seed=seed, **fields)
    scored = logits(np.random.default_rng([seed, n_params, round(1e6 * accuracy)]), labels, accuracy)
    reached = float((scored.argmax(1) == labels).mean())
    result = {
        "status": status,
        "n_params": {"adapter": n_params, "head": 0, "full": 10_000_000}[kind],
        "n_trained_base": 770,
        "metric": metric_document(metric),
        "validation": {metric: reached},
        "test": {} if config.tuning else {metric: None if status == "diverged" else reached},
        "note": "",
        "adapter": as_json(config.adapter),
    }
    arrays = {"predictions": scored, "labels": labels} if predictions else {}
    if predictions and metric in TABLE:
        right = (scored.argmax(1) == labels).astype(float)
        arrays["scores"] = np.full(n_test, result["metric"]["chance"]) if status == "diverged" else right
    parts = {"measurements": {"seconds": seconds}, "provenance": {"python": "3"}, "arrays": arrays}
    with patch("os.fsync"):  # nine tenths of the time, and these runs need not survive a power cut
        return write_run(root, config.id, config=config.as_dict(), result=result, **parts)


def write_many(
    root: Path,
    curves: Mapping[str, Iterable[tuple[Any, int, float]]],
    *,
    seeds: Iterable[int] = (0, 1, 2),
    spread: float = 0.01,
    head: float | None = 0.70,
    full: float | None = 0.90,
    at_chance: Iterable[str] = (),
) -> list[Run]:
    """Runs of several methods: ``curves`` maps a parameterization to (rank, n_params, accuracy) triples."""
    rng = np.random.default_rng(0)
    broken = set(at_chance)
    for seed in seeds:
        for name, curve in curves.items():
            for rank, n_params, mean in curve:
                accuracy = 0.5 if name in broken else float(np.clip(mean + spread * rng.normal(), 0, 1))
                status = "at chance" if name in broken else "finished"
                write_synthetic(
                    root,
                    parameterization=name,
                    rank=rank,
                    n_params=n_params,
                    seed=seed,
                    accuracy=accuracy,
                    status=status,
                )
        for kind, mean_of in (("head", head), ("full", full)):
            if mean_of is not None:
                write_synthetic(root, kind=kind, seed=seed, accuracy=mean_of + spread * rng.normal())
    return load_runs(root)


def sweep(root: Path, tasks: tuple[str, ...] = ("sst2", "stsb"), seeds: tuple[int, ...] = (0, 1, 2)) -> list[Run]:
    """Runs of a sweep with budgets and tuned rates; the middle rate is the best and the reported one."""
    rng = np.random.default_rng(0)
    for task in tasks:
        for name, level in LEVELS.items():
            same = {"parameterization": name, "rank": None, "task": task, "named": name}
            for i, budget in enumerate((10_000, 30_000, 90_000)):
                for seed in seeds:
                    accuracy = level + 0.03 * i + 0.01 * rng.normal()
                    write_synthetic(root, n_params=budget - 9 * len(name), budget=budget, seed=seed, lr=3e-3,
                                    accuracy=accuracy, **same)  # fmt: skip
            for j, lr in enumerate(RATES):
                write_synthetic(root, n_params=29_000, budget=30_000, seed=1000, lr=lr, tuning=True,
                                accuracy=level - 0.05 * abs(j - 1), **same)  # fmt: skip
        for seed in seeds:
            write_synthetic(root, kind="head", seed=seed, task=task, accuracy=0.6)
    for i, run in enumerate(load_runs(root)):
        lines = [{"event": "started", "time": 60.0 * i}] * (1 + (i == 5)) + [
            {"event": "finished", "time": 60.0 * i + 50}
        ]
        (run.path / "attempts.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return load_runs(root)


def tuned_apart(root: Path, ranks: tuple[int, ...] = (1, 4, 16), head: bool = True) -> list[Run]:
    """Runs of a sweep whose rates were tuned at each rank with two seeds; lora's grid was extended at rank 1."""
    for name, level in LEVELS.items():
        for i, rank in enumerate(ranks):
            same = {"parameterization": name, "rank": rank, "named": name}
            same |= {"n_params": 1000 * rank + len(name)}
            rates = (*RATES, 3.333e-2) if name == "lora" and i == 0 else RATES
            best = 2 if name == "lora" and i == 0 else i % 3  # the number of the best of three rates
            for j, lr in enumerate(rates):
                for seed in (1000, 1001):
                    accuracy = level - 0.05 * abs(j - best) + 0.01 * (seed - 1000)
                    write_synthetic(root, seed=seed, lr=lr, tuning=True, accuracy=accuracy, **same)
            for seed in (0, 1):
                write_synthetic(root, seed=seed, lr=rates[best], accuracy=level + 0.02 * i, **same)
    for lr in RATES if head else ():
        for seed in (1000, 1001):
            write_synthetic(root, kind="head", seed=seed, lr=lr, tuning=True, accuracy=0.6)
    if head:
        write_synthetic(root, kind="head", seed=0, lr=RATES[0], accuracy=0.6)
    return load_runs(root)


def sum_again(folder: Path) -> None:
    """Write the checksums of the files in a run's folder as they are now."""
    files = [path for path in folder.iterdir() if path.name not in (SUMS, "attempts.jsonl")]
    sums = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    (folder / SUMS).write_text(json.dumps(sums))
