"""Mixed batches: each sample with its own adapter, by PEFT's argument ``adapter_names``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from peft.utils.other import AuxiliaryTrainingWrapper
from torch import nn

from tensoradapt.errors import TensorAdaptError, did_you_mean
from tensoradapt.integrations.peft.layer import TensorLinear

BASE = "__base__"  # PEFT's name for no adapter


@contextmanager
def mixed(tuner: nn.Module, names: Sequence[str], known: Sequence[str], beams: int = 1) -> Iterator[None]:
    """Within it every adapted layer takes ``names``, an adapter for each sample; each is repeated for its beams.

    Raises TensorAdaptError in training mode, and for names that are none of ``known``.
    """
    if tuner.training:
        raise TensorAdaptError(
            "adapter_names were given in training mode; they are for inference: call model.eval() first"
        )
    for name in names:
        if name != BASE and name not in known:
            raise TensorAdaptError(
                f"adapter_names has {name!r}, which the model does not have{did_you_mean(name, [*known, BASE])}"
            )
    if beams > 1 and getattr(getattr(tuner, "config", None), "is_encoder_decoder", False):
        raise TensorAdaptError("adapter_names with beam search are for decoders; use num_beams=1 with this model")
    hook = partial(_with_names, [name for name in names for _ in range(beams)])
    with ExitStack() as held:
        for module in tuner.modules():
            if isinstance(module, TensorLinear | AuxiliaryTrainingWrapper):
                held.callback(module.register_forward_pre_hook(hook, with_kwargs=True).remove)
        yield


def _with_names(names: list[str], module: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    return args, {**kwargs, "adapter_names": names}
