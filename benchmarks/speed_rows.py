"""The rows of `speed.py`: full fine-tuning, the adapters of PEFT and LyCORIS, and ours, at a rank and at a count.

A row knows how its package puts an adapter into a model and, as far as the package can, how it is planned, saved,
loaded beside another and chosen. LyCORIS' rows are there where it is installed (the extra ``benchmarks``).
"""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import peft
from random_models import sites_of
from torch import nn

import tensoradapt as ta
from tensoradapt import parameterizations
from tensoradapt.sites.site import Sites

USUAL, LEAST, SAME = "at a usual rank", "about the parameters of LoRA r=1", "about the parameters of LoRA r=8"
GROUPS = {USUAL: None, LEAST: 1, SAME: 8}  # with the rank of the LoRA that has the count
LORA: Mapping[str, Any] = {"lora_alpha": 16, "lora_dropout": 0.0}
PEERS: Mapping[str, tuple[str, Callable[..., peft.PeftConfig], int]] = {
    "PEFT LoRA r=8": ("lora", partial(peft.LoraConfig, **LORA), 8),
    "PEFT LoRA r=1": ("lora", partial(peft.LoraConfig, **LORA), 1),
    "PEFT DoRA r=8": ("dora", partial(peft.LoraConfig, use_dora=True, **LORA), 8),
    "PEFT HiRA r=8": ("hira", peft.HiraConfig, 8),
    "PEFT VeRA r=256": ("vera", peft.VeraConfig, 256),
    "PEFT LoHa r=8": ("loha", partial(peft.LoHaConfig, alpha=8), 8),
    "PEFT LoKr r=8": ("lokr", partial(peft.LoKrConfig, alpha=8), 8),
}
LYCORIS = {"LyCORIS LoHa r=8": ("loha", "LohaModule"), "LyCORIS LoKr r=8": ("lokr", "LokrModule")}
RANKLESS = ("dense", "quanta", "khatri_rao", "block_circulant", "shared_block")
OTHER_RANKS = {"cp": (8, 64), "vera": (256,), **dict.fromkeys(RANKLESS, (None,))}  # the others: 8
# planned as published adapters: those with splits, and LoTR, which is a Tucker of one tensor for each projection
PUBLISHED = {"kronecker": "lokr", "loretta": "loretta-rep", "quanta": "quanta", "tt_matrix": "dota", "lotr": "lotr"}
PUBLISHED |= {"block_low_rank": "gralora", "khatri_rao": "kradapter", "block_circulant": "c3a", "shared_block": "miss"}
PUBLISHED |= {"compacter": "compacter"}


@dataclass(frozen=True)
class Row:
    """One competitor; ``abilities`` are its other methods that can be timed."""

    name: str
    package: str
    method: str
    group: str = USUAL
    abilities: ClassVar[tuple[str, ...]] = ("attach",)

    def plan(self, model: nn.Module) -> Any:
        """What ``attach`` takes."""

    def attach(self, model: nn.Module, plan: Any) -> nn.Module:
        """The model with the adapter, or what wraps it."""
        raise NotImplementedError


class Full(Row):
    """Every parameter is trained."""

    abilities: ClassVar[tuple[str, ...]] = ()

    def attach(self, model: nn.Module, plan: Any) -> nn.Module:
        return copy.deepcopy(model).requires_grad_(True)


@dataclass(frozen=True)
class Peft(Row):
    """An adapter of HF PEFT."""

    config: Callable[[], peft.PeftConfig] = peft.PeftConfig
    abilities: ClassVar[tuple[str, ...]] = ("attach", "save", "load", "use")

    def attach(self, model: nn.Module, plan: Any) -> nn.Module:
        return peft.get_peft_model(model, self.config())

    def save(self, model: Any, folder: Path) -> None:
        model.save_pretrained(folder)

    def load(self, model: Any, folder: Path, name: str) -> None:
        model.load_adapter(folder, name)

    def use(self, model: Any, name: str) -> None:
        model.set_adapter(name)


@dataclass(frozen=True)
class Lycoris(Row):
    """An adapter of LyCORIS, which has no adapters by name; its modules are made one by one, as by its own wrapper."""

    kind: str = ""
    targets: tuple[str, ...] = ()

    def attach(self, model: nn.Module, plan: Any) -> nn.Module:
        kind = getattr(importlib.import_module("lycoris"), self.kind)
        for path in self.targets:
            target = model.get_submodule(path)
            module = kind(path, target, lora_dim=8, alpha=8).to(target.weight)
            module.apply_to()
            model.add_module("lycoris_" + path.replace(".", "_"), module)
        return model


@dataclass(frozen=True)
class Ours(Row):
    """One of our parameterizations over its usual layout; ``arguments`` are those of ``ta.plan``."""

    arguments: Mapping[str, Any] | None = None
    abilities: ClassVar[tuple[str, ...]] = ("plan", "attach", "save", "load", "use")

    def plan(self, model: nn.Module) -> ta.Plan:
        plan = ta.plan(sites_of(model), **(self.arguments or {}))
        if plan.spec.budget and plan.n_params < plan.spec.budget / 2:
            raise ta.TensorAdaptError(f"reaches {plan.n_params:,} of {plan.spec.budget:,} parameters")
        return plan

    def attach(self, model: nn.Module, plan: Any) -> nn.Module:
        ta.attach(model, plan)
        return model

    def save(self, model: nn.Module, folder: Path) -> None:
        ta.adapters(model)["default"].save(folder)

    def load(self, model: nn.Module, folder: Path, name: str) -> None:
        ta.load(model, folder, name=name)

    def use(self, model: nn.Module, name: str) -> None:
        ta.use(model, name)


def rows_of(base: nn.Module) -> list[Row]:
    """All rows for a model."""
    sites = sites_of(base)
    return [Full("full", "", "full fine-tuning"), *_of_others(sites), *_ours_by_rank(), *_ours_by_count(sites)]


def _of_others(sites: Sites) -> Iterator[Row]:
    targets = tuple(sorted({site.module for site in sites}))
    for name, (method, config, rank) in PEERS.items():
        group = LEAST if rank == 1 else USUAL
        yield Peft(name, "PEFT", method, group, partial(config, r=rank, target_modules=list(targets)))
    for name, (method, kind) in LYCORIS.items() if find_spec("lycoris") else ():
        yield Lycoris(name, "LyCORIS", method, USUAL, kind, targets)


def _ours_by_rank() -> Iterator[Row]:
    for name in (*parameterizations.names(), "lotr"):
        for rank in OTHER_RANKS.get(name, (8,)):
            size = f" r={rank}" if rank else ""
            yield Ours(name + size, "tensoradapt", name, USUAL, {**_method(name), "rank": rank})
    for name in ("unilora", "nola"):  # over LoRA, at the sizes of their papers
        yield Ours(f"{name} r=4", "tensoradapt", name, USUAL, {"method": name, "rank": 4})
    for name in ("polar", "stella-diagonal"):
        yield Ours(f"{name} r=8", "tensoradapt", name, USUAL, {"method": name, "rank": 8})
    for name in ("lora", "cp"):
        yield Ours(f"{name} hira r=8", "tensoradapt", name, USUAL, {"method": name, "rank": 8, "rule": "hira"})


def _ours_by_count(sites: Sites) -> Iterator[Row]:
    of_rank_1 = sum(site.out + site.in_ for site in sites)
    for group, rank in GROUPS.items():
        for name in (*parameterizations.names(), "lotr") if rank else ():
            if OTHER_RANKS.get(name) != (None,):
                budget = (rank or 0) * of_rank_1
                arguments = {**_method(name), "budget": budget}
                yield Ours(f"{name} n≤{budget:,}", "tensoradapt", name, group, arguments)


def _method(name: str) -> dict[str, Any]:
    if name in PUBLISHED:
        return {"method": PUBLISHED[name], "paper": True, "on_mismatch": "split"}
    return {"method": name}
