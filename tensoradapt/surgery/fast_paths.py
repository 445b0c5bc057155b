"""Switch off fast paths that would skip an adapter or its gradient: torch's fused layers, packed 4-bit weights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

from tensoradapt.layers.quantised import PACKS, unpack
from tensoradapt.layers.wrapper import Wrapped
from tensoradapt.sites.modules import named_modules

FUSED = "activation_relu_or_gelu"  # the activation of an encoder layer's fused kernel; 0 switches the kernel off
Switch = tuple[nn.Module, str, Any]  # a module, an attribute, and a value of it


def switch_off_fast_paths(model: nn.Module, adapted: type[nn.Module] = Wrapped) -> list[Switch]:
    """Switch off a model's fast paths; returns their attributes as they were.

    In evaluation torch's encoders would compute from the weights of their adapted layers alone. bitsandbytes would pack
    4-bit weights on processors with AVX-512 BF16, and no gradient flows through a packed layer in later training.
    """
    found = list(fast_paths(model, adapted))
    before = [(module, attribute, getattr(module, attribute)) for module, attribute, _ in found]
    for module, attribute, off in found:
        setattr(module, attribute, off)
        if attribute == PACKS:
            unpack(module)
    return before


def fast_paths(model: nn.Module, adapted: type[nn.Module]) -> Iterator[Switch]:
    """Yield the fast paths that are on: of torch's encoders with adapted layers, and of all 4-bit layers."""
    for _, module in named_modules(model):
        switches = (nn.TransformerEncoder, "use_nested_tensor", False), (nn.TransformerEncoderLayer, FUSED, 0)
        for kind, attribute, off in switches:
            holds = isinstance(module, kind) and any(isinstance(part, adapted) for part in module.modules())
            if holds and getattr(module, attribute, off) != off:
                yield module, attribute, off
        if getattr(module, PACKS, False):
            yield module, PACKS, False
