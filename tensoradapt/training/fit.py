"""The training loop, its optimizer and its learning-rate schedule."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tensoradapt import doors
from tensoradapt.adapter.adapter import Adapter
from tensoradapt.checks import Check, check_arguments, check_is, flag, number, of_kind, optional, shown
from tensoradapt.errors import TensorAdaptError, did_you_mean
from tensoradapt.habits import answers_keywords
from tensoradapt.surgery.loss import loss_of
from tensoradapt.surgery.registry import Adapters, model_itself
from tensoradapt.text import count_text, duration_text
from tensoradapt.training.equal_steps import equal_steps
from tensoradapt.training.feed import Feed
from tensoradapt.training.options import Training
from tensoradapt.training.preconditioning import preconditioned
from tensoradapt.training.progress import ProgressBar, is_watched
from tensoradapt.training.reduce_rank import check_schedule, reduce_rank
from tensoradapt.training.state import TrainingState, collect, put_back, trained_parameters

Batch = Mapping[str, Tensor]
BF16 = (8, 0)  # the compute capability from which a GPU has units for bfloat16


def _batches(value: Any, where: str) -> None:
    check_is(where, value, Iterable)
    if getattr(value, "shape", None) == ():  # an array without axes, which looks like an iterable
        raise TensorAdaptError(f"{where} is {shown(value)}; expected one mapping of tensors for each step")


CHECKS: Mapping[str, Check] = {
    "model": model_itself,
    "batches": _batches,
    "loss": optional(of_kind(Callable)),  # type: ignore[arg-type]  # a kind, if no class
    "on_step": optional(of_kind(Callable)),  # type: ignore[arg-type]
    "reduce": optional(of_kind(Mapping)),
    "checkpoint": optional(of_kind(TrainingState)),
}


@dataclass(frozen=True)
class FitResult:
    """The outcome of a training: "finished", or "diverged" with a note that names step and parameter."""

    status: str
    note: str
    losses: tuple[float, ...]
    seconds: tuple[float, ...]  # one for each step

    def __repr__(self) -> str:
        losses = f", loss {self.losses[0]:.4g} to {self.losses[-1]:.4g}" if self.losses else ""
        note = f", {self.note}" if self.note else ""
        taken = f"{count_text(len(self.losses), 'step')} in {duration_text(sum(self.seconds))}"
        return f"FitResult({self.status}, {taken}{losses}{note})"


@answers_keywords(
    learning_rate="it is called lr",
    head_learning_rate="it is called head_lr",
    epochs="give steps, the number of batches to train on",
    num_epochs="give steps, the number of batches to train on",
    max_steps="it is called steps",
    batch_size="the batches have their size already",
    max_grad_norm="it is called clip",
    dtype='it is called precision, such as "bf16"',
)
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
    optimizer: str = "adamw",
    precondition: float | None = None,
    orthonormal: str | None = None,
    precision: str = "fp32",
    reduce: Mapping[int, int] | None = None,
    on_step: Callable[[int, float], None] | None = None,
    progress: bool = True,
    checkpoint: TrainingState | None = None,
) -> FitResult:
    """Train whatever requires gradients with AdamW; leave the model in eval mode (docs/start/first-run.md).

    A loss or gradient that is not finite stops the training before its step: a result ("diverged"), not an error. An
    error leaves the modules in the mode, training or not, that they had.

    Args:
        model: what is trained; usually a model with an adapter.
        batches: one mapping of tensors for each step. Those on the CPU are moved to a model that is on one GPU.
        lr: learning rate of all but ``heads``. It rises over the warm-up, then falls linearly to zero, as ``head_lr``.
        steps: number of optimizer steps.
        head_lr: learning rate of the modules in ``heads``; default ``lr``.
        heads: names of modules, such as "classifier".
        warmup: share of the steps, in [0, 1).
        clip: largest norm of the gradients.
        weight_decay: AdamW's weight decay.
        loss: called with model and batch; default ``model(**batch).loss``.
        optimizer: "adamw", as in transformers' Trainer, or "equal_steps": its steps rescaled by
            ``tensoradapt.equal_steps``. Adapters of a sweep have equal steps by default, so that one rate serves every
            size: a rate that a sweep chose is one of equal steps.
        precondition: epsilon of ``preconditioned``; default plain gradients.
        orthonormal: "landing" or "retraction", by which ``orthonormal`` keeps factors; default free factors.
        precision: "fp32"; "bf16": the model computes under ``torch.autocast``, in which parameters stay fp32; or
            "auto": bf16 on a GPU or CPU that has units for it, else fp32.
        reduce: step -> rank that ``reduce_rank`` reduces the adapter to after that step.
        on_step: called with step (from 1) and loss.
        progress: whether a bar with the loss and the rate of steps is shown, in a notebook or on stderr where that is a
            terminal.
        checkpoint: where the state is kept. A training that was stopped resumes from it and skips the batches before.

    Returns:
        The status, and loss and seconds of each step.

    Raises:
        TensorAdaptError: for settings out of range, nothing to train, or fewer batches than steps.

    >>> import torch
    >>> import tensoradapt as ta
    >>> from transformers import BertConfig, BertForSequenceClassification
    >>> model = BertForSequenceClassification(BertConfig(hidden_size=12, num_hidden_layers=2, num_attention_heads=3))
    >>> adapter = ta.attach(model, "cp", rank=2)
    >>> batches = [{"input_ids": torch.ones(2, 4, dtype=torch.long), "labels": torch.tensor([0, 1])}] * 3
    >>> result = ta.fit(model, batches, lr=1e-3, steps=3, heads=["classifier"])
    >>> result.status, len(result.losses)
    ('finished', 3)
    """
    options = Training(lr, steps, head_lr, optimizer, warmup, clip, weight_decay, precondition, orthonormal, precision)
    bar = ProgressBar(options.steps, on_step) if flag(progress, "progress") and is_watched() else None
    others = {"loss": loss, "reduce": reduce, "on_step": bar or on_step, "checkpoint": checkpoint}
    return training(model, batches, options, heads=heads, shown_by=bar, **others)  # type: ignore[arg-type]


def training(
    model: nn.Module,
    batches: Iterable[Batch],
    options: Training,
    *,
    heads: Sequence[str] = (),
    loss: Callable[[nn.Module, Any], Tensor] | None = None,
    reduce: Mapping[int, int] | None = None,
    on_step: Callable[[int, float], None] | None = None,
    checkpoint: TrainingState | None = None,
    shown_by: ProgressBar | None = None,
) -> FitResult:
    """Train as ``fit`` does, whose options are given as one; arguments are checked before a bar shows."""
    check_arguments(locals(), **CHECKS)
    groups = parameter_groups(model, options.lr, options.head_lr, heads)
    check_schedule(model, reduce or {}, options.steps)
    _check_length(batches, options.steps)
    if options.orthonormal and reduce:
        raise TensorAdaptError(
            "both orthonormal= and reduce= were given; reducing ranks makes factors that are not orthonormal. Leave "
            "one of them out"
        )
    if checkpoint and reduce:
        raise TensorAdaptError(
            "both checkpoint= and reduce= were given; a state has the shapes of one rank. Leave one of them out"
        )
    stepper = optimizer_of(model, groups, options)
    with shown_by or nullcontext(), _in_training_mode(model):
        result = _steps(model, batches, options, stepper, loss, reduce or {}, on_step, checkpoint)
    for adapter in (module for module in model.modules() if isinstance(module, Adapter)):
        adapter.attachment.steps += len(result.losses) * any(p.requires_grad for p in adapter.parameters())
    return result


def _steps(
    model: nn.Module, batches: Iterable[Batch], options: Training, stepper: torch.optim.Optimizer,
    loss: Callable[[nn.Module, Any], Tensor] | None, reduce: Mapping[int, int],
    on_step: Callable[[int, float], None] | None, checkpoint: TrainingState | None,
) -> FitResult:  # fmt: skip
    named, steps = trained_parameters(model), options.steps
    losses, seconds = _resumed(checkpoint, model, stepper)
    schedule, note = _schedule(stepper, options, len(losses)), ""
    context = autocast(options.precision, next(iter(named.values())).device)
    feed = Feed(batches, model, len(losses), steps)
    for step, batch in enumerate(feed, len(losses) + 1):
        start = time.perf_counter()
        value = loss_of(model, batch, loss, context)
        stepper.zero_grad(set_to_none=True)
        value.backward()
        norm = nn.utils.get_total_norm([p.grad for p in named.values() if p.grad is not None])
        feed.prepare()
        measured = _read(value, norm)
        if note := _fault(step, *measured, named):
            break
        nn.utils.clip_grads_with_norm_(list(named.values()), options.clip, norm)
        stepper.step()
        schedule.step()
        if step in reduce:
            reduce_rank(model, stepper, rank=reduce[step])
            named = trained_parameters(model)
        losses.append(measured[0])
        seconds.append(time.perf_counter() - start)
        if checkpoint and checkpoint.due(step):
            checkpoint.write({**collect(model, stepper), **_history(losses, seconds)})
        if on_step:
            on_step(step, losses[-1])
    if not note and len(losses) < steps:
        raise TensorAdaptError(f"the batches ended after {len(losses)} of {steps} steps; give one for each step")
    return FitResult("diverged" if note else "finished", note, tuple(losses), tuple(seconds))


@contextmanager
def _in_training_mode(model: nn.Module) -> Iterator[None]:
    """Put a model into training mode, then into eval mode; an error puts back the modes that were there."""
    modes = [(module, module.training) for module in model.modules()]
    model.train()
    try:
        yield
    except BaseException:
        for module, mode in modes:
            module.training = mode
        raise
    model.eval()


def _check_length(batches: Iterable[Batch], steps: int) -> None:
    """Raise TensorAdaptError where batches say how many they are, and are fewer than the steps."""
    try:
        n = len(batches)  # type: ignore[arg-type]
    except TypeError:  # a generator, or a loader over one
        return
    if n < steps:
        raise TensorAdaptError(
            f"len(batches) is {n} and steps is {steps}; expected a batch for each step: take fewer, or repeat the "
            f"batches, as in (batch for _ in range({-(-steps // max(n, 1))}) for batch in batches)"
        )


def optimizer_of(model: nn.Module, groups: Sequence[Mapping[str, Any]], options: Training) -> torch.optim.Optimizer:
    """Make AdamW over the groups, with the rules that are asked for: those of gradients first, equal steps last."""
    adamw = torch.optim.AdamW(list(map(dict, groups)), weight_decay=options.weight_decay)
    if options.precondition is not None:
        preconditioned(adamw, model, options.precondition)
    if options.orthonormal is not None:
        doors.get("steps", options.orthonormal)(adamw, model)
    return equal_steps(adamw, model) if options.optimizer == "equal_steps" else adamw


def parameter_groups(
    model: nn.Module, lr: float, head_lr: float | None = None, heads: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Group all parameters that require gradients for an optimizer (docs/guides/distributed.md).

    Args:
        model: a model with an adapter.
        lr: learning rate of factors, times their own multiplier (LoRA+), and of the rest.
        head_lr: learning rate of the modules in ``heads``; default ``lr``.
        heads: names of modules, such as "classifier".

    Returns:
        The groups, as torch's optimizers take them.

    Raises:
        TensorAdaptError: where nothing requires gradients, for heads that are not there, and for an adapted layer in
            whose place the model has another module.

    >>> import torch
    >>> import tensoradapt as ta
    >>> from transformers import BertConfig, BertForSequenceClassification
    >>> model = BertForSequenceClassification(BertConfig(hidden_size=12, num_hidden_layers=2, num_attention_heads=3))
    >>> adapter = ta.attach(model, "cp", rank=2)
    >>> groups = ta.parameter_groups(model, lr=1e-3, head_lr=1e-4, heads=["classifier"])
    >>> optimizer = torch.optim.AdamW(groups)
    >>> sorted({group["lr"] for group in groups})
    [0.0001, 0.001]
    """
    check_arguments(locals(), model=of_kind(nn.Module), lr=number, head_lr=optional(number))
    named = trained_parameters(model)
    _check_heads(heads, named)
    if not named:
        raise TensorAdaptError(
            "nothing in the model requires gradients; attach an adapter, plan with train=, or load a PEFT adapter with "
            "is_trainable=True"
        )
    # found among the modules, not at the root: DDP and torch.compile put the model inside another
    adapters = [module for module in model.modules() if isinstance(module, Adapter)]
    if merged := [adapter for adapter in adapters if adapter.gate.merged]:
        raise TensorAdaptError(
            f"{len(merged)} adapters are merged into the weights, and training would not move them; call unmerge(model)"
        )
    for registry in (module for module in model.modules() if isinstance(module, Adapters)):
        registry.check_layers(model)
    multipliers = {parameter: rate for adapter in adapters for parameter, rate in adapter.rates().items()}
    by_rate: dict[float, list[nn.Parameter]] = {}
    for name, parameter in named.items():
        in_head = any(name.startswith(f"{head}.") for head in heads)
        rate = (head_lr or lr) if in_head else lr * multipliers.get(parameter, 1.0)
        by_rate.setdefault(rate, []).append(parameter)
    return [{"params": parameters, "lr": rate} for rate, parameters in by_rate.items()]


def _check_heads(heads: Sequence[str], named: Mapping[str, nn.Parameter]) -> None:
    if not isinstance(heads, list | tuple) or not all(isinstance(head, str) for head in heads):
        raise TensorAdaptError(f'heads is {shown(heads)}; expected names of modules, as in heads=("classifier",)')
    for head in heads:
        if not any(name.startswith(f"{head}.") for name in named):
            valid = dict.fromkeys(name.rpartition(".")[0] for name in named)
            raise TensorAdaptError(
                f"heads names {head!r}, in which nothing requires gradients{did_you_mean(head, list(valid)[:8])}"
            )


def _schedule(optimizer: torch.optim.Optimizer, options: Training, done: int) -> torch.optim.lr_scheduler.LambdaLR:
    """Make the schedule as it stands after ``done`` steps."""
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, options), last_epoch=done - 1)


def _rate(step: int, options: Training) -> float:
    """Return the multiplier of the learning rates at a step counted from 0: up over the warm-up, then down to zero."""
    rising = max(1, round(options.warmup * options.steps))
    if step < rising:
        return (step + 1) / rising
    return (options.steps - step) / max(1, options.steps - rising)


def _resumed(
    checkpoint: TrainingState | None, model: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[list[float], list[float]]:
    """Put a kept state back; return losses and seconds of the steps before it, or two empty lists."""
    state = checkpoint.read() if checkpoint else None
    if not checkpoint or state is None or not put_back(model, optimizer, state):
        return [], []
    checkpoint.resumed = len(state["losses"])
    return state["losses"].tolist(), state["seconds"].tolist()


def _history(losses: Sequence[float], seconds: Sequence[float]) -> dict[str, Tensor]:
    return {name: torch.tensor(v, dtype=torch.float64) for name, v in (("losses", losses), ("seconds", seconds))}


def _read(value: Tensor, norm: Tensor) -> tuple[float, float]:
    """Return a loss and the norm of its gradients, for which a device is waited for once."""
    norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm  # FSDP2's
    loss, total = torch.stack([value.detach().reshape(()), norm.detach().to(value.device)]).tolist()
    return loss, total


def _fault(step: int, loss: float, norm: float, named: Mapping[str, nn.Parameter]) -> str:
    """Return what is not finite, or an empty text; called before the clipping, which would spread it to all."""
    if not math.isfinite(loss):
        why = ", before anything was trained: check the batch, its labels and the model's weights" if step == 1 else ""
        return f"step {step}: the loss is {loss}{why}"
    if math.isfinite(norm):
        return ""
    first = next(name for name, p in named.items() if p.grad is not None and not torch.isfinite(p.grad).all())
    return f"step {step}: the gradient of {first} is not finite"


def autocast(precision: str, device: torch.device | str) -> torch.autocast:
    """Make the context that a model computes in: "bf16" forms matrix products in bfloat16, "fp32" changes nothing.

    It keeps no parameters that were cast: within another such context they would be those of the first step for ever.
    """
    bf16 = computed_in(precision, device) == "bf16"
    return torch.autocast(torch.device(device).type, torch.bfloat16, enabled=bf16, cache_enabled=False)


def computed_in(precision: str, device: torch.device | str) -> str:
    """Return what a precision is on a device: "auto" is bf16 where that has units for it, and elsewhere fp32."""
    if precision != "auto":
        return precision
    return "bf16" if has_bf16(torch.device(device)) else "fp32"


def has_bf16(device: torch.device) -> bool:
    """Return whether a device has units that multiply matrices in bfloat16, so faster than in float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= BF16
    return device.type == "cpu" and bool(torch.cpu._is_avx512_bf16_supported())
