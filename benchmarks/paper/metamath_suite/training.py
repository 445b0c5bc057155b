"""The loop of PEFT's comparison: AdamW, a cosine after a warm-up of a tenth, and validation by generation."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from metamath_suite.batches import Batch
from metamath_suite.course import Course, Step
from metamath_suite.memory import Memory
from metamath_suite.setting import Setting
from tensoradapt.errors import TensorAdaptError
from tensoradapt.lab.data import models
from tensoradapt.training.fit import optimizer_of, parameter_groups
from tensoradapt.training.options import Training

WARMUP = 0.1  # share of the steps
RELEASE = 10  # steps between two releases of unused memory
OPTIMIZERS = {"AdamW": "adamw", "equal_steps": "equal_steps"}


def train(
    model: Any,
    batches: Iterable[Batch],
    setting: Setting,
    course: Course,
    memory: Memory,
    validate: Callable[[], float],
) -> None:
    """Train what requires gradients, and write steps and validations into the course.

    ``validate`` returns the accuracy of validation. Raises TensorAdaptError for a loss that is not finite.
    """
    optimizer, schedule = stepper(model, setting)
    trained = [p for p in model.parameters() if p.requires_grad]
    model.train()
    for batch in batches:
        start = time.perf_counter()
        loss = _step(model, batch, trained, optimizer, setting)
        schedule.step()
        seconds = time.perf_counter() - start
        course.steps.append(Step(loss, batch.n_tokens, batch.n_rows, seconds, memory.allocated(), memory.reserved()))
        if len(course.steps) % setting.eval_steps == 0:
            start = time.perf_counter()
            course.add_validation(validate(), time.perf_counter() - start)
        if len(course.steps) % RELEASE == 0:
            memory.release()


def stepper(model: nn.Module, setting: Setting) -> tuple[torch.optim.Optimizer, Any]:
    """Return the optimizer and its schedule, whose first step has rate 0."""
    lr, decay = setting.rates["lr"], setting.rates["weight_decay"]
    kind = OPTIMIZERS[setting.optimizer_type]
    options = Training(lr, setting.max_steps, optimizer=kind, weight_decay=decay, warmup=WARMUP)
    optimizer = optimizer_of(model, parameter_groups(model, lr), options)
    rising = int(WARMUP * setting.max_steps)
    return optimizer, models.transformers().get_cosine_schedule_with_warmup(optimizer, rising, setting.max_steps)


def _step(
    model: Any, batch: Batch, trained: list[nn.Parameter], optimizer: torch.optim.Optimizer, setting: Setting
) -> float:
    optimizer.zero_grad()
    loss = model(**batch.inputs).loss
    loss.backward()
    nn.utils.clip_grad_norm_(trained, setting.grad_norm_clip)
    value = loss.item()
    if not math.isfinite(value):
        raise TensorAdaptError(f"the loss is {value}; choose a smaller learning rate than {setting.rates['lr']:g}")
    optimizer.step()
    return value
