"""Switch off torch's fused encoder layers, its fast paths, where they would skip an adapter."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

from tensoradapt.layers.wrapper import Wrapped
from tensoradapt.sites.modules import named_modules
from tensoradapt.surgery.registry import required

FUSED = "activation_relu_or_gelu"  # the activation of an encoder layer's fused kernel; 0 switches the kernel off


def switch_off_fast_paths(model: nn.Module) -> None:
    """Make torch's encoders call their adapted layers; in evaluation they would compute from their weights alone."""
    registry = required(model)
    for module, attribute, off in fast_paths(model, Wrapped):
        registry.fast.append((module, attribute, getattr(module, attribute)))
        setattr(module, attribute, off)


def fast_paths(model: nn.Module, adapted: type[nn.Module]) -> Iterator[tuple[nn.Module, str, Any]]:
    """Yield the fast paths that are on in modules with adapted layers: module, attribute, and the value that is off."""
    for _, module in named_modules(model):
        switches = (nn.TransformerEncoder, "use_nested_tensor", False), (nn.TransformerEncoderLayer, FUSED, 0)
        for kind, attribute, off in switches:
            holds = isinstance(module, kind) and any(isinstance(part, adapted) for part in module.modules())
            if holds and getattr(module, attribute, off) != off:
                yield module, attribute, off
