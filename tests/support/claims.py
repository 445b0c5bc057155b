"""Adapters of a small BERT, for tests of the papers' claims."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from support.models import make, perturb
from support.published_rows import attached, tiny

import tensoradapt as ta
from tensoradapt import published
from tensoradapt.testing.laws import float64

D, H, DIM, L = 30, 5, 6, 3  # the tiny BERT's width, heads, head dimension and layers


ATTENTION = ("q", "k", "v", "o")


def adapter_of(
    projections: Sequence[str], layout: str | None = None, blocks: bool = False, **settings: Any
) -> ta.Adapter:
    """An adapter of the tiny BERT whose factors are all normal."""
    sites = ta.find_sites(make("bert").config, projections, blocks=blocks)
    with float64():
        adapter = ta.Adapter(ta.plan(sites, layout=layout, **settings))
    perturb(adapter, 0.7)
    return adapter


def raw(adapter: ta.Adapter, number: int = 0) -> dict[str, np.ndarray]:
    return {name: value.detach().numpy().copy() for name, value in adapter.factored[number].factors.items()}


def put(adapter: ta.Adapter, values: Factors, number: int = 0) -> None:
    for name, value in values.items():
        held = adapter.factored[number].factors[name]
        assert held.shape == value.shape, f"{name} is {tuple(held.shape)}, given were {value.shape}"
        held.data.copy_(torch.from_numpy(np.ascontiguousarray(value)))


def delta(adapter: ta.Adapter, site: Any) -> np.ndarray:
    return adapter.delta(site.name).detach().numpy()


def khatri_rao(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return np.stack([np.kron(left[:, k], right[:, k]) for k in range(left.shape[1])], axis=1)


# the one factor that each source starts at zero; all rows but those of claim 12
ZERO = {
    **dict.fromkeys(("lora", "rslora", "lora+", "hira"), "B"),
    **dict.fromkeys(("lorta", "lorta-litgpt", "lorta-peft"), "dim"),  # the code's B, (r, d/H)
    **dict.fromkeys(("lotr", "flora", "polar", "tenslora+"), "core"),
    **dict.fromkeys(("fact-tt", "fact-tk", "aurora"), "out"),  # V
    **{"metatt-4d": "out", "metatt-5d": "dim", "metatt-4+1d": "out"},
    **dict.fromkeys((name for name in published.names() if name.startswith("tenslora-cp")), "in"),
    **dict.fromkeys((name for name in published.names() if name.startswith("tenslora-") and "cp" not in name), "core"),
    **dict.fromkeys(("lora-fa", "nola", "sharelora-a", "sharelora-b", "sharelora-ab", "tied-lora"), "B"),
    **{"cara": "in", "vera": "b", "randlora": "L", "tinylora": "v", "loha": "A2", "lokr": "C"},
    **{"krona": "C", "phm": "out2", "compacter": "S", "gralora": "B", "more": "B", "kradapter": "U", "c3a": "K"},
    **dict.fromkeys(("miss", "miss-mini"), "D"),
    **{"mica": "A", "eva": "B", "abba": "B2"},
}


def started(name: str) -> tuple[ta.Adapter, torch.nn.Module]:
    model = tiny()
    with float64():
        return attached(name, model), model


Factors = Mapping[str, np.ndarray]
