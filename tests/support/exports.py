"""Adapters to export, their dense updates, and those of a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from support.models import make, perturb
from torch import Tensor, nn

import tensoradapt as ta
from tensoradapt.lora.read_folder import read_lora

FAMILIES = ("bert", "gpt2", "llama", "phi3", "gpt_neox")
TIED = ("layer proj : head dim : model", "layer proj : ff : model")
WAYS: dict[str, dict[str, Any]] = {
    "cp": {"layout": TIED, "rank": 3},
    "cp-crop": {"method": "cp", "layout": TIED, "rank": 3, "on_mismatch": "crop"},
    "tucker": {"layout": TIED, "rank": 2},
    "tensor_train": {"layout": "(layer proj) : out : in", "rank": 4},
    "subtract": {"method": "tensor_train", "layout": "layer proj : out : in", "rank": 3, "start": "subtract"},
    "lora": {"rank": 2, "scale": "paper", "alpha": 5},
    "vera": {"rank": 6},
    "loha": {"rank": 2},
    "dense": {"rank": 1},
}


def attached(family: str, way: str = "cp", projections: Any = "all", **finding: Any) -> tuple[nn.Module, ta.Adapter]:
    """A model with a perturbed adapter."""
    model = make(family)
    sites = ta.find_sites(model, projections, **finding)
    adapter = ta.attach(model, ta.plan(sites, train=(), **{"method": way, **WAYS[way]}), seed=7)
    perturb(adapter)
    return model, adapter


def updates(adapter: ta.Adapter, base: nn.Module) -> dict[str, Tensor]:
    """The adapter's dense updates of whole modules as logical (out, in) matrices."""
    found: dict[str, Tensor] = {}
    for site in adapter.plan.sites:
        module = base.get_submodule(site.module)
        conv = type(module).__name__ == "Conv1D"
        whole = found.setdefault(site.module, torch.zeros_like(module.weight.T if conv else module.weight))
        whole[site.block] += adapter.delta(site).detach()
    return found


def products(folder: Path) -> dict[str, Tensor]:
    return {module: torch.from_numpy(pair.b @ pair.a) for module, pair in read_lora(folder).items()}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor], rtol: float = 1e-14) -> None:
    """Equal in Frobenius norm; modules that the adapter does not have are zero."""
    assert not set(expected) - set(found)
    for module, dense in found.items():
        if module not in expected:
            assert not dense.any()
            continue
        norm = expected[module].norm()
        assert norm > 0 and (dense - expected[module]).norm() <= rtol * norm, module
