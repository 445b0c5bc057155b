"""The precision that a model computes in."""

from __future__ import annotations

import torch


def autocast(precision: str, device: torch.device | str) -> torch.autocast:
    """The context that a model computes in: "bf16" forms matrix products in bfloat16, "fp32" changes nothing."""
    return torch.autocast(torch.device(device).type, torch.bfloat16, enabled=precision == "bf16")
