"""Work that is done once in a forward pass of the model: the pairs of all sites, contracted together."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

Pairs = list[tuple[Tensor, Tensor]]  # A: (R, in), B: (out, R)


class ForwardPass:
    """The pairs of one adapter's sites while a forward pass of the model runs, for each thread that runs one.

    They are contracted when the first site of a tensor is reached and dropped when the pass ends, so that no pair
    outlives a change of the factors. Outside a pass, as in a layer that a checkpoint computes again, there are none.
    """

    def __init__(self) -> None:
        self._of_thread: dict[int, dict[Hashable, tuple[Any, Mapping[str, Pairs]]]] = {}

    def begin(self) -> None:
        """Begin a pass in this thread."""
        self._of_thread[threading.get_ident()] = {}

    def end(self) -> None:
        """Drop the pairs of this thread's pass."""
        self._of_thread.pop(threading.get_ident(), None)

    def once(
        self, key: Hashable, factors: Iterable[Tensor], contract: Callable[[], Mapping[str, Pairs]]
    ) -> Mapping[str, Pairs] | None:
        """The pairs ``key`` of all sites of a tensor, contracted unless this pass has them; None outside a pass.

        They are contracted anew if a factor was written to, replaced or moved since.
        """
        kept, factors = self._of_thread.get(threading.get_ident()), list(factors)
        if kept is None or any(p.is_inference() for p in factors):
            return None
        state, place = [(id(p), p._version, p.requires_grad) for p in factors], (key, torch.is_grad_enabled())
        if place not in kept or kept[place][0] != state:
            kept[place] = (state, contract())
        return kept[place][1]

    def __reduce__(self) -> tuple[type[ForwardPass], tuple[()]]:
        return ForwardPass, ()  # a copy of an adapter begins without: pairs are parts of a graph


class _Contracted(torch.autograd.Function):
    """A contraction whose graph may be gone through several times, by checkpoints that each have a backward pass.

    Nothing is kept for the backward pass but the factors themselves: it contracts again. So a layer saves as much
    whether the pass had contracted before or not, which a checkpoint that computes it again relies on.
    """

    @staticmethod
    def forward(ctx: Any, contract: Callable[..., Tensor], *factors: Tensor) -> Tensor:
        ctx.contract, ctx.factors, ctx.versions = contract, factors, [p._version for p in factors]
        return contract(*factors)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        if [p._version for p in ctx.factors] != ctx.versions:
            raise RuntimeError(
                "a factor of the adapter has been modified by an inplace operation between the forward pass and its "
                "backward pass; step the optimizer after backward()"
            )
        needs, again = ctx.needs_input_grad[1:], torch.is_grad_enabled()
        with torch.enable_grad():
            given = (
                ctx.factors
                if again
                else [p.detach().requires_grad_(n) for p, n in zip(ctx.factors, needs, strict=True)]
            )
            wanted = [p for p, n in zip(given, needs, strict=True) if n]
            found = iter(torch.autograd.grad(ctx.contract(*given), wanted, gradient, create_graph=again))
        return None, *(next(found) if n else None for n in needs)


def contracted(contract: Callable[..., Tensor], factors: list[Tensor]) -> Tensor:
    """``contract(*factors)``, with a graph that keeps nothing but the factors where it needs one."""
    plain = torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()
    if plain or not torch.is_grad_enabled() or not any(p.requires_grad for p in factors):
        return contract(*factors)
    return _Contracted.apply(contract, *factors)
