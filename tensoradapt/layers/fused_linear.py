"""Compute a linear layer and its pair in one autograd node: ``x W^T + bias + (x A^T) B^T``, with no pass between.

Products keep the rank as the first axis, (R, tokens): for the few rows of a small rank the CPU's matrix product is then
up to eight times as fast as in the order in which autograd would take it.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from tensoradapt.adapter.forward_pass import as_computed
from tensoradapt.planning.site_ways import Way, cheapest

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
GLOBAL_HOOKS = [getattr(torch_module, f"_global{kind}") for kind in HOOKS]  # these run in every module
WIDE = (torch.float32, torch.float64)


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, way: Way) -> Tensor:
        y, inner = _forward(x, weight, bias, a, b, way)
        ctx.save_for_backward(x, weight, a, b, inner)
        ctx.way = way
        return y

    @staticmethod
    @as_computed
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, a, b, inner = ctx.saved_tensors
        needs, way, dx, da, db = ctx.needs_input_grad, ctx.way, None, None, None
        if way.dense_gradient and (needs[3] or needs[4]):
            dense = g.T @ x
            da, db = (b.T @ dense if needs[3] else None), (dense @ a.T if needs[4] else None)
        if (needs[0] and not way.forms_weight) or (needs[3] and not way.dense_gradient):
            back = b.T @ g.T
        if needs[0] and way.forms_weight:
            dx = g @ torch.addmm(weight, b, a)
        elif needs[0]:
            dx = (g @ weight).addmm_(back.T, a)
        if not way.dense_gradient:
            da = back @ x if needs[3] else None
            if needs[4] and (inner is None or torch.is_grad_enabled()):  # a second gradient goes through x and A
                inner = a @ x.T
            db = (inner @ g).T if needs[4] else None
        return dx, None, None, da, db, None


def _forward(
    x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, way: Way
) -> tuple[Tensor, Tensor | None]:  # (tokens, out), and (R, tokens) where it was made
    if way.forms_weight:
        return F.linear(x, torch.addmm(weight, b, a), bias), None
    inner = a @ x.T
    return F.linear(x, weight, bias).addmm_(inner.T, b.T), inner


def fits(base: nn.Module, x: Any) -> bool:
    """Say whether a call is a plain product that nothing looks into: no hook, transform, compilation or subclass."""
    if torch.compiler.is_compiling() or type(base) is not nn.Linear or type(x) is not Tensor or "forward" in vars(base):
        return False
    # at once, not through nn.Module; a hook may make the weight, as spectral_norm's and prune's do
    weight, bias = base._parameters.get("weight"), base._parameters.get("bias")
    return (
        type(weight) is nn.Parameter
        and not weight.requires_grad
        and not (bias is not None and bias.requires_grad)
        and x.ndim > 0
        and x.numel() > 0
        and not x.is_meta  # which autocast does not know
        and x.shape[-1] == weight.shape[1]
        and (x.dtype == weight.dtype or _narrowed(x) is not None)
        and not any(getattr(base, hooks) for hooks in HOOKS)
        and not any(GLOBAL_HOOKS)
        and not torch.jit.is_tracing()
        and not torch._C._are_functorch_transforms_active()
        and torch.autograd.forward_ad._current_level < 0
    )


def fused_linear(base: Any, x: Tensor, a: Tensor, b: Tensor) -> Tensor:  # (*, in) -> (*, out)
    """Compute ``base(x) + x A^T B^T`` by the cheapest way, where ``fits`` allows it."""
    flat, weight, bias = narrowed(base, x)
    a, b = a.to(flat), b.to(flat)  # under autocast a half that was contracted is narrow and one that was not is wide
    trains = torch.is_grad_enabled() and (flat.requires_grad or a.requires_grad or b.requires_grad)
    trained = (a.requires_grad, b.requires_grad) if trains else None
    way = cheapest(len(flat), len(a), tuple(weight.shape), trained, flat.dtype in WIDE, flat.device.type)
    y = _Fused.apply(flat, weight, bias, a, b, way) if trains else _forward(flat, weight, bias, a, b, way)[0]
    return y.view(*x.shape[:-1], len(weight)) if x.ndim != 2 else y


def narrowed(base: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return x as (tokens, in), the weight and the bias of a layer, in the dtype that autocast computes in."""
    flat, weight, bias = x.reshape(-1, x.shape[-1]), base._parameters["weight"], base._parameters["bias"]
    if (dtype := _narrowed(x)) is None:
        return flat, weight, bias
    return flat.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)


def _narrowed(x: Tensor) -> torch.dtype | None:
    """Return the dtype that autocast computes a product in; None where it is off, or leaves x as it is."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) and x.dtype != torch.float64 else None
