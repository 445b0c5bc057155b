"""The pairs of stacked experts, under the names of those readers that have a place for them.

llama.cpp has names for single experts: it takes all experts of a layer or none, so those that are not adapted have
pairs of zeros. PEFT adapts a stacked parameter as a whole (``target_parameters``): the pairs of its experts lie side by
side in one A and one B.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tensoradapt.layers.kinds import STACKED, kind_of
from tensoradapt.sites.site import Site

GATED = ("gate", "up", "down")
# by model type: how a layer names each projection of an expert
NAMES: Mapping[str, Mapping[str, str]] = {
    "mixtral": dict(zip(GATED, (f"block_sparse_moe.experts.{{}}.{w}" for w in ("w1", "w3", "w2")), strict=True)),
    **{kind: {proj: f"mlp.experts.{{}}.{proj}_proj" for proj in GATED} for kind in ("qwen2_moe", "qwen3_moe")},
}


Block = tuple[slice | list[int], slice]  # rows and columns of a matrix
WHOLE: Block = slice(None), slice(None)
Halves = tuple[Tensor, Tensor]  # A (R, in) and B (out, R)


@dataclass(frozen=True)
class ExpertMatrix:
    """One expert's matrix that has a pair: its shape (out, in), and the sites in it; without any the pair is zero."""

    shape: tuple[int, int]
    sites: Sequence[tuple[Site, Block]]
    parameter: str = ""  # the stacked one that holds it, for PEFT


def for_llama_cpp(model: Any, modules: Mapping[str, nn.Module], sites: Iterable[Site]) -> dict[str, ExpertMatrix]:
    """Return each matrix of each expert by llama.cpp's name, in the layers that have adapted ones.

    Models of other types than those of ``NAMES``, and without sites in stacked experts, give an empty table.
    """
    names = NAMES.get(getattr(getattr(model, "config", None), "model_type", ""))
    adapted = {(site.module, site.coord["proj"], site.slot): site for site in _stacked(modules, sites)}
    if names is None:
        return {}
    found: dict[str, ExpertMatrix] = {}
    for module in dict.fromkeys(module for module, _, _ in adapted):
        n, width, inner = modules[module].down_proj.shape  # type: ignore[misc]
        layer = module.removesuffix("mlp.experts")
        for proj, name in names.items():
            shape = (int(width), int(inner)) if proj == "down" else (int(inner), int(width))
            for expert in range(int(n)):
                site = adapted.get((module, proj, expert))
                found[layer + name.format(expert)] = ExpertMatrix(shape, [(site, WHOLE)] if site else [])
    return found


def for_peft(_: Any, modules: Mapping[str, nn.Module], sites: Iterable[Site]) -> dict[str, ExpertMatrix]:
    """Return each expert's matrix in the stacked parameters that have adapted ones, as ``MODULE[EXPERT.PARAMETER]``.

    A parameter is (experts, out, in); the experts that are not adapted have no sites.
    """
    adapted: dict[tuple[str, str], dict[int, list[tuple[Site, Block]]]] = {}
    for site in _stacked(modules, sites):
        assert site.slot is not None
        adapted.setdefault((site.module, site.parameter), {}).setdefault(site.slot, []).append((site, site.block))
    found: dict[str, ExpertMatrix] = {}
    for (module, parameter), of_experts in adapted.items():
        n, out, in_ = getattr(modules[module], parameter).shape
        for expert in range(n):
            key = f"{module}[{expert}.{parameter}]"
            found[key] = ExpertMatrix((out, in_), of_experts.get(expert, []), f"{module}.{parameter}")
    return found


def _stacked(modules: Mapping[str, nn.Module], sites: Iterable[Site]) -> list[Site]:
    """Return the sites in stacked experts."""
    return [site for site in sites if site.slot is not None and kind_of(modules[site.module], site) is STACKED]


def side_by_side(
    modules: Mapping[str, nn.Module], matrices: Mapping[str, ExpertMatrix], halves: Mapping[str, Halves]
) -> dict[str, Halves]:
    """Return the one A and B that PEFT has for each stacked parameter, under the module's name in a PeftModel.

    Of E experts of rank R, A is (E R, in) with the rows of an expert together, and B (out, R E) with the experts of a
    row of A together. PEFT wraps a module once for each parameter, the last one outermost.
    """
    stacks: dict[str, list[Halves]] = {}
    for key, matrix in matrices.items():
        stacks.setdefault(matrix.parameter, []).append(halves[key])
    depths: dict[str, int] = {}
    found: dict[str, Halves] = {}
    for parameter in sorted(stacks, key=lambda name: -_place(modules, name)):
        module = parameter.rpartition(".")[0]
        depth = depths[module] = depths.get(module, -1) + 1
        a, b = (torch.stack(side) for side in zip(*stacks[parameter], strict=True))  # (E, R, in), (E, out, R)
        found[module + depth * ".base_layer"] = a.flatten(0, 1), b.permute(1, 2, 0).flatten(1)
    return found


def _place(modules: Mapping[str, nn.Module], name: str) -> int:
    """Return where a parameter stands in its module."""
    module, _, parameter = name.rpartition(".")
    return [name for name, _ in modules[module].named_parameters(recurse=False)].index(parameter)
