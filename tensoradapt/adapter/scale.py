"""Scale: the multiplier of a tensor, matched to LoRA's first step or a paper's own."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from tensoradapt.adapter import first_step
from tensoradapt.errors import TensorAdaptError
from tensoradapt.networks.network import Factor, Network

LORA_RANK, LORA_ALPHA = 8, 16.0  # the reference whose first step "matched" means


def matched_scale(network: Network, factors: Mapping[str, Tensor], alpha: float | None = None) -> float:
    """The multiplier s with which the first Adam step per unit learning rate is that of LoRA r=8, alpha=16.

    Solves s^2 E ||sum_k rate_k J_k sign(J_k^T G)||^2 / numel = 4 * 8 / (3 d_in) from the drawn values: J_k is the exact
    Jacobian of the dense tensor in trainable factor k, G a gradient of independent normal entries (``first_step``).
    Raises TensorAdaptError where two factors are zero.
    """
    target = (alpha or LORA_ALPHA) / LORA_RANK * math.sqrt(LORA_RANK / (3 * network.layout.in_))
    power = first_step.mean_square(network, factors)
    if not power > 0:
        zeros = [factor.name for factor in network.factors if not factors[factor.name].count_nonzero()]
        raise TensorAdaptError(
            f"the tensor {network.equation} has no first step: its factors {', '.join(zeros)} are zero, and nothing "
            'would ever move; expected one zero factor at most. Give other values, or scale="paper"'
        )
    return target / math.sqrt(power)


def paper_scale(network: Network, alpha: float | None) -> float:
    """The paper's multiplier, times the bounds of frozen factors (stored with unit variance)."""
    frozen = math.prod(_std(f) for f in network.factors if not f.trainable and f.source == "draw")
    return (network.alpha if alpha is None else alpha) / network.divisor * frozen


def _std(factor: Factor) -> float:
    kind, value = factor.paper or ("normal", 1.0)
    return value / math.sqrt(3) if kind == "uniform" else value
