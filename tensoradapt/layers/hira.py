"""HiRA multiplies the base weight by the update, entry by entry: ``W' = W + W o delta``, of full rank at a small one.

Huang et al., ICLR 2025, equation 4, for LoRA's ``delta = B A``; here delta is that of any network. At a matched scale W
is divided by its root mean square, so that a first step moves the weight as far as LoRA's does.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tensoradapt.adapter.adapter import Adapter
from tensoradapt.adapter.forward_pass import as_computed
from tensoradapt.layers.fused_linear import WIDE, narrowed
from tensoradapt.planning.scale import is_matched


def multiplied(adapter: Adapter, matrix: Tensor, delta: Tensor) -> Tensor:  # (out, in), each
    """Return ``W o delta``, what HiRA adds to a stored matrix; differentiable in delta."""
    return matrix * delta * divisor(adapter, matrix)


@torch.no_grad()
def divisor(adapter: Adapter, matrix: Tensor) -> Tensor:  # ()
    """Return what W o delta is multiplied by: 1 at the paper's scale, 1 / rms(W) at a matched one."""
    if not is_matched(adapter.plan.scale):
        return matrix.new_ones(())
    wide = matrix.to(torch.promote_types(matrix.dtype, torch.float32))
    return wide.square().mean().clamp_min(torch.finfo(wide.dtype).tiny).rsqrt().to(matrix.dtype)


def pair(adapter: Adapter, matrix: Tensor, block: Any, of: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Return a pair whose product is what HiRA adds to a block of a matrix: (W o B A, identity)."""
    a, b = of
    product = ((b @ a).to(matrix) * matrix[block] * divisor(adapter, matrix)).contiguous()
    return product, torch.eye(len(product), dtype=product.dtype, device=product.device)


def linear(base: Any, x: Tensor, a: Tensor, b: Tensor) -> Tensor:  # (*, in) -> (*, out)
    """Compute a linear layer with ``W o (1 + B A)`` in the place of W, in one node that keeps neither product."""
    flat, weight, bias = narrowed(base, x)
    y: Tensor = _Linear.apply(flat, weight, bias, a.to(flat), b.to(flat))  # type: ignore[no-untyped-call]
    return y.view(*x.shape[:-1], len(weight))


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight, a, b)
        first, *rest = parts(weight, a, b)
        return sum((F.linear(x, part) for part in rest), F.linear(x, first, bias))

    @staticmethod
    @as_computed
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, a, b = ctx.saved_tensors
        needs, dx = ctx.needs_input_grad, None
        if needs[0]:
            first, *rest = (g @ part for part in parts(weight, a, b))
            dx = sum(rest, first)
        if not (needs[3] or needs[4]):
            return dx, None, None, None, None
        dense = (g.T @ x) * weight
        return dx, None, None, b.T @ dense if needs[3] else None, dense @ a.T if needs[4] else None


def parts(weight: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, ...]:  # (out, in), each
    """Return what sums to ``W o (1 + B A)``: itself, or W and W o B A where 1 + B A would round B A away."""
    if weight.dtype in WIDE:
        return (torch.addmm(weight.new_ones(1, 1), b, a) * weight,)
    return weight, weight * (b @ a)
