"""Training: the plainest loop that is right."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tensoradapt.adapter.adapter import Adapter
from tensoradapt.errors import TensorAdaptError
from tensoradapt.training.preconditioning import preconditioned
from tensoradapt.training.reduce_rank import check_schedule, reduce_rank
from tensoradapt.training.state import Checkpoint, collect, put_back

Batch = Mapping[str, Tensor]


@dataclass(frozen=True)
class Fitted:
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
    checkpoint: Checkpoint | None = None,
) -> Fitted:
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
    return Fitted("diverged" if note else "finished", note, tuple(losses), tuple(seconds))


def check_settings(lr: float, head_lr: float | None, steps: int, warmup: float = 0.0) -> None:
    """Refuses rates and steps that ``fit`` cannot use."""
    for what, value in (("lr", lr), ("head_lr", lr if head_lr is None else head_lr)):
        if not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
            raise TensorAdaptError(f"{what} is {value!r}; expected a finite number above 0")
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise TensorAdaptError(f"steps is {steps!r}; expected a whole number of 1 or more")
    if not 0 <= warmup < 1:
        raise TensorAdaptError(f"warmup is {warmup!r}; expected a share of the steps, from 0 up to, not including, 1")


def _optimizer(
    model: nn.Module, groups: list[dict[str, Any]], weight_decay: float, precondition: float | None
) -> torch.optim.Optimizer:
    optimizer = torch.optim.AdamW(groups, weight_decay=weight_decay)
    if precondition is not None:
        preconditioned(optimizer, model, precondition)
    return optimizer


def _check_checkpoint(checkpoint: Checkpoint | None, reduce: Mapping[int, int] | None) -> None:
    if checkpoint and reduce:
        raise TensorAdaptError(
            "both checkpoint= and reduce= were given; a state has the shapes of one rank. Leave one of them out"
        )


def _resumed(
    checkpoint: Checkpoint | None, model: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[list[float], list[float]]:
    """Losses and seconds of the steps that a kept state has behind it, which is put back; none without one."""
    state = checkpoint.read() if checkpoint else None
    if not checkpoint or state is None or not put_back(model, optimizer, state):
        return [], []
    checkpoint.resumed = len(state["losses"])
    return state["losses"].tolist(), state["seconds"].tolist()


def _history(losses: Sequence[float], seconds: Sequence[float]) -> dict[str, Tensor]:
    return {name: torch.tensor(v, dtype=torch.float64) for name, v in (("losses", losses), ("seconds", seconds))}


def _schedule(
    optimizer: torch.optim.Optimizer, steps: int, warmup: float, done: int
) -> torch.optim.lr_scheduler.LambdaLR:
    """The schedule, as it is after ``done`` steps."""
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps, warmup), last_epoch=done - 1)


def _numbered(batches: Iterable[Batch], first: int, last: int) -> Iterator[tuple[int, Batch]]:
    """Batches with their step, counted from 1, from ``first`` on."""
    numbered = zip(range(1, last + 1), batches, strict=False)
    return ((step, batch) for step, batch in numbered if step >= first)


def parameter_groups(
    model: nn.Module, lr: float, head_lr: float | None = None, heads: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """What requires gradients, as an optimizer's groups: factors at ``lr`` times their own multiplier (LoRA+), modules
    in ``heads`` at ``head_lr``.

    Raises TensorAdaptError where nothing requires gradients.
    """
    named = _trained(model)
    if not named:
        raise TensorAdaptError("nothing in the model requires gradients; attach an adapter, or plan with train=")
    # found among the modules, not at the root: DDP and torch.compile put the model inside another
    held = [module for module in model.modules() if isinstance(module, Adapter)]
    multipliers = {parameter: rate for adapter in held for parameter, rate in adapter.rates().items()}
    found: dict[float, list[nn.Parameter]] = {}
    for name, parameter in named.items():
        in_head = any(name.startswith(f"{head}.") for head in heads)
        rate = (head_lr or lr) if in_head else lr * multipliers.get(parameter, 1.0)
        found.setdefault(rate, []).append(parameter)
    return [{"params": parameters, "lr": rate} for rate, parameters in found.items()]


def _trained(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def _rate(step: int, steps: int, warmup: float) -> float:
    """The schedule's multiplier at a step counted from 0: up over the warm-up, then down to zero after the last."""
    rising = max(1, round(warmup * steps))
    return (step + 1) / rising if step < rising else (steps - step) / max(1, steps - rising)


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
