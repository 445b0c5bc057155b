"""The pairs of stacked experts are written under the names that llama.cpp's converter has for single experts.

The converter takes all experts of a layer or none, so those that are not adapted have pairs of zeros.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from tensoradapt.layers.kinds import STACKED, kind_of
from tensoradapt.sites.site import Site

GATED = ("gate", "up", "down")
# by model type: how a layer names each projection of an expert
NAMES: Mapping[str, Mapping[str, str]] = {
    "mixtral": dict(zip(GATED, (f"block_sparse_moe.experts.{{}}.{w}" for w in ("w1", "w3", "w2")), strict=True)),
    **{kind: {proj: f"mlp.experts.{{}}.{proj}_proj" for proj in GATED} for kind in ("qwen2_moe", "qwen3_moe")},
}


def named(
    model: Any, modules: Mapping[str, nn.Module], sites: Iterable[Site]
) -> dict[str, tuple[tuple[int, int], Site | None]]:
    """Return name, shape (out, in) and site of each matrix of each expert, in the layers that have adapted ones.

    The site is None for an expert that is not adapted. Models of other types than those of ``NAMES``, and without sites
    in stacked experts, give an empty table.
    """
    names = NAMES.get(getattr(getattr(model, "config", None), "model_type", ""))
    adapted = {
        (site.module, site.coord["proj"], site.slot): site
        for site in sites
        if site.slot is not None and kind_of(modules[site.module], site) is STACKED
    }
    if names is None:
        return {}
    found: dict[str, tuple[tuple[int, int], Site | None]] = {}
    for module in dict.fromkeys(module for module, _, _ in adapted):
        n, width, inner = modules[module].down_proj.shape  # type: ignore[misc]
        layer = module.removesuffix("mlp.experts")
        for proj, name in names.items():
            shape = (int(width), int(inner)) if proj == "down" else (int(inner), int(width))
            found |= {
                layer + name.format(expert): (shape, adapted.get((module, proj, expert))) for expert in range(int(n))
            }
    return found
