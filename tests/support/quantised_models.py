"""Small models with quantised layers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

X = torch.randn(4, 64, generator=torch.Generator().manual_seed(1))


def four_bits(quant_type: str) -> nn.Module:
    return full_precision(quant_type).to("cpu")  # which quantises


def full_precision(quant_type: str) -> nn.Module:
    """A 4-bit model that moving it will quantise."""
    from bitsandbytes.nn import Linear4bit

    model = Two(lambda: Linear4bit(64, 32, quant_type=quant_type, compute_dtype=torch.float32))
    model.load_state_dict(plain().state_dict())
    return model


class Two(nn.Module):
    """Two linear layers side by side."""

    def __init__(self, make: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(make() for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([layer(x) for layer in self.layers], dim=-1)


def loaded(model: nn.Module) -> nn.Module:
    model.load_state_dict(plain().state_dict())
    return model.to("cpu")  # which quantises


def plain() -> nn.Module:
    torch.manual_seed(0)
    model = Two(lambda: nn.Linear(64, 32))
    with torch.no_grad():
        for layer in model.layers:
            layer.weight.normal_(std=0.05)
    return model
