"""LoRA-SB starts near a step of full fine-tuning (Ponkshe et al., arXiv 2411.19557)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tensoradapt.networks import least_squares
from tensoradapt.networks.decomposition import leading
from tensoradapt.networks.halves import Array, Halves, measured
from tensoradapt.networks.starts import BOTH, Start
from tensoradapt.published.row import started

if TYPE_CHECKING:
    from tensoradapt.adapter.adapter import Adapter
    from tensoradapt.surgery.factors_from_model import Measured

RATE = 1e-5  # near that of the code on GLUE: 1e-3 over the steps of its warm-up


def halves(_: Array, gradient: Array | None, rank: int) -> Halves:
    """Return the singular vectors of the step of Adam from zero."""
    left, _values, right = leading(-np.sign(measured(gradient)), rank)
    return left, right


def begin_with_step(adapter: Adapter, measured: Measured) -> None:
    """Solve for the zero factors that bring each update closest to a step of Adam on the weights themselves."""
    import torch

    from tensoradapt.layers.stored_matrix import stack
    from tensoradapt.surgery.factors_from_model import adam_step

    plan, rate = adapter.plan, adapter.plan.spec.start_rate or RATE
    for group, tensor in zip(plan.groups, adapter.factored, strict=True):
        network, scale = group.network, tensor.scale

        def step(site: Any, network: Any = network, scale: float = scale) -> torch.Tensor:
            return adam_step(measured, site) / (scale * plan.multiplier(network, site))

        held = {name: value.detach().double().cpu().numpy() for name, value in tensor.factors.items()}
        solved = least_squares.solve(network, stack(group, step).numpy(), held, network.zero)
        with torch.no_grad():
            tensor.trained[network.zero.name].copy_(rate * torch.from_numpy(np.ascontiguousarray(solved)))


STARTS = {"lora-sb": Start("zero", "gradients", BOTH, halves, finish=begin_with_step)}
ROWS = {
    "lora-sb": started(
        "LoRA-SB",
        "Ponkshe et al., arXiv 2411.19557; released code",
        "starts as the nearest of rank r to a step of full fine-tuning, at start_rate, of which its bases are; the "
        "code's gradients are those of a model in train mode",
        parameterization="lora_xs",
        formula="M*L*r**2",
    ),
}
