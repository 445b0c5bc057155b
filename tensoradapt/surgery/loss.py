"""The loss of a batch: the model's own, or that of a function."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from tensoradapt.checks import shown
from tensoradapt.errors import TensorAdaptError, few
from tensoradapt.surgery.moved_batch import elsewhere


def loss_of(
    model: nn.Module,
    batch: Any,
    loss: Callable[[nn.Module, Any], Tensor] | None = None,
    context: AbstractContextManager[Any] | None = None,
) -> Tensor:  # one number
    """Compute the loss of a batch, within a context; raise TensorAdaptError where there is none to train on."""
    if not torch.is_grad_enabled():
        raise TensorAdaptError(
            "a loss to train on was asked for in torch.no_grad() or torch.inference_mode(), in which nothing has a "
            "gradient; call it outside"
        )
    if loss is None and not isinstance(batch, Mapping):
        raise TensorAdaptError(f"a batch is {shown(batch)}; expected a mapping of the model's arguments, or give loss=")
    try:
        with context or nullcontext():
            value = loss(model, batch) if loss else getattr(model(**batch), "loss", None)
    except RuntimeError as error:
        if found := elsewhere(batch, model):
            raise TensorAdaptError(
                f"{found}; expected both on one device: call model.to or .to of the batch, or give batches on the CPU, "
                "which are moved to a GPU"
            ) from error
        raise
    except (TypeError, ValueError) as error:
        if loss is not None or isinstance(error, TensorAdaptError):
            raise
        raise TensorAdaptError(
            f"{type(model).__name__}, called with {few(sorted(map(str, batch)))}, raised "
            f"{type(error).__name__}: {error}; expected a batch of what the model takes, such as input_ids and labels"
        ) from error
    if isinstance(value, Tensor) and value.numel() == 1 and value.requires_grad:
        return value
    where = "loss=" if loss else f"{type(model).__name__}, called with {few(sorted(map(str, batch)))},"
    raise TensorAdaptError(
        f"{where} returned the loss {shown(value)}; expected one number with a gradient. Give batches with labels, or "
        "loss="
    )
