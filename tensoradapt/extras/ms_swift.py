"""The plug-in of ms-swift trains a TensorConfig for ``--tuner_type tensoradapt``: docs/guides/trainers.md has a run."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from peft import PeftModel, get_peft_model
from torch import nn

from tensoradapt.errors import check_installed
from tensoradapt.integrations.peft.config import TensorConfig  # registers the method too
from tensoradapt.integrations.trainer import EqualSteps

__all__ = ["register"]
NAME = "tensoradapt"


def register(config: TensorConfig) -> None:
    """Make ``--tuner_type tensoradapt`` train an adapter, and ``--callbacks equal_steps`` take equal steps.

    Call it in the file of ``--external_plugins``. Saving, resuming, inference and merging are ms-swift's own. Its
    options of LoRA (``--lora_rank``, ``--target_modules`` ...) are not read: the config alone says what is trained
    (docs/guides/trainers.md).

    Args:
        config: what is trained; each model gets a copy.

    Raises:
        TensorAdaptError: where ms-swift is not installed.

    >>> from tensoradapt.extras.ms_swift import register
    >>> from tensoradapt.integrations.peft import TensorConfig
    >>> register(TensorConfig(task_type="CAUSAL_LM", method="cp", rank=8))  # doctest: +SKIP
    """
    check_installed("ms-swift", __name__)
    from swift import PeftTuner, callbacks_map, tuners_map

    class TensorTuner(PeftTuner):
        """The tuner that adapts a model as the config says; PEFT saves and loads it."""

        @staticmethod
        def prepare_model(args: Any, model: nn.Module) -> PeftModel:
            """Return the model with a new adapter."""
            return get_peft_model(model, deepcopy(config))

    tuners_map[NAME] = TensorTuner
    callbacks_map["equal_steps"] = lambda args, trainer: EqualSteps()
