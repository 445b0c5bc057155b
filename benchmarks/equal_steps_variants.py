"""Other ways to take equal steps, which were tried to decide on one.

- "per tensor": each tensor of an adapter has a length of its own, so that each moves by its matrices' T.
- "only down": steps are shortened where they are too long, and never lengthened.
- "every 10": the length is measured at every tenth step and held between.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from tensoradapt.adapter.adapter import Adapter
from tensoradapt.training.distance.step_length import solve
from tensoradapt.training.equal_steps import StepRescaler

Values = Sequence[Mapping[str, torch.Tensor]]


class PerTensor(StepRescaler):
    """A length for each tensor."""

    def _rescale(self, adapter: Adapter, old: Values, asked: float) -> float:
        new = [{name: p.detach() for name, p in tensor.trained.items()} for tensor in adapter.factored]
        change = [{k: v.double() - b[k].double() for k, v in n.items()} for n, b in zip(new, old, strict=True)]
        still = [{k: torch.zeros_like(v) for k, v in of.items()} for of in change]
        rows = [sum(member.site.out for member in group.members) for group in adapter.plan.groups]
        for i, values in enumerate(new):
            alone = [change[k] if k == i else still[k] for k in range(len(new))]
            # asked is the rate times the square root of the sum over all rows
            part = asked * (rows[i] / sum(rows)) ** 0.5
            length = solve(self._distance(adapter).along(old, alone), part)
            for name, value in values.items():
                value.copy_(old[i][name].double() + (1.0 if length is None else length) * change[i][name])
        return 1.0


class OnlyDown(StepRescaler):
    """No step is lengthened."""

    def length(self, curve: Callable[[float], float], asked: float) -> float | None:
        length = super().length(curve, asked)
        return length and min(length, 1.0)


class EveryTenth(StepRescaler):
    """The length of a step at full rate is held for ten; the schedule goes on."""

    steps, held = 0, 1.0

    def length(self, curve: Callable[[float], float], asked: float) -> float | None:
        # AdamW's own step has the schedule's rate in it already, so that the length of a step needs none
        self.steps += 1
        if self.steps % 10 == 1:
            self.held = super().length(curve, asked) or 1.0
        return self.held


VARIANTS: Mapping[str, type[StepRescaler]] = {"per tensor": PerTensor, "only down": OnlyDown, "every 10": EveryTenth}


def variant(name: str) -> Callable[[Any, nn.Module], Any]:
    """A stand-in for ``equal_steps``, which it is for any other name."""

    def wrapped(optimizer: torch.optim.Optimizer, model: nn.Module) -> torch.optim.Optimizer:
        adapters = [module for module in model.modules() if isinstance(module, Adapter)]
        stepper = VARIANTS.get(name, StepRescaler)(adapters)
        optimizer.register_step_pre_hook(stepper.before)
        optimizer.register_step_post_hook(stepper.after)
        return optimizer

    return wrapped
