"""A sweep's folder with made-up results."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from support.synthetic_runs import write_synthetic

from tensoradapt.lab.runs.store import Run, load_runs


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


LEVELS = {"lora": 0.70, "lorta": 0.74, "metatt-4d": 0.72, "vera": 0.6}


RATES = (1e-3, 3e-3, 1e-2)
