"""What one run is: a frozen record from which its id, its folder name and all its results follow."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property, lru_cache
from importlib.resources import files
from typing import Any

from tensoradapt import parameterizations
from tensoradapt import published as papers
from tensoradapt.networks.layout import RUNTIME
from tensoradapt.planning.plan import Plan, plan
from tensoradapt.runs.store import run_id
from tensoradapt.sites.find import find_sites


@dataclass(frozen=True)
class RunConfig:
    """One run. ``kind``: "adapter" (head trained besides), "head" (frozen base) or "full" (everything)."""

    kind: str
    seed: int
    model: str
    task: str
    lr: float
    steps: int
    parameterization: str | None = None
    layout: tuple[str, ...] | None = None
    projections: tuple[str, ...] = ("attention",)
    rank: int | Mapping[str, int] | None = None
    budget: int | None = None
    head_lr: float | None = None  # None: lr
    batch: int = 32
    n_train: int | None = None
    n_validation: int | None = None
    n_test: int | None = None
    max_length: int = 64
    scale: str | float = "matched"
    published: str | None = None  # with it, empty projections are the paper's own targets
    plan: Mapping[str, Any] = field(default_factory=dict)  # further arguments of ``tensoradapt.plan``
    tuning: bool = False  # made to choose a learning rate: in no mean
    method: str | None = None  # what a sweep calls it; a name, and so not part of the id

    @property
    def label(self) -> str:
        """The name shown in tables and figures."""
        return self.method or self._label()

    def _label(self) -> str:
        if self.published is not None:
            return self.published
        if self.parameterization is None:
            return {"head": "frozen base, trained head", "full": "full fine-tuning"}[self.kind]
        return getattr(parameterizations.get(self.parameterization), "label", self.parameterization)

    def as_dict(self) -> dict[str, Any]:
        """What is stored as config.json."""
        return {**asdict(self), "label": self.label}

    @cached_property
    def id(self) -> str:
        """The hash of what the run means. Fields that came later count where they are not at their default, so that
        earlier runs keep their ids.
        """
        later: dict[str, Any] = {"published": None, "plan": {}, "tuning": False, "method": self.method}
        said = {key: value for key, value in asdict(self).items() if key not in later or value != later[key]}
        return run_id({**said, "label": self._label()})

    @property
    def name(self) -> str:
        """Folder name: readable, and unique by the first half of the id."""
        parts = [self.parameterization or self.kind, self._size(), f"seed{self.seed}", self.id[:8]]
        return "-".join(part for part in parts if part)

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> RunConfig:
        """The config of a config.json.

        >>> config = RunConfig("head", 0, "tiny-random-bert", "planted", 1e-3, 60)
        >>> RunConfig.from_dict(config.as_dict()) == config
        True
        """
        known = {key: value for key, value in record.items() if key != "label"}
        lists = {key: tuple(known[key]) for key in ("layout", "projections") if known.get(key) is not None}
        return cls(**{**known, **lists})

    @property
    def title(self) -> str:
        """What progress is reported of."""
        size = f" n≤{self.budget:,}" if self.budget else f" {rank_text(self.rank)}" if self.rank else ""
        return f"{self.label}{size}, seed {self.seed}"

    def _size(self) -> str:
        if self.budget is not None:
            return f"n{self.budget}"
        if self.rank is None:
            return ""
        return f"r{self.rank}" if isinstance(self.rank, int) else "r" + "_".join(map(str, self.rank.values()))


def rank_text(rank: int | Mapping[str, int]) -> str:
    """A rank, or those of each bond, in the space of a column.

    >>> rank_text(8), rank_text({"layer": 2, "out": 4})
    ('r=8', 'r=2 4')
    """
    return f"r={' '.join(map(str, rank.values())) if isinstance(rank, Mapping) else rank}"


def plan_of(config: RunConfig, model: Any, heads: Sequence[str] = ()) -> Plan:
    """The plan of an adapter run, for a model or its config."""
    wanted = config.projections[0] if len(config.projections) == 1 else config.projections
    layouts = config.layout or (papers.get(config.published).layout if config.published else ())
    with_task = any(RUNTIME[0] in text.split(":")[0].split() for text in layouts)
    besides: dict[str, Any] = {key: _widths(v) if key == "split" else v for key, v in config.plan.items()}
    return plan(
        find_sites(model, wanted) if wanted else model,
        config.layout,
        config.parameterization,
        config.rank,
        published=config.published,
        budget=config.budget,
        scale=config.scale,
        train=tuple(heads),
        tasks=(config.task,) if with_task else (),
        **besides,
    )


def _widths(split: Mapping[str, Any]) -> dict[str, Any]:
    """Parts of modes, or by width, whose numbers JSON and TOML keep as text."""
    return {
        mode: {int(width): tuple(parts) for width, parts in found.items()} if isinstance(found, Mapping) else found
        for mode, found in split.items()
    }


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


def layouts_for(family: str, projections: Sequence[str] = ("attention",)) -> tuple[str, ...]:
    """The usual layouts of a parameterization; over attention alone, its first."""
    every = parameterizations.layouts_of(family)
    return every[:1] if tuple(projections) == ("attention",) else every


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
