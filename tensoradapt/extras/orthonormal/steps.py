"""Keep factors orthonormal while they are trained, by the landing field of PoLAR or the retraction of StelLA.

A factor is unfolded to a matrix X (n, r) whose columns are its bond on the way to the factor that starts at zero and
holds the size; G is its gradient. Lion et al., arXiv 2506.03133 (PoLAR) give the optimizer the landing field
``(G X^T - X G^T) X + weight X (X^T X - I)`` in place of G. Li et al., arXiv 2510.01938 (StelLA) give it
``G - X G^T X``, project its step to the tangent space of X and take the polar factor of what that moves X to. Columns
that start with length c keep it: then X / c is orthonormal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tensoradapt.adapter.adapter import Adapter
from tensoradapt.checks import check_arguments, number, of_kind, one_of
from tensoradapt.errors import TensorAdaptError
from tensoradapt.extras.orthonormal.gauge import Unfolding, radius, unfoldings
from tensoradapt.planning.scale import is_matched
from tensoradapt.training.held import held_adapters, refuse_closure, refuse_lbfgs
from tensoradapt.training.state import torch_optimizer

WAYS = ("landing", "retraction")
ITERATIONS = 9  # Newton's method, scaled, takes no more for any step that float64 can hold
Member = tuple[Unfolding, nn.Parameter]


def orthonormal(optimizer: torch.optim.Optimizer, model: nn.Module, by: str = "landing", weight: float = 5e-3) -> Any:
    """Keep every factor but the one that starts at zero orthonormal in the later steps of ``optimizer``.

    For networks whose bonds each join two factors without a cycle (Tucker, tensor-trains, LoRA, PoLAR's and StelLA's).
    Columns keep the length that the plan's scale draws them with: 1 for "polar" and "stella" with ``paper=True``. All
    state is in the parameters and the optimizer, so a training resumes bit for bit. Call it before ``equal_steps``.

    Args:
        optimizer: any torch optimizer with the factors; gets hooks around its step.
        model: a model with an attached adapter.
        by: "landing" changes gradients alone, and X^T X comes near to I; "retraction" changes gradients and steps, and
            X^T X is I after every step.
        weight: of the landing field's pull to X^T X = I, above 0; by default that of PoLAR's released runs.

    Returns:
        The hooks' handle; ``handle.remove()`` ends them.

    Raises:
        TensorAdaptError: without an adapter; for networks without an orthonormal form, ranks above a factor's size,
            factors that are all frozen or start from the base weights or gradients; for an optimizer that lacks
            factors, or needs a closure; for sharded, merged or mapped adapters; and for retraction after
            ``equal_steps``.

    >>> import tensoradapt as ta
    >>> from transformers import BertConfig, BertForSequenceClassification
    >>> model = BertForSequenceClassification(BertConfig(hidden_size=12, num_hidden_layers=2, num_attention_heads=3))
    >>> adapter = ta.attach(model, ta.plan(model, "polar", rank=2, paper=True))
    >>> handle = ta.orthonormal(torch.optim.AdamW(adapter.parameters(), lr=4e-3), model)
    """
    check_arguments(
        locals(), optimizer=torch_optimizer, model=of_kind(nn.Module), by=partial(one_of, WAYS), weight=number
    )
    refuse_lbfgs(optimizer)
    held = held_adapters(optimizer, model, "keep orthonormal", "orthonormal factors")
    for adapter in held:
        _check(adapter)
    if by == "landing":
        return _Landing(optimizer, held, weight)
    if hasattr(optimizer, "equal_steps"):
        raise TensorAdaptError(
            "this optimizer rescales its steps already, and a retraction projects them before; call orthonormal first, "
            "then equal_steps"
        )
    return _Retraction(optimizer, held)


def landing(optimizer: torch.optim.Optimizer, model: nn.Module) -> Any:
    """Keep factors orthonormal by landing; the value of ``orthonormal="landing"`` in ``fit``."""
    return orthonormal(optimizer, model, "landing")


def retraction(optimizer: torch.optim.Optimizer, model: nn.Module) -> Any:
    """Keep factors orthonormal by retraction; the value of ``orthonormal="retraction"`` in ``fit``."""
    return orthonormal(optimizer, model, "retraction")


class _Landing:
    """The hook that replaces gradients by landing fields."""

    def __init__(self, optimizer: torch.optim.Optimizer, adapters: Sequence[Adapter], weight: float) -> None:
        self.adapters, self.weight = adapters, weight
        self.handles = [optimizer.register_step_pre_hook(self.before)]

    @torch.no_grad()
    def before(self, _: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        refuse_closure(args, kwargs)
        for members, length in _alike(self.adapters):
            x, gradient = _stacked(members), _stacked(members, gradients=True)
            _write(members, landing_field(x, gradient, self.weight, length), gradients=True)

    def remove(self) -> None:
        for handle in self.handles:
            handle.remove()


class _Retraction:
    """The hooks that project gradients and steps, and take a factor back to orthonormal columns.

    The last is registered anew at each step, so that it runs after those of equal steps, which move factors by a
    multiple of the projected step.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, adapters: Sequence[Adapter]) -> None:
        self.adapters = adapters
        self._kept: list[tuple[list[Member], float, Tensor]] = []
        first, second = optimizer.register_step_pre_hook(self.before), optimizer.register_step_post_hook(self.project)
        self.handles = [first, second]

    @torch.no_grad()
    def before(self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        refuse_closure(args, kwargs)
        self._kept = [(members, length, _stacked(members)) for members, length in _alike(self.adapters)]
        for members, length, x in self._kept:
            _write(members, riemannian(x, _stacked(members, gradients=True), length), gradients=True)
        for handle in self.handles[2:]:
            handle.remove()
        self.handles[2:] = [optimizer.register_step_post_hook(self.retract)]

    @torch.no_grad()
    def project(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        if hasattr(optimizer, "equal_steps"):  # which is to measure what is left of the step
            for members, length, x in self._kept:
                _write(members, x + tangent(x, _stacked(members) - x, length))

    @torch.no_grad()
    def retract(self, *_: Any) -> None:
        # what is projected already stays
        moved = [(x + tangent(x, _stacked(members) - x, length)) / length for members, length, x in self._kept]
        for (members, length, _kept), found in zip(self._kept, polar(*moved), strict=True):
            _write(members, length * found)
        self._kept = []

    def remove(self) -> None:
        for handle in self.handles:
            handle.remove()


def landing_field(x: Tensor, gradient: Tensor, weight: float, length: float = 1.0) -> Tensor:  # each (..., n, r)
    """Return ``(G X^T - X G^T) X + weight X (X^T X - I)``, without a product of size (n, n)."""
    gram = x.mT @ x
    pull = x @ (gram / length**2) - x
    return (gradient @ gram - x @ (gradient.mT @ x) + weight * pull) / length**2


def riemannian(x: Tensor, gradient: Tensor, length: float = 1.0) -> Tensor:  # each (..., n, r)
    """Return ``G - X G^T X``, the gradient in the canonical metric of orthonormal X."""
    return gradient - x @ (gradient.mT @ x) / length**2


def tangent(x: Tensor, step: Tensor, length: float = 1.0) -> Tensor:  # each (..., n, r)
    """Return ``D - X sym(X^T D)``, the nearest step that keeps X^T X to first order."""
    inner = x.mT @ step
    return step - x @ (inner + inner.mT) / (2 * length**2)


def polar(*stacks: Tensor) -> list[Tensor]:  # each (..., n, r), of full rank
    """Return the orthonormal matrix nearest to each matrix ``y``: ``y (y^T y)^(-1/2)``."""
    found = []
    for y, root in zip(stacks, _inverse_roots([y.mT @ y for y in stacks]), strict=True):
        x = y @ root
        for _ in range(2):  # removes rounding
            x = x + x @ (_eye(x) - x.mT @ x) / 2
        found.append(x)
    return found


def _inverse_roots(grams: Sequence[Tensor]) -> list[Tensor]:  # each (..., r, r)
    """Return the inverse square roots, of all that have one size at once."""
    found: dict[int, Tensor] = {}
    for n, device in dict.fromkeys((gram.shape[-1], gram.device) for gram in grams):
        places = [i for i, gram in enumerate(grams) if (gram.shape[-1], gram.device) == (n, device)]
        flat = [grams[i].reshape(-1, n, n) for i in places]
        parts = _inverse_root(torch.cat(flat)).split([len(one) for one in flat])
        found |= {i: part.reshape(grams[i].shape) for i, part in zip(places, parts, strict=True)}
    return [found[i] for i in range(len(grams))]


def _inverse_root(gram: Tensor) -> Tensor:  # (k, r, r)
    """Return ``gram^(-1/2)`` by Newton's method, scaled (Higham, Functions of Matrices, 2008, sections 5.5 and 6.3).

    An eigenvalue decomposition waits for a GPU.
    """
    root, inverse = gram, _eye(gram).expand_as(gram)
    for _ in range(ITERATIONS):
        other, back = torch.linalg.inv_ex(inverse).inverse, torch.linalg.inv_ex(root).inverse
        scale = ((other * back.mT).sum((-2, -1)) / (root * inverse.mT).sum((-2, -1)))[..., None, None] ** 0.25
        root, inverse = (scale * root + other / scale) / 2, (scale * inverse + back / scale) / 2
    return inverse


def _eye(like: Tensor) -> Tensor:
    return torch.eye(like.shape[-1], dtype=like.dtype, device=like.device)


def _alike(adapters: Sequence[Adapter]) -> list[tuple[list[Member], float]]:
    """Group the orthonormal factors that have gradients by the shape of their matrices and the length of columns."""
    groups: dict[Any, list[Member]] = {}
    for adapter in adapters:
        matched = is_matched(adapter.plan.scale)
        for tensor in adapter.factored:  # looked up at each step: reducing ranks replaces them
            for unfolding in unfoldings(tensor.network):
                value = tensor.trained[unfolding.factor.name] if unfolding.factor.trainable else None
                if value is not None and value.grad is not None:
                    key = unfolding.shape, radius(unfolding, matched), value.device
                    groups.setdefault(key, []).append((unfolding, value))
    return [(members, length) for (_, length, _), members in groups.items()]


def _stacked(members: Sequence[Member], gradients: bool = False) -> Tensor:  # (matrices, n, r), float64
    """Return the matrices of factors, or of their gradients, in one copy."""
    return torch.cat([u.unfold(_held(value, gradients)) for u, value in members]).double()


def _write(members: Sequence[Member], matrices: Tensor, gradients: bool = False) -> None:
    counts = [value.numel() // (matrices.shape[-2] * matrices.shape[-1]) for _, value in members]
    folded = [u.fold(part) for (u, _), part in zip(members, matrices.split(counts), strict=True)]
    torch._foreach_copy_([_held(value, gradients) for _, value in members], folded)


def _held(value: nn.Parameter, gradients: bool) -> Tensor:
    return value.grad if gradients and value.grad is not None else value.detach()


def _check(adapter: Adapter) -> None:
    """Raise TensorAdaptError unless every tensor has a trained factor that can be orthonormal."""
    method, start = adapter.plan.spec.name, adapter.plan.start
    if adapter.mapped:
        raise TensorAdaptError(
            "a map makes the adapter's factors of other numbers, and orthonormal moves the factors themselves; train "
            "with free factors, or plan without map="
        )
    for network in dict.fromkeys(tensor.network for tensor in adapter.factored):
        found = unfoldings(network)
        if not found:
            raise TensorAdaptError(
                f"{method} has no orthonormal form: the bonds of {network.equation} have a cycle, or join more than "
                "two factors, or there is none. Expected bonds that each join two factors without a cycle (polar, "
                "stella, lora, tucker, tensor_train, tt_matrix). Use preconditioned or equal_steps for this network"
            )
        trained = [unfolding for unfolding in found if unfolding.factor.trainable]
        if not trained:
            raise TensorAdaptError(
                f"{method} has frozen factors only ({', '.join(u.factor.name for u in found)}) beside "
                f"{network.zero.name}, which holds the size; expected a trained one to keep orthonormal. Use "
                "preconditioned for one trained factor"
            )
        for unfolding in trained:
            _check_factor(unfolding, method, start)


def _check_factor(unfolding: Unfolding, method: str, start: str) -> None:
    (rows, columns), factor = unfolding.shape, unfolding.factor
    if columns > rows:
        raise TensorAdaptError(
            f"factor {factor.name!r} of {method} is a matrix of {rows} x {columns} ({unfolding.bond}={columns}), which "
            f"cannot have orthonormal columns; make {unfolding.bond} {rows} or less"
        )
    if factor.source == "base" or start == "gradient":
        what = "gradients" if start == "gradient" else "the base weights"
        raise TensorAdaptError(
            f"factor {factor.name!r} of {method} starts from {what}, with columns of lengths of its own; expected one "
            "that is drawn, as with start='zero'"
        )
