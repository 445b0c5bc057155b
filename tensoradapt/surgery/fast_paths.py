"""Fast paths: torch's fused attention and encoder layers, switched off where they would skip an adapter."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

from tensoradapt.layers.wrapper import Wrapped
from tensoradapt.sites.unwrapped import ROOT
from tensoradapt.surgery.registry import Adapters

FUSED = "activation_relu_or_gelu"  # of an encoder layer: which of them its fused kernel is to use, 0 for neither


def switch_off_fast_paths(model: nn.Module) -> None:
    """In evaluation torch's encoder computes from the weights of its layers without calling them; here it must not."""
    found: Adapters = getattr(model, ROOT)
    for module, attribute, off in fast_paths(model, Wrapped):
        found.fast.append((module, attribute, getattr(module, attribute)))
        setattr(module, attribute, off)


def fast_paths(model: nn.Module, adapted: type[nn.Module]) -> Iterator[tuple[nn.Module, str, Any]]:
    """Torch's fast paths that are on in modules with adapted layers: module, attribute, and what switches it off."""
    for module in model.modules():
        switches = (nn.TransformerEncoder, "use_nested_tensor", False), (nn.TransformerEncoderLayer, FUSED, 0)
        for kind, attribute, off in switches:
            holds = isinstance(module, kind) and any(isinstance(part, adapted) for part in module.modules())
            if holds and getattr(module, attribute, off) != off:
                yield module, attribute, off
