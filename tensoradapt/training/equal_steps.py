"""Equal steps move the adapted weights equally far in each optimizer step, whatever their factoring and rank.

The root mean square of a step's change, over all entries of an adapter's matrices, becomes ``lr T``. T is what LoRA
r=8, alpha=16 moves in Adam's first step per unit learning rate, 2 sqrt(8 / (3 d_in)): the target of the matched scale;
over matrices of several widths, the root mean square of theirs. Only the length of a step changes, not its direction.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from tensoradapt.adapter.adapter import Adapter
from tensoradapt.checks import check_arguments, of_kind
from tensoradapt.errors import TensorAdaptError
from tensoradapt.planning.scale import first_step
from tensoradapt.training.distance.adapter_distance import Distance
from tensoradapt.training.distance.step_length import solve
from tensoradapt.training.held import held_adapters, refuse_closure, refuse_lbfgs, refuse_merged
from tensoradapt.training.state import torch_optimizer

Opt = TypeVar("Opt", bound=torch.optim.Optimizer)
Values = Sequence[Mapping[str, Tensor]]  # the factors of each tensor of an adapter, or a map's numbers, by name


def equal_steps(optimizer: Opt, model: nn.Module) -> Opt:
    """Rescale every later step of ``optimizer`` so that it moves the weights that adapters change by ``lr T``.

    The learning rate then means one thing for every network and rank: how far the weights move in a step. Each adapter
    has one length for all of its tensors. Heads, shared biases and DoRA's magnitudes take the optimizer's own steps. A
    step that moves no weight, or not by a finite distance, is left as it is and counted.

    Args:
        optimizer: any torch optimizer with the factors; schedules, clipping and mixed precision work as before.
        model: a model with an attached adapter.

    Returns:
        The same optimizer. ``optimizer.equal_steps`` has ``lengths``, by which the last step of each adapter was
        multiplied, and ``unchanged``, the number of steps left as they were.

    Raises:
        TensorAdaptError: without an adapter; for an optimizer that lacks some of its factors, needs a closure, or
            rescales its steps already; for sharded or merged adapters. At a step, before anything moves: for a closure,
            a merged adapter, and factors whose groups have different learning rates.

    >>> import tensoradapt as ta
    >>> from transformers import BertConfig, BertForSequenceClassification
    >>> model = BertForSequenceClassification(BertConfig(hidden_size=96, num_attention_heads=6, num_hidden_layers=4))
    >>> adapter = ta.attach(model, ta.plan(model, "layer proj : head dim : model", "cp", 8))
    >>> optimizer = ta.equal_steps(torch.optim.AdamW(adapter.parameters(), lr=3e-3), model)
    """
    check_arguments(locals(), optimizer=torch_optimizer, model=of_kind(nn.Module))
    refuse_lbfgs(optimizer)
    held = held_adapters(optimizer, model, "take equal steps", "equal steps")
    if hasattr(optimizer, "equal_steps"):
        raise TensorAdaptError(
            f"this {type(optimizer).__name__} rescales its steps already; call equal_steps once for each optimizer"
        )
    stepper = StepRescaler(held)
    optimizer.register_step_pre_hook(stepper.before)
    optimizer.register_step_post_hook(stepper.after)
    optimizer.equal_steps = stepper  # type: ignore[attr-defined]
    return optimizer


class StepRescaler:
    """The hooks that rescale the steps of one optimizer.

    All state is in the parameters, so a training resumes bit for bit.
    """

    def __init__(self, adapters: Sequence[Adapter]) -> None:
        self.adapters = list(adapters)
        self.lengths: list[float] = []  # by what the last step of each adapter was multiplied
        self.unchanged = 0
        self._distances: dict[int, Distance] = {}
        self._kept: list[tuple[Values, float]] = []

    @torch.no_grad()
    def before(self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Keep the factors, and the distance that each adapter is to move."""
        refuse_closure(args, kwargs)
        for adapter in self.adapters:
            refuse_merged(adapter)
        self._kept = [
            (_in_double(adapter), learning_rate(optimizer, adapter) * math.sqrt(squared_target(adapter)))
            for adapter in self.adapters
        ]

    @torch.no_grad()
    def after(self, *_: Any) -> None:
        """Rescale the step that was taken."""
        kept, self._kept = self._kept, []
        self.lengths = [self._rescale(a, old, asked) for a, (old, asked) in zip(self.adapters, kept, strict=True)]

    def _rescale(self, adapter: Adapter, old: Values, asked: float) -> float:
        change = _in_double(adapter)
        torch._foreach_sub_(_listed(change), _listed(old))
        factors = adapter.as_factors(old), adapter.as_factors(change, change=True)
        length = self.length(self._distance(adapter).along(*factors), asked)
        if length is None:
            self._leave()
            return 1.0
        torch._foreach_add_(_listed(old), _listed(change), alpha=length)
        torch._foreach_copy_(_listed(_factors(adapter)), _listed(old))
        return length

    def length(self, curve: Callable[[float], float], asked: float) -> float | None:
        """Return the multiple of a step that moves the weights by ``asked``; None for a step to be left as it is."""
        return solve(curve, asked)

    def _leave(self) -> None:
        self.unchanged += 1
        if self.unchanged == 1:
            warnings.warn(
                "a step moved no adapted weight, or not by a finite distance, and was left as it is; later ones are "
                "counted in optimizer.equal_steps.unchanged. Are the gradients zero or not finite?",
                RuntimeWarning,
                stacklevel=2,
            )

    def _distance(self, adapter: Adapter) -> Distance:
        known = self._distances.get(id(adapter))
        if known is None or not known.fits(adapter):  # reducing ranks replaces the tensors
            known = self._distances[id(adapter)] = Distance(adapter)
        return known


def squared_target(adapter: Adapter) -> float:
    """Return the squared distance of a step at rate 1, summed over all entries of the adapter's matrices."""
    squared = sum(site.out * site.in_ * first_step(site.in_) ** 2 for site in adapter.plan.sites)
    return squared * adapter.plan.spec.n_tasks


def learning_rate(optimizer: torch.optim.Optimizer, adapter: Adapter) -> float:
    """Return the learning rate of an adapter's factors."""
    # it is that of their groups, or that over each factor's own multiplier (LoRA+)
    multipliers = {id(p): rate for p, rate in adapter.rates().items()}
    pairs: dict[tuple[float, float], None] = {}
    for group in optimizer.param_groups:
        found = dict.fromkeys(multipliers[id(p)] for p in group["params"] if id(p) in multipliers)
        if found:  # the rate of a group is read once: it may be a tensor on a device
            rate = float(group["lr"])
            pairs |= dict.fromkeys((rate, multiplier) for multiplier in found)
    for rates in ([lr for lr, _ in pairs], [lr / multiplier for lr, multiplier in pairs]):
        if max(rates) - min(rates) <= 1e-9 * max(rates):
            return rates[0]
    listed = ", ".join(f"{lr:g}" for lr in sorted({lr for lr, _ in pairs}))
    raise TensorAdaptError(
        f"the factors of one adapter are in groups of learning rates {listed}; equal steps needs one for all: put them "
        "in one group, or give factors their own multipliers by rates= of plan"
    )


def _factors(adapter: Adapter) -> Values:
    return [{name: p.detach() for name, p in named.items()} for named in adapter.trained]


def _in_double(adapter: Adapter) -> Values:
    """Return copies of the factors in float64, made in one operation."""
    factors = _factors(adapter)
    copies = [{name: torch.empty_like(p, dtype=torch.float64) for name, p in of.items()} for of in factors]
    torch._foreach_copy_(_listed(copies), _listed(factors))
    return copies


def _listed(values: Values) -> list[Tensor]:
    return [value for of in values for value in of.values()]
