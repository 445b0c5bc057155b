"""Training: the plainest loop that is right."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tensoradapt.errors import TensorAdaptError
from tensoradapt.training.optimizer import _optimizer, _schedule, _trained, check_settings, parameter_groups
from tensoradapt.training.reduce_rank import check_schedule, reduce_rank
from tensoradapt.training.state import TrainingState, collect, put_back

Batch = Mapping[str, Tensor]


@dataclass(frozen=True)
class FitResult:
    """How a training run went. ``status``: "finished" or "diverged"; ``note`` then names step and parameter."""

    status: str
    note: str
    losses: tuple[float, ...]
    seconds: tuple[float, ...]  # of each step


def fit(
    model: nn.Module,
    batches: Iterable[Batch],
    *,
    lr: float,
    steps: int,
    head_lr: float | None = None,
    heads: Sequence[str] = (),
    warmup: float = 0.1,
    clip: float = 1.0,
    weight_decay: float = 0.0,
    loss: Callable[[nn.Module, Any], Tensor] | None = None,
    precondition: float | None = None,
    reduce: Mapping[int, int] | None = None,
    on_step: Callable[[int, float], None] | None = None,
    checkpoint: TrainingState | None = None,
) -> FitResult:
    """Trains whatever requires gradients with AdamW; leaves the model in eval mode.

    Parameters of the modules in ``heads`` learn at ``head_lr``, all others (factors) at ``lr``. Both rise linearly
    over the first ``warmup`` share of ``steps`` and fall linearly to zero. Gradients are clipped to norm ``clip``.
    ``loss(model, batch)`` defaults to ``model(**batch).loss``. ``precondition``: the epsilon of ``preconditioned``,
    None for plain gradients. ``reduce``: step -> rank that the adapter is reduced to after it (``reduce_rank``). A loss
    or gradient that is not finite stops the run before the step is taken: it is a
    result ("diverged"), not an error. ``checkpoint``: where the state is kept, and from where a training that was
    stopped goes on; it passes over the batches that it has had.
    """
    check_settings(lr, head_lr, steps, warmup)
    groups = parameter_groups(model, lr, head_lr, heads)
    check_schedule(model, reduce or {}, steps)
    _check_checkpoint(checkpoint, reduce)
    named = _trained(model)
    optimizer = _optimizer(model, groups, weight_decay, precondition)
    losses, seconds = _resumed(checkpoint, model, optimizer)
    schedule = _schedule(optimizer, steps, warmup, len(losses))
    note = ""
    model.train()
    for step, batch in _numbered(batches, len(losses) + 1, steps):
        start = time.perf_counter()
        value = loss(model, batch) if loss else model(**batch).loss
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        if note := _fault(step, value, named, clip):
            break
        optimizer.step()
        schedule.step()
        if reduce and step in reduce:
            reduce_rank(model, optimizer, rank=reduce[step])
            named = _trained(model)
        losses.append(float(value.detach()))
        seconds.append(time.perf_counter() - start)
        if checkpoint and checkpoint.due(step):
            checkpoint.write({**collect(model, optimizer), **_history(losses, seconds)})
        if on_step:
            on_step(step, losses[-1])
    model.eval()
    if not note and len(losses) < steps:
        raise TensorAdaptError(f"the batches ended after {len(losses)} of {steps} steps; give one for each step")
    return FitResult("diverged" if note else "finished", note, tuple(losses), tuple(seconds))


def _check_checkpoint(checkpoint: TrainingState | None, reduce: Mapping[int, int] | None) -> None:
    if checkpoint and reduce:
        raise TensorAdaptError(
            "both checkpoint= and reduce= were given; a state has the shapes of one rank. Leave one of them out"
        )


def _resumed(
    checkpoint: TrainingState | None, model: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[list[float], list[float]]:
    """Losses and seconds of the steps that a kept state has behind it, which is put back; none without one."""
    state = checkpoint.read() if checkpoint else None
    if not checkpoint or state is None or not put_back(model, optimizer, state):
        return [], []
    checkpoint.resumed = len(state["losses"])
    return state["losses"].tolist(), state["seconds"].tolist()


def _history(losses: Sequence[float], seconds: Sequence[float]) -> dict[str, Tensor]:
    return {name: torch.tensor(v, dtype=torch.float64) for name, v in (("losses", losses), ("seconds", seconds))}


def _numbered(batches: Iterable[Batch], first: int, last: int) -> Iterator[tuple[int, Batch]]:
    """Batches with their step, counted from 1, from ``first`` on."""
    numbered = zip(range(1, last + 1), batches, strict=False)
    return ((step, batch) for step, batch in numbered if step >= first)


def _fault(step: int, value: Tensor, named: Mapping[str, nn.Parameter], clip: float) -> str:
    """Clips the gradients; what is not finite, or nothing."""
    if not torch.isfinite(value):
        return f"step {step}: the loss is {float(value.detach())}"
    gradients = {name: p.grad for name, p in named.items() if p.grad is not None}
    norm = nn.utils.get_total_norm(list(gradients.values()))
    if torch.isfinite(norm):
        nn.utils.clip_grads_with_norm_(list(named.values()), clip, norm)
        return ""
    # before clipping: a norm that is not finite would spread to every gradient and hide the first
    first = next(name for name, gradient in gradients.items() if not torch.isfinite(gradient).all())
    return f"step {step}: the gradient of {first} is not finite"
