"""The runs of `tensoradapt frontier`: sizes, rates and configurations."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

from tensoradapt.runs.config import RunConfig
from tensoradapt.runs.plan_run import layouts_for


@dataclass(frozen=True)
class Size:
    """How much of everything a frontier runs."""

    ranks: tuple[int, ...]
    seeds: tuple[int, ...]
    steps: int
    n_train: int
    n_validation: int
    n_test: int


SIZES: Mapping[str, Size] = {
    "quick": Size((8,), (0,), 24, 1000, 200, 400),
    "default": Size((1, 8), (0, 1, 2), 30, 2000, 100, 500),
    "full": Size((1, 4, 16, 64), (0, 1, 2), 100, 4000, 300, 1500),
}


FRONTIER = ("lora", "cp", "tucker", "tensor_train", "vera")


@lru_cache(maxsize=1)
def rates() -> dict[str, float]:
    """Learning rates by parameterization ("head", "full" too), chosen on validation by benchmarks/tune_rates.py."""
    return json.loads((files("tensoradapt.sweeps") / "rates.json").read_text())["lr"]


def rate(kind: str) -> float:
    """The tuned learning rate; for a parameterization that was not tuned, LoRA's, which the matched scale makes a fair
    guess.
    """
    return rates().get(kind, rates()["lora"])


def frontier_configs(
    size: Size,
    *,
    model: str,
    task: str,
    families: Sequence[str] = FRONTIER,
    ranks: Sequence[int] | None = None,
    budgets: Sequence[int] | None = None,
    layout: Sequence[str] | None = None,
    projections: Sequence[str] = ("attention",),
    seeds: Sequence[int] | None = None,
    lr: float | None = None,
    steps: int | None = None,
) -> list[RunConfig]:
    """The runs of a frontier, seed by seed, so that the figure covers every configuration as early as it can."""
    shared: dict[str, Any] = {
        "model": model,
        "task": task,
        "steps": size.steps if steps is None else steps,
        "n_train": size.n_train,
        "n_validation": size.n_validation,
        "n_test": size.n_test,
        "head_lr": rate("head"),
    }
    adapter: dict[str, Any] = {"kind": "adapter", "projections": tuple(projections)}
    sizes: list[dict[str, Any]] = (
        [{"budget": n} for n in budgets] if budgets else [{"rank": n} for n in ranks or size.ranks]
    )
    made = []
    for seed in seeds or size.seeds:
        made += [RunConfig("head", seed, lr=rate("head"), **shared)]
        for one in sizes:
            for family in families:
                layouts = tuple(layout or layouts_for(family, projections))
                one_lr = rate(family) if lr is None else lr
                made.append(
                    RunConfig(seed=seed, lr=one_lr, parameterization=family, layout=layouts, **one, **adapter, **shared)
                )
        made += [RunConfig("full", seed, lr=rate("full"), **shared)]
    return list({run.name: run for run in made}.values())  # a rank or seed named twice is one run
